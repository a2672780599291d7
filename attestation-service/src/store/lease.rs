//! Leases: granted, renewed, used and ended in one transaction each, with the licence judged and the seats counted inside it.

use std::sync::Arc;

use jiff::Timestamp;
use release_protocol::{Lease, LeaseId, License, ProductName};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::audit::{AuditKind, append, append_said};
use super::batch::{Batch, LeaseRow};
use super::grown::Grown;
use super::license::{LicenseRecord, later};
use super::log::place;
use super::renewal;
use super::seat::give_back;
use super::write::Write;
use super::{Store, StoreError, millis, timestamp};
use crate::finding::Stage;
use crate::platform::Platform;

/// Asks for a lease or its renewal, after evidence and policy have been judged.
#[derive(Clone, Debug)]
pub(crate) struct LeaseRequest {
    /// Thumbprint of the guest's ephemeral key.
    pub(crate) id: LeaseId,
    pub(crate) license: Arc<LicenseRecord>,
    /// The version of the rules that it was judged by, the licence and denied platforms among them.
    pub(crate) rules: u64,
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
    /// How long the guest may do without the service, in seconds.
    pub(crate) offline_seconds: Option<u64>,
    /// What is left of a relay's authority, in seconds: no lease of its lasts longer, grace included.
    pub(crate) at_most_seconds: Option<u64>,
    /// Where no challenge was answered but a file was carried.
    pub(crate) by_file: Option<ByFile>,
    /// What the audit entry says besides.
    pub(crate) audit: Value,
    /// What the decision rests on, sealed.
    pub(crate) basis: Vec<u8>,
}

/// A request that was carried by file (`renewal.rs`).
#[derive(Clone, Debug)]
pub(crate) struct ByFile {
    /// Its digest: it is answered once.
    pub(crate) digest: String,
    /// The entry of the last grant or renewal that the guest knew of.
    pub(crate) base: u64,
    /// When it was made, by the guest's clock.
    pub(crate) made_at: Timestamp,
}

/// Who ends a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndedBy {
    /// The attested guest itself: it has stopped, and keeps nothing.
    Guest,
    /// The vendor.
    Vendor,
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
    /// Nothing was written: what it was judged by is not in force any more.
    Outdated,
}

impl Store {
    /// Grants or renews a lease. Gives what the log grew by with it, too, where it grew.
    pub(crate) async fn hold_lease(
        &self,
        request: LeaseRequest,
        now: Timestamp,
    ) -> Result<(LeaseOutcome, Option<Grown>), StoreError> {
        self.group.lease(request, now).await
    }

    /// Ends a lease and frees its seat; ending it again changes nothing. Where the vendor ends one whose guest may do without
    /// the service, it is known of no guest whether it has stopped: the seat is free when the allowance is over.
    pub(crate) async fn end_lease(
        &self,
        id: &LeaseId,
        by: EndedBy,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        // A reason without a time: ended, but for the seat.
        let ended = sqlx::query(
            "UPDATE lease SET ended_at = CASE WHEN $4 = 1 AND offline_until > $2 THEN NULL ELSE $2 END, end_reason = $3 \
             WHERE id = $1 AND ended_at IS NULL AND end_reason IS NULL \
             RETURNING license_id, last_entry, chip_id, CASE WHEN ended_at IS NULL THEN 0 ELSE seat_until END",
        )
        .bind(&id.0)
        .bind(millis(now))
        .bind(reason)
        .bind(i64::from(by == EndedBy::Vendor))
        .fetch_optional(transaction.sql())
        .await?;
        if let Some(row) = ended {
            let previous: Option<i64> = row.try_get(1)?;
            // One that was seen to have lapsed has none, and one that is kept is not given back.
            if row.try_get::<i64, _>(3)? > 0 {
                give_back(&mut transaction, row.try_get(0)?, row.try_get(2)?).await?;
            }
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

/// Why a lease that has ended is denied.
pub(super) const ENDED: &str = "the lease has ended";

/// Grants, renews or denies inside a transaction.
pub(super) async fn decide(
    batch: &mut Batch,
    transaction: &mut Write<'_>,
    request: &LeaseRequest,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    // Under the lock: what was judged is what is in force, and what a denial found to be running is all that runs.
    if transaction.rules().await? != request.rules {
        return Ok(LeaseOutcome::Outdated);
    }
    let held = batch.lease(&request.id).cloned();
    let license = &request.license;
    let refusal = if held.is_some() { license.refusal_to_go_on(now) } else { license.refusal(now) };
    if let Some(reason) = refusal {
        return deny(transaction, request, Stage::License, reason, now).await;
    }
    let Some(row) = held else {
        if request.renewal {
            return deny(transaction, request, Stage::Lease, "there is no lease to renew".to_owned(), now).await;
        }
        return grant(batch, transaction, request, now).await;
    };
    if row.has_ended {
        return deny(transaction, request, Stage::Lease, ENDED.to_owned(), now).await;
    }
    let same = row.license == license.claims.id.0
        && row.product == request.product.as_str()
        && row.manifest_digest == request.manifest_digest
        && row.chip_id == request.chip_id;
    if !same {
        let reason = "the lease was granted for another licence, image or chip".to_owned();
        return deny(transaction, request, Stage::Lease, reason, now).await;
    }
    if let Some(by_file) = &request.by_file {
        if let Some(reason) = renewal::refusal(transaction, by_file, &request.id, row.entry).await? {
            return deny(transaction, request, Stage::Lease, reason, now).await;
        }
    } else if row.challenge_at >= millis(request.challenge_at) {
        // The same answer to a challenge once more: the same lease, unchanged.
        let lease = lease(request, timestamp(row.expires_at)?, now);
        let entry = row.entry.map(u64::try_from).transpose();
        return Ok(LeaseOutcome::Held { lease, entry: entry.map_err(|_| StoreError::Value("audit sequence"))? });
    }
    renew(batch, transaction, request, row, now).await
}

async fn grant(
    batch: &mut Batch,
    transaction: &mut Write<'_>,
    request: &LeaseRequest,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    if let Some(full) = exhausted(batch, transaction, request, now).await? {
        return Ok(full);
    }
    let license = &request.license;
    let Ends { expires_at, seat_until, offline_until } = ends(request, now)?;
    let body = audit_body(request, json!({}));
    let entry = append_said(transaction, AuditKind::LeaseGranted, body, now).await?;
    if license.activated_at.is_none() {
        sqlx::query("UPDATE license SET activated_at = $2 WHERE id = $1 AND activated_at IS NULL")
            .bind(&license.claims.id.0)
            .bind(millis(now))
            .execute(transaction.sql())
            .await?;
        // Who keeps the licence in mind learns that it was activated.
        transaction.note_rules(entry);
    }
    let row = LeaseRow {
        license: license.claims.id.0.clone(),
        product: request.product.to_string(),
        manifest_digest: request.manifest_digest.clone(),
        chip_id: request.chip_id.clone(),
        simulated: request.simulated,
        revocable: request.revocable,
        started_at: millis(now),
        expires_at: millis(expires_at),
        seat_until: millis(seat_until),
        offline_until: offline_until.map_or(0, millis),
        challenge_at: millis(request.challenge_at),
        has_ended: false,
        platform: request.platform.as_ref().map(serde_json::to_string).transpose()?,
        entry: Some(place(entry)?),
        last_entry: Some(place(entry)?),
    };
    batch.put(&request.id, row, true);
    batch.keep_basis(&request.id, entry, request.basis.clone(), false);
    Ok(LeaseOutcome::Held { lease: lease(request, expires_at, now), entry: Some(entry) })
}

async fn renew(
    batch: &mut Batch,
    transaction: &mut Write<'_>,
    request: &LeaseRequest,
    mut row: LeaseRow,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    // A lease that has lapsed gave its seat back: it must find a free one.
    let lapsed = row.seat_until <= millis(now);
    if lapsed && let Some(full) = exhausted(batch, transaction, request, now).await? {
        return Ok(full);
    }
    let Ends { expires_at, seat_until, offline_until } = ends(request, now)?;
    let body = audit_body(request, json!({"previous": row.last_entry}));
    let entry = append_said(transaction, AuditKind::LeaseRenewed, body, now).await?;
    if let Some(by_file) = &request.by_file {
        renewal::keep(transaction, by_file, &request.id, entry).await?;
    }
    row.expires_at = millis(expires_at);
    // What the guest was once given it may have kept, whatever it is given now: its seat stays taken as long.
    row.offline_until = row.offline_until.max(offline_until.map_or(0, millis));
    row.seat_until = millis(seat_until).max(row.offline_until);
    row.challenge_at = millis(request.challenge_at);
    row.platform = request.platform.as_ref().map(serde_json::to_string).transpose()?;
    (row.entry, row.last_entry) = (Some(place(entry)?), Some(place(entry)?));
    batch.put(&request.id, row, lapsed);
    batch.keep_basis(&request.id, entry, request.basis.clone(), true);
    Ok(LeaseOutcome::Held { lease: lease(request, expires_at, now), entry: Some(entry) })
}

/// Makes an entry the newest one of its lease.
async fn link(transaction: &mut Write<'_>, id: &LeaseId, entry: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE lease SET last_entry = $2 WHERE id = $1")
        .bind(&id.0)
        .bind(place(entry)?)
        .execute(transaction.sql())
        .await?;
    Ok(())
}

async fn exhausted(
    batch: &mut Batch,
    transaction: &mut Write<'_>,
    request: &LeaseRequest,
    now: Timestamp,
) -> Result<Option<LeaseOutcome>, StoreError> {
    let license = &request.license.claims;
    let seats = license.seats;
    let taken = batch.seats_taken(transaction, &license.id, now).await?;
    // A relay holds all of them: a second one would give them out once more.
    if license.relay && taken > 0 {
        let reason = format!(
            "another relay holds licence {}: it has to give it back, its lease and grace have to be over, or the vendor ends its lease",
            license.id
        );
        return deny(transaction, request, Stage::Seats, reason, now).await.map(Some);
    }
    if taken < seats {
        return Ok(None);
    }
    let reasons = [format!("all {seats} seats are taken")];
    let body = audit_body(request, json!({"stage": Stage::Seats.name(), "reasons": reasons}));
    let entry = append_said(transaction, AuditKind::Denied, body, now).await?;
    Ok(Some(LeaseOutcome::SeatsExhausted { seats, entry }))
}

async fn deny(
    transaction: &mut Write<'_>,
    request: &LeaseRequest,
    stage: Stage,
    reason: String,
    now: Timestamp,
) -> Result<LeaseOutcome, StoreError> {
    let body = audit_body(request, json!({"stage": stage.name(), "reasons": [reason]}));
    let entry = append_said(transaction, AuditKind::Denied, body, now).await?;
    Ok(LeaseOutcome::Denied { reason, entry })
}

fn audit_body(request: &LeaseRequest, more: Value) -> Value {
    let body = json!({
        "lease": request.id, "license": request.license.claims.id, "product": request.product,
        "manifest_digest": request.manifest_digest, "chip_id": request.chip_id, "simulated": request.simulated,
        "revocable": request.revocable,
    });
    let body = match request.offline_seconds {
        Some(seconds) => with(body, json!({"offline_seconds": seconds})),
        None => body,
    };
    let body = match &request.by_file {
        Some(by_file) => with(body, json!({"request": by_file.digest})),
        None => body,
    };
    with(with(body, request.audit.clone()), more)
}

/// An object with further members.
pub(super) fn with(mut object: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

/// When a lease that is granted or renewed now ends.
struct Ends {
    expires_at: Timestamp,
    /// Until when its seat is taken.
    seat_until: Timestamp,
    /// Until when the guest may do without the service.
    offline_until: Option<Timestamp>,
}

fn ends(request: &LeaseRequest, now: Timestamp) -> Result<Ends, StoreError> {
    let record = &request.license;
    let (lease_seconds, mut grace_seconds) = terms(request);
    let mut expires_at = later(now, lease_seconds)?;
    if let Some(until) = record.drain_until.filter(|_| record.is_draining(now)) {
        expires_at = expires_at.min(until);
        grace_seconds = 0;
    }
    // As it is stored, so that a repeated answer equals the first.
    let expires_at = timestamp(millis(expires_at))?;
    let seat_until = later(expires_at, grace_seconds)?;
    let offline_until = request.offline_seconds.map(|seconds| later(now, seconds)).transpose()?;
    let seat_until = offline_until.map_or(seat_until, |offline| offline.max(seat_until));
    Ok(Ends { expires_at, seat_until, offline_until })
}

/// How long the lease lives, and the grace after that, in seconds.
fn terms(request: &LeaseRequest) -> (u64, u64) {
    let License { lease_seconds, grace_seconds, .. } = request.license.claims;
    let most = request.at_most_seconds.unwrap_or(u64::MAX);
    let lease_seconds = lease_seconds.min(most);
    (lease_seconds, grace_seconds.min(most - lease_seconds))
}

fn lease(request: &LeaseRequest, expires_at: Timestamp, now: Timestamp) -> Lease {
    let record = &request.license;
    let (lease_seconds, grace_seconds) = terms(request);
    // A guest counts by its own clock from when it asked: what is left counts, not the service's time of day.
    let left = u64::try_from((expires_at.as_second() - now.as_second()).max(0)).unwrap_or_default();
    let is_draining = record.is_draining(now);
    Lease {
        id: request.id.clone(),
        license: record.claims.id.0.clone(),
        expires_at,
        ttl_seconds: if is_draining { left } else { lease_seconds },
        grace_seconds: if is_draining { 0 } else { grace_seconds },
    }
}
