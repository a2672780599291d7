//! Leases: granted, renewed and ended in one transaction each, with the licence judged and the seats counted inside it.

use jiff::Timestamp;
use release_protocol::{Lease, LeaseId, LicenseId, ProductName};
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditKind, append};
use super::evidence::keep;
use super::lease_list::platform;
use super::license::{LicenseRecord, later, license_in};
use super::log::place;
use super::platform::findings;
use super::seat::taken;
use super::write::Write;
use super::{Store, StoreError, millis, timestamp};
use crate::finding::Stage;
use crate::platform::Platform;

/// Asks for a lease or its renewal, after evidence and policy have been judged.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRequest {
    /// Thumbprint of the guest's ephemeral key.
    pub(crate) id: LeaseId,
    pub(crate) license: LicenseId,
    pub(crate) product: ProductName,
    pub(crate) manifest_digest: String,
    pub(crate) chip_id: String,
    /// What else is known of the platform.
    pub(crate) platform: Option<Platform>,
    pub(crate) simulated: bool,
    /// Whether the guest stops when the lease is lost.
    pub(crate) revocable: bool,
    /// Whether the guest says that it renews.
    pub(crate) renewal: bool,
    /// When the challenge that was answered had been issued.
    pub(crate) challenge_at: Timestamp,
    /// What the audit entry says besides.
    pub(crate) audit: Value,
    /// What the decision rests on, sealed.
    pub(crate) basis: Vec<u8>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum LeaseOutcome {
    /// Granted, renewed, or the same answer to a repeated request; `entry` is of the grant or the renewal, where it is known.
    Held { lease: Lease, entry: Option<u64> },
    /// The licence, or the state of the lease, says no.
    Denied { reason: String, entry: u64 },
    /// All seats are taken.
    SeatsExhausted { seats: u32, entry: u64 },
}

impl Store {
    /// Grants or renews a lease.
    pub(crate) async fn hold_lease(&self, request: &LeaseRequest, now: Timestamp) -> Result<LeaseOutcome, StoreError> {
        self.group.lease(request, now).await
    }

    /// Records that a key is released under a lease.
    pub(crate) async fn record_release(&self, id: &LeaseId, body: Value, now: Timestamp) -> Result<u64, StoreError> {
        self.group.release(id, body, now).await
    }

    /// Why nothing may be released under the lease at `now`; `None` when something may.
    pub(crate) async fn lease_refusal(&self, id: &LeaseId, now: Timestamp) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT license_id, ended_at, expires_at, seat_until, chip_id, platform FROM lease WHERE id = $1",
        )
        .bind(&id.0)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(Some("there is no such lease".to_owned())) };
        if row.try_get::<Option<i64>, _>("ended_at")?.is_some() {
            return Ok(Some("the lease has ended".to_owned()));
        }
        if row.try_get::<i64, _>("expires_at")?.min(row.try_get("seat_until")?) <= millis(now) {
            return Ok(Some("the lease has expired".to_owned()));
        }
        if let Some(finding) = self.platform_findings(row.try_get("chip_id")?, platform(&row)?.as_ref()).await?.pop() {
            return Ok(Some(finding.message));
        }
        let license = LicenseId(row.try_get("license_id")?);
        Ok(match self.license(&license).await? {
            None => Some(format!("licence {license} is unknown")),
            Some(record) => record.refusal_to_go_on(now),
        })
    }

    /// Ends a lease and frees its seat; ending it again changes nothing.
    pub(crate) async fn end_lease(&self, id: &LeaseId, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let ended = sqlx::query(
            "UPDATE lease SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL \
             RETURNING license_id, last_entry",
        )
        .bind(&id.0)
        .bind(millis(now))
        .bind(reason)
        .fetch_optional(transaction.sql())
        .await?;
        if let Some(row) = ended {
            let previous: Option<i64> = row.try_get(1)?;
            let body =
                json!({"lease": id, "license": row.try_get::<&str, _>(0)?, "reason": reason, "previous": previous});
            let entry = append(&mut transaction, AuditKind::LeaseEnded, &body, now).await?;
            link(&mut transaction, id, entry).await?;
        } else {
            let known = sqlx::query("SELECT 1 FROM lease WHERE id = $1").bind(&id.0).fetch_optional(transaction.sql());
            if known.await?.is_none() {
                return Err(StoreError::Unknown { kind: "lease", name: id.0.clone() });
            }
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Grants, renews or denies inside a transaction.
pub(super) async fn decide(
    transaction: &mut Write,
    request: &LeaseRequest,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    let Some(record) = license_in(transaction, &request.license).await? else {
        let reason = format!("licence {} is unknown", request.license);
        return deny(transaction, request, Stage::License, reason, now).await;
    };
    let held =
        sqlx::query("SELECT * FROM lease WHERE id = $1").bind(&request.id.0).fetch_optional(transaction.sql()).await?;
    let refusal = if held.is_some() { record.refusal_to_go_on(now) } else { record.refusal(now) };
    if let Some(reason) = refusal {
        return deny(transaction, request, Stage::License, reason, now).await;
    }
    // Once more, under the lock: what a denial found to be running is all that runs.
    if let Some(finding) =
        findings(transaction.sql(), &request.chip_id, request.platform.as_ref()).await?.into_iter().next()
    {
        return deny(transaction, request, Stage::Platform, finding.message, now).await;
    }
    let Some(row) = held else {
        if request.renewal {
            return deny(transaction, request, Stage::Lease, "there is no lease to renew".to_owned(), now).await;
        }
        return grant(transaction, request, &record, now).await;
    };
    if row.try_get::<Option<i64>, _>("ended_at")?.is_some() {
        return deny(transaction, request, Stage::Lease, "the lease has ended".to_owned(), now).await;
    }
    let same = row.try_get::<&str, _>("license_id")? == request.license.0
        && row.try_get::<&str, _>("product")? == request.product.as_str()
        && row.try_get::<&str, _>("manifest_digest")? == request.manifest_digest
        && row.try_get::<&str, _>("chip_id")? == request.chip_id;
    if !same {
        let reason = "the lease was granted for another licence, image or chip".to_owned();
        return deny(transaction, request, Stage::Lease, reason, now).await;
    }
    if row.try_get::<i64, _>("challenge_at")? >= millis(request.challenge_at) {
        // The same answer to a challenge once more: the same lease, unchanged.
        let lease = lease(&record, &request.id, timestamp(row.try_get("expires_at")?)?, now);
        let entry = row.try_get::<Option<i64>, _>("entry")?.map(u64::try_from).transpose();
        return Ok(LeaseOutcome::Held { lease, entry: entry.map_err(|_| StoreError::Value("audit sequence"))? });
    }
    renew(transaction, request, &record, &row, now).await
}

async fn grant(
    transaction: &mut Write,
    request: &LeaseRequest,
    record: &LicenseRecord,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    if let Some(full) = exhausted(transaction, request, record, now).await? {
        return Ok(full);
    }
    let (expires_at, seat_until) = ends(record, now)?;
    sqlx::query(
        "INSERT INTO lease (id, license_id, product, manifest_digest, chip_id, simulated, started_at, expires_at, \
         seat_until, challenge_at, platform, revocable) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&request.id.0)
    .bind(&request.license.0)
    .bind(request.product.as_str())
    .bind(&request.manifest_digest)
    .bind(&request.chip_id)
    .bind(i64::from(request.simulated))
    .bind(millis(now))
    .bind(millis(expires_at))
    .bind(millis(seat_until))
    .bind(millis(request.challenge_at))
    .bind(request.platform.as_ref().map(serde_json::to_string).transpose()?)
    .bind(i64::from(request.revocable))
    .execute(transaction.sql())
    .await?;
    sqlx::query("UPDATE license SET activated_at = $2 WHERE id = $1 AND activated_at IS NULL")
        .bind(&request.license.0)
        .bind(millis(now))
        .execute(transaction.sql())
        .await?;
    let entry = append(transaction, AuditKind::LeaseGranted, &audit_body(request, &json!({})), now).await?;
    held(transaction, request, lease(record, &request.id, expires_at, now), entry).await
}

async fn renew(
    transaction: &mut Write,
    request: &LeaseRequest,
    record: &LicenseRecord,
    row: &AnyRow,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    // A lease that has lapsed gave its seat back: it must find a free one.
    if row.try_get::<i64, _>("seat_until")? <= millis(now)
        && let Some(full) = exhausted(transaction, request, record, now).await?
    {
        return Ok(full);
    }
    let (expires_at, seat_until) = ends(record, now)?;
    sqlx::query("UPDATE lease SET expires_at = $2, seat_until = $3, challenge_at = $4, platform = $5 WHERE id = $1")
        .bind(&request.id.0)
        .bind(millis(expires_at))
        .bind(millis(seat_until))
        .bind(millis(request.challenge_at))
        .bind(request.platform.as_ref().map(serde_json::to_string).transpose()?)
        .execute(transaction.sql())
        .await?;
    let previous: Option<i64> = row.try_get("last_entry")?;
    let body = audit_body(request, &json!({"previous": previous}));
    let entry = append(transaction, AuditKind::LeaseRenewed, &body, now).await?;
    held(transaction, request, lease(record, &request.id, expires_at, now), entry).await
}

/// Notes the entry with its lease, so that a repeated request gets the same receipt, and what the decision rests on.
async fn held(
    transaction: &mut Write,
    request: &LeaseRequest,
    lease: Lease,
    entry: u64,
) -> Result<LeaseOutcome, StoreError> {
    sqlx::query("UPDATE lease SET entry = $2, last_entry = $2 WHERE id = $1")
        .bind(&lease.id.0)
        .bind(place(entry)?)
        .execute(transaction.sql())
        .await?;
    keep(transaction, &lease.id, entry, &request.basis).await?;
    Ok(LeaseOutcome::Held { lease, entry: Some(entry) })
}

/// Makes an entry the newest one of its lease.
async fn link(transaction: &mut Write, id: &LeaseId, entry: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE lease SET last_entry = $2 WHERE id = $1")
        .bind(&id.0)
        .bind(place(entry)?)
        .execute(transaction.sql())
        .await?;
    Ok(())
}

/// Records that a key is released under a lease that lives.
pub(super) async fn release(
    transaction: &mut Write,
    id: &LeaseId,
    mut body: Value,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT last_entry FROM lease WHERE id = $1 AND ended_at IS NULL")
        .bind(&id.0)
        .fetch_optional(transaction.sql())
        .await?
        .ok_or_else(|| StoreError::Conflict("the lease has ended".to_owned()))?;
    if let Some(members) = body.as_object_mut() {
        members.insert("previous".to_owned(), row.try_get::<Option<i64>, _>(0)?.into());
    }
    let entry = append(transaction, AuditKind::KeyReleased, &body, now).await?;
    link(transaction, id, entry).await?;
    Ok(entry)
}

async fn exhausted(
    transaction: &mut Write,
    request: &LeaseRequest,
    record: &LicenseRecord,
    now: Timestamp,
) -> Result<Option<LeaseOutcome>, StoreError> {
    let seats = record.claims.seats;
    if taken(transaction, &request.license, now).await? < seats {
        return Ok(None);
    }
    let body = audit_body(
        request,
        &json!({
            "stage": Stage::Seats.name(), "reasons": [format!("all {seats} seats are taken")],
        }),
    );
    let entry = append(transaction, AuditKind::Denied, &body, now).await?;
    Ok(Some(LeaseOutcome::SeatsExhausted { seats, entry }))
}

async fn deny(
    transaction: &mut Write,
    request: &LeaseRequest,
    stage: Stage,
    reason: String,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    let body = audit_body(request, &json!({"stage": stage.name(), "reasons": [reason]}));
    let entry = append(transaction, AuditKind::Denied, &body, now).await?;
    Ok(LeaseOutcome::Denied { reason, entry })
}

fn audit_body(request: &LeaseRequest, more: &Value) -> Value {
    let mut body = json!({
        "lease": request.id, "license": request.license, "product": request.product,
        "manifest_digest": request.manifest_digest, "chip_id": request.chip_id, "simulated": request.simulated,
        "revocable": request.revocable,
    });
    for extra in [&request.audit, more] {
        if let (Some(body), Some(extra)) = (body.as_object_mut(), extra.as_object()) {
            body.extend(extra.clone());
        }
    }
    body
}

fn ends(record: &LicenseRecord, now: Timestamp) -> Result<(Timestamp, Timestamp), StoreError> {
    let mut expires_at = later(now, record.claims.lease_seconds)?;
    let mut grace_seconds = record.claims.grace_seconds;
    if let Some(until) = record.drain_until.filter(|_| record.is_draining(now)) {
        expires_at = expires_at.min(until);
        grace_seconds = 0;
    }
    // As it is stored, so that a repeated answer equals the first.
    let expires_at = timestamp(millis(expires_at))?;
    Ok((expires_at, later(expires_at, grace_seconds)?))
}

fn lease(record: &LicenseRecord, id: &LeaseId, expires_at: Timestamp, now: Timestamp) -> Lease {
    // A guest counts by its own clock from when it asked: what is left counts, not the service's time of day.
    let left = u64::try_from((expires_at.as_second() - now.as_second()).max(0)).unwrap_or_default();
    let is_draining = record.is_draining(now);
    Lease {
        id: id.clone(),
        license: record.claims.id.0.clone(),
        expires_at,
        ttl_seconds: if is_draining { left } else { record.claims.lease_seconds },
        grace_seconds: if is_draining { 0 } else { record.claims.grace_seconds },
    }
}
