//! Keys released under leases: whether a lease may be used, and the entry without which nothing leaves.

use std::sync::Arc;

use jiff::Timestamp;
use release_protocol::{LeaseId, LicenseId};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::audit::{AuditKind, append_said};
use super::batch::{Batch, LeaseRow};
use super::lease::{ENDED, with};
use super::license::LicenseRecord;
use super::log::place;
use super::rules::{TRIES, against};
use super::write::Write;
use super::{Store, StoreError, count, millis};
use crate::api::PlatformDenial;
use crate::platform::Platform;

/// Asks to record that a key is released under a lease, once that was seen to live.
#[derive(Clone, Debug)]
pub(crate) struct ReleaseRequest {
    pub(crate) lease: LeaseId,
    /// The lease's licence.
    pub(crate) license: Arc<LicenseRecord>,
    pub(crate) denials: Arc<[PlatformDenial]>,
    /// The version of the rules that these are of.
    pub(crate) rules: u64,
    /// What the audit entry says of the release.
    pub(crate) released: Value,
    /// What it says of a denial.
    pub(crate) denied: Value,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum ReleaseOutcome {
    /// Recorded.
    Released,
    /// The lease may not be used any more.
    Denied { reason: String, entry: u64 },
    /// Nothing was written: what it was judged by is not in force any more.
    Outdated,
}

impl Store {
    /// Records that a key is released under a lease, or that it is not.
    pub(crate) async fn record_release(
        &self,
        request: ReleaseRequest,
        now: Timestamp,
    ) -> Result<ReleaseOutcome, StoreError> {
        self.group.release(request, now).await
    }

    /// Why nothing may be released under the lease at `now`; `None` when something may.
    pub(crate) async fn lease_refusal(&self, id: &LeaseId, now: Timestamp) -> Result<Option<String>, StoreError> {
        for _ in 0..TRIES {
            match self.lease_refusal_by_rules(id, now).await {
                Err(StoreError::Outdated) => {}
                refusal => return refusal,
            }
        }
        Err(StoreError::Outdated)
    }

    async fn lease_refusal_by_rules(&self, id: &LeaseId, now: Timestamp) -> Result<Option<String>, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query("SELECT lease.*, news.rules FROM news LEFT JOIN lease ON lease.id = $1")
            .bind(&id.0)
            .fetch_one(reader.sql())
            .await?;
        reader.keep();
        let rules = self.rules.at(count(&row, "rules")?);
        if row.try_get::<Option<&str>, _>("id")?.is_none() {
            return Ok(Some(NO_LEASE.to_owned()));
        }
        let row = LeaseRow::read(&row)?;
        let Some(license) = self.license_by(&rules, &LicenseId(row.license.clone())).await? else {
            return Ok(Some(format!("licence {} is unknown", row.license)));
        };
        row.refusal(&license, &self.denials_by(&rules).await?, now)
    }
}

const NO_LEASE: &str = "there is no such lease";

impl LeaseRow {
    /// Why nothing may be released under it at `now`.
    fn refusal(
        &self,
        license: &LicenseRecord,
        denials: &[PlatformDenial],
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        if self.has_ended {
            return Ok(Some(ENDED.to_owned()));
        }
        if self.expires_at.min(self.seat_until) <= millis(now) {
            return Ok(Some("the lease has expired".to_owned()));
        }
        let platform: Option<Platform> = self.platform.as_deref().map(serde_json::from_str).transpose()?;
        if let Some(finding) = against(denials, &self.chip_id, platform.as_ref()).pop() {
            return Ok(Some(finding.message));
        }
        Ok(license.refusal_to_go_on(now))
    }
}

/// Records that a key is released under a lease that lives, or that it is not.
pub(super) async fn release(
    batch: &mut Batch,
    transaction: &mut Write<'_>,
    request: &ReleaseRequest,
    now: Timestamp,
) -> Result<ReleaseOutcome, StoreError> {
    if transaction.rules().await? != request.rules {
        return Ok(ReleaseOutcome::Outdated);
    }
    let row = batch.lease(&request.lease);
    let refusal = match row {
        None => Some(NO_LEASE.to_owned()),
        Some(row) if row.license != request.license.claims.id.0 => Some("the lease is another licence's".to_owned()),
        Some(row) => row.refusal(&request.license, &request.denials, now)?,
    };
    let Some(mut row) = row.filter(|_| refusal.is_none()).cloned() else {
        let reason = refusal.unwrap_or_default();
        let body = with(request.denied.clone(), json!({"reasons": [reason]}));
        let entry = append_said(transaction, AuditKind::Denied, body, now).await?;
        return Ok(ReleaseOutcome::Denied { reason, entry });
    };
    let body = with(request.released.clone(), json!({"previous": row.last_entry}));
    let entry = append_said(transaction, AuditKind::KeyReleased, body, now).await?;
    row.last_entry = Some(place(entry)?);
    batch.put(&request.lease, row, false);
    Ok(ReleaseOutcome::Released)
}
