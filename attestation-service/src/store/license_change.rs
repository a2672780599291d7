//! What may become of a licence once it is issued, each with its reason and its audit entry in one transaction:
//!
//! | from | by | to |
//! |---|---|---|
//! | issued, active | suspend | suspended: nothing starts, what runs stops |
//! | suspended | resume | issued or active |
//! | any but revoked | renew | the same, with another end or number of seats |
//! | any but revoked | transfer | the same, for another customer or other chips |
//! | any but revoked | revoke | revoked, for ever; what runs may drain for a while |

use jiff::Timestamp;
use release_protocol::{License, LicenseId};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::audit::{AuditKind, append};
use super::license::{LicenseRecord, license_in};
use super::write::Write;
use super::{Store, StoreError, count, millis, timestamp};
use crate::api::Revoked;

impl Store {
    /// Suspends a licence: nothing starts under it, and what runs stops.
    pub(crate) async fn suspend_license(&self, id: &LicenseId, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let record = changeable(&mut transaction, id).await?;
        if record.suspended_at.is_some() {
            return Err(StoreError::Conflict(format!("licence `{id}` is suspended already")));
        }
        sqlx::query("UPDATE license SET suspended_at = $2, reason = $3 WHERE id = $1")
            .bind(&id.0)
            .bind(millis(now))
            .bind(reason)
            .execute(transaction.sql())
            .await?;
        let running = running(&mut transaction, id, now).await?.instances;
        let body = json!({"license": id, "reason": reason, "running": running});
        append(&mut transaction, AuditKind::LicenseSuspended, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Lets a suspended licence hold again.
    pub(crate) async fn resume_license(&self, id: &LicenseId, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let record = changeable(&mut transaction, id).await?;
        if record.suspended_at.is_none() {
            return Err(StoreError::Conflict(format!("licence `{id}` is not suspended")));
        }
        sqlx::query("UPDATE license SET suspended_at = NULL, reason = NULL WHERE id = $1")
            .bind(&id.0)
            .execute(transaction.sql())
            .await?;
        append(&mut transaction, AuditKind::LicenseResumed, &json!({"license": id, "reason": reason}), now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives a licence other claims; `change` makes them of those that hold now. What its audit entry says besides is what
    /// differs.
    pub(crate) async fn change_license(
        &self,
        id: &LicenseId,
        kind: AuditKind,
        reason: &str,
        now: Timestamp,
        change: impl FnOnce(&mut License) + Send,
    ) -> Result<License, StoreError> {
        let mut transaction = self.write().await?;
        let before = changeable(&mut transaction, id).await?.claims;
        let mut after = before.clone();
        change(&mut after);
        sqlx::query("UPDATE license SET claims = $2, customer = $3, seats = $4, generation = $5 WHERE id = $1")
            .bind(&id.0)
            .bind(serde_json::to_string(&after)?)
            .bind(&after.customer)
            .bind(i64::from(after.seats))
            .bind(i64::from(after.generation))
            .execute(transaction.sql())
            .await?;
        let body = json!({
            "license": id, "reason": reason, "before": essentials(&before), "after": essentials(&after),
        });
        append(&mut transaction, kind, &body, now).await?;
        transaction.commit().await?;
        Ok(after)
    }

    /// Revokes a licence for ever. Nothing starts any more; what runs may go on until `drain_until`.
    pub(crate) async fn revoke_license(
        &self,
        id: &LicenseId,
        reason: &str,
        drain_until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Revoked, StoreError> {
        let mut transaction = self.write().await?;
        changeable(&mut transaction, id).await?;
        sqlx::query(
            "UPDATE license SET state = 'revoked', revoked_at = $2, reason = $3, drain_until = $4 WHERE id = $1",
        )
        .bind(&id.0)
        .bind(millis(now))
        .bind(reason)
        .bind(drain_until.map(millis))
        .execute(transaction.sql())
        .await?;
        let Running { instances: running, not_revocable, offline, until } = running(&mut transaction, id, now).await?;
        // One that is cut off goes on to the end of the lease that it has; one that drains renews until then.
        let stopped_by = until.max(drain_until.filter(|_| running > 0));
        let mut body = json!({
            "license": id, "reason": reason, "running": running, "not_revocable": not_revocable,
            "drain_until": drain_until,
        });
        if offline > 0 {
            body["offline"] = offline.into();
        }
        append(&mut transaction, AuditKind::LicenseRevoked, &body, now).await?;
        transaction.commit().await?;
        Ok(Revoked { id: id.0.clone(), running, not_revocable, offline, stopped_by })
    }
}

/// The licence, once it is seen to be there and not revoked.
async fn changeable(transaction: &mut Write<'_>, id: &LicenseId) -> Result<LicenseRecord, StoreError> {
    let record = license_in(transaction, id).await?;
    let record = record.ok_or_else(|| StoreError::Unknown { kind: "licence", name: id.0.clone() })?;
    match record.revoked_at {
        Some(_) => Err(StoreError::Conflict(format!("licence `{id}` is revoked already"))),
        None => Ok(record),
    }
}

/// What runs under a licence.
struct Running {
    instances: u32,
    /// How many of them nothing stops.
    not_revocable: u32,
    /// How many of them may go on, and start again, without the service.
    offline: u32,
    /// Until when the last of them can go on without being renewed.
    until: Option<Timestamp>,
}

async fn running(transaction: &mut Write<'_>, id: &LicenseId, now: Timestamp) -> Result<Running, StoreError> {
    let row = sqlx::query(
        "SELECT count(*), max(seat_until), count(CASE WHEN revocable = 0 THEN 1 END), \
         count(CASE WHEN offline_until > $2 THEN 1 END) FROM lease \
         WHERE license_id = $1 AND ended_at IS NULL AND seat_until > 0 AND seat_until > $2",
    )
    .bind(&id.0)
    .bind(millis(now))
    .fetch_one(transaction.sql())
    .await?;
    let until = row.try_get::<Option<i64>, _>(1)?.map(timestamp).transpose()?;
    Ok(Running { instances: count(&row, 0)?, not_revocable: count(&row, 2)?, offline: count(&row, 3)?, until })
}

/// What people agree on in a licence.
fn essentials(license: &License) -> Value {
    json!({
        "customer": license.customer, "seats": license.seats, "valid_until": license.valid_until,
        "platforms": license.platforms,
    })
}
