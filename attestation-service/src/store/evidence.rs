//! What decisions rested on: kept with the lease, the grant's and the newest renewal's, and read when it has to be shown.

use release_protocol::LeaseId;
use sqlx::{AssertSqlSafe, Row as _};

use super::audit::AuditEntry;
use super::log::place;
use super::rows::{Kind, Table, few_lengths, places, rows_of};
use super::write::Write;
use super::{Store, StoreError, count, policy_digest};

/// What is kept of one lease.
#[derive(Debug)]
pub(crate) struct LeaseEvidence {
    /// Every entry of the lease, oldest first.
    pub(crate) entries: Vec<AuditEntry>,
    /// The numbers of decisions with what they rested on, sealed.
    pub(crate) bases: Vec<(u64, Vec<u8>)>,
}

/// Keeps what decisions rested on, each sealed, by lease and entry.
pub(super) async fn keep(write: &mut Write<'_>, bases: &[(LeaseId, u64, Vec<u8>)]) -> Result<(), StoreError> {
    let row = |(lease, entry, sealed): &(LeaseId, u64, Vec<u8>)| {
        Ok(vec![lease.0.clone().into(), place(*entry)?.into(), sealed.clone().into()])
    };
    write.add(&EVIDENCE, rows_of(bases, row)?).await
}

static EVIDENCE: Table = Table {
    name: "lease_evidence",
    columns: &[("lease_id", Kind::Text), ("entry", Kind::Number), ("sealed", Kind::Bytes)],
    on_conflict: "",
};

/// Of these leases, only what the grant rested on stays.
pub(super) async fn forget_renewals(write: &mut Write<'_>, leases: &[&LeaseId]) -> Result<(), StoreError> {
    let wanted = few_lengths(leases);
    if wanted.is_empty() {
        return Ok(());
    }
    let mut query = sqlx::query(AssertSqlSafe(format!(
        "DELETE FROM lease_evidence WHERE lease_id IN {} \
         AND entry > (SELECT min(entry) FROM lease_evidence AS first WHERE first.lease_id = lease_evidence.lease_id)",
        places(1, wanted.len())
    )));
    for lease in wanted {
        query = query.bind(lease.0.clone());
    }
    query.execute(write.sql()).await?;
    Ok(())
}

impl Store {
    /// What is kept of a lease. Its entries are found from the newest back, by what each names as the one before it.
    pub(crate) async fn lease_evidence(&self, lease: &LeaseId) -> Result<LeaseEvidence, StoreError> {
        let unknown = || StoreError::Unknown { kind: "lease with evidence", name: lease.0.clone() };
        let row = sqlx::query("SELECT last_entry FROM lease WHERE id = $1")
            .bind(&lease.0)
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(unknown)?;
        let mut next = row.try_get::<Option<i64>, _>(0)?.map(u64::try_from).transpose().map_err(|_| unknown())?;
        if next.is_none() {
            return Err(unknown());
        }
        let mut entries = Vec::new();
        while let Some(number) = next {
            let entry = self.audit_entry(number).await?;
            next = entry.body["previous"].as_u64().filter(|previous| *previous < number);
            entries.push(entry);
        }
        entries.reverse();
        let rows = sqlx::query("SELECT entry, sealed FROM lease_evidence WHERE lease_id = $1 ORDER BY entry")
            .bind(&lease.0)
            .fetch_all(&self.pool)
            .await?;
        let bases = rows.iter().map(|row| Ok((count(row, 0)?, row.try_get(1)?))).collect::<Result<_, StoreError>>()?;
        Ok(LeaseEvidence { entries, bases })
    }

    /// The source of a policy that a product has or had; the default one is not kept.
    pub(crate) async fn policy_source(&self, digest: &str) -> Result<Option<String>, StoreError> {
        let row =
            sqlx::query("SELECT source FROM policy_source WHERE digest = $1").bind(digest).fetch_optional(&self.pool);
        if let Some(row) = row.await? {
            return Ok(Some(row.try_get(0)?));
        }
        // Set before sources were kept.
        let rows = sqlx::query("SELECT policy FROM product WHERE policy IS NOT NULL").fetch_all(&self.pool).await?;
        let sources = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<Vec<_>, _>>()?;
        Ok(sources.into_iter().find(|source| policy_digest(source) == digest))
    }
}
