//! Licences: issue, look up, revoke. Their seats are counted in `lease.rs`.

use jiff::{SignedDuration, Timestamp};
use release_protocol::{License, LicenseId};
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::audit::{AuditKind, append};
use super::{Store, StoreError, millis, timestamp};
use crate::api::{LicenseStatus, Revoked};

/// A licence as it stands in the database.
#[derive(Clone, Debug)]
pub(crate) struct LicenseRecord {
    pub(crate) claims: License,
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) reason: Option<String>,
}

impl LicenseRecord {
    /// Why nothing may run under it at `now`; `None` when something may.
    pub(crate) fn refusal(&self, now: Timestamp) -> Option<String> {
        let id = &self.claims.id;
        if let Some(at) = self.revoked_at {
            let reason = self.reason.as_deref().unwrap_or("no reason given");
            return Some(format!("licence {id} was revoked at {at}: {reason}"));
        }
        let now = now.as_second();
        if now < self.claims.valid_from {
            return Some(format!("licence {id} holds from {}", second(self.claims.valid_from)));
        }
        if now >= self.claims.valid_until {
            return Some(format!("licence {id} expired at {}", second(self.claims.valid_until)));
        }
        None
    }

    fn from_row(row: &SqliteRow) -> Result<Self, StoreError> {
        Ok(Self {
            claims: serde_json::from_str(row.try_get("claims")?)?,
            revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(timestamp).transpose()?,
            reason: row.try_get("reason")?,
        })
    }

    fn state(&self, now: Timestamp) -> &'static str {
        match (self.revoked_at, now.as_second()) {
            (Some(_), _) => "revoked",
            (None, now) if now < self.claims.valid_from => "not-yet-valid",
            (None, now) if now >= self.claims.valid_until => "expired",
            (None, _) => "issued",
        }
    }
}

fn second(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

impl Store {
    /// Keeps a licence that has just been signed.
    pub(crate) async fn insert_license(&self, license: &License, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO license (id, customer, state, seats, lease_seconds, grace_seconds, claims, issued_at) \
             VALUES ($1, $2, 'issued', $3, $4, $5, $6, $7)",
        )
        .bind(&license.id.0)
        .bind(&license.customer)
        .bind(license.seats)
        .bind(i64::try_from(license.lease_seconds).map_err(|_| StoreError::Value("lease time"))?)
        .bind(i64::try_from(license.grace_seconds).map_err(|_| StoreError::Value("grace time"))?)
        .bind(serde_json::to_string(license)?)
        .bind(millis(now))
        .execute(&mut *transaction)
        .await?;
        let body = json!({
            "license": license.id, "customer": license.customer, "products": license.products, "seats": license.seats,
            "valid_from": license.valid_from, "valid_until": license.valid_until,
        });
        append(&mut transaction, AuditKind::LicenseIssued, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The licence, where there is one.
    pub(crate) async fn license(&self, id: &LicenseId) -> Result<Option<LicenseRecord>, StoreError> {
        let row = sqlx::query("SELECT claims, revoked_at, reason FROM license WHERE id = $1")
            .bind(&id.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(LicenseRecord::from_row).transpose()
    }

    /// All licences, oldest first, as the admin API shows them.
    pub(crate) async fn license_list(&self, now: Timestamp) -> Result<Vec<LicenseStatus>, StoreError> {
        let rows = sqlx::query(
            "SELECT claims, revoked_at, reason, issued_at, (SELECT count(*) FROM lease WHERE license_id = license.id \
             AND ended_at IS NULL AND seat_until > $1) AS seats_in_use FROM license ORDER BY issued_at, id",
        )
        .bind(millis(now))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| status(row, now)).collect()
    }

    /// One licence as the admin API shows it.
    pub(crate) async fn license_status(&self, id: &LicenseId, now: Timestamp) -> Result<LicenseStatus, StoreError> {
        self.license_list(now)
            .await?
            .into_iter()
            .find(|license| license.id == id.0)
            .ok_or_else(|| StoreError::Unknown { kind: "licence", name: id.0.clone() })
    }

    /// Revokes a licence. Its leases end at their next renewal; nothing new starts.
    pub(crate) async fn revoke_license(
        &self,
        id: &LicenseId,
        reason: &str,
        now: Timestamp,
    ) -> Result<Revoked, StoreError> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query(
            "UPDATE license SET state = 'revoked', revoked_at = $2, reason = $3 WHERE id = $1 AND revoked_at IS NULL",
        )
        .bind(&id.0)
        .bind(millis(now))
        .bind(reason)
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() == 0 {
            let known =
                sqlx::query("SELECT 1 FROM license WHERE id = $1").bind(&id.0).fetch_optional(&mut *transaction);
            return Err(match known.await? {
                Some(_) => StoreError::Conflict(format!("licence `{id}` is revoked already")),
                None => StoreError::Unknown { kind: "licence", name: id.0.clone() },
            });
        }
        let row = sqlx::query(
            "SELECT count(*), max(seat_until) FROM lease WHERE license_id = $1 AND ended_at IS NULL AND seat_until > $2",
        )
        .bind(&id.0)
        .bind(millis(now))
        .fetch_one(&mut *transaction)
        .await?;
        let running: u32 = row.try_get(0)?;
        let stopped_by = row.try_get::<Option<i64>, _>(1)?.map(timestamp).transpose()?;
        let body = json!({"license": id, "reason": reason, "running": running});
        append(&mut transaction, AuditKind::LicenseRevoked, &body, now).await?;
        transaction.commit().await?;
        Ok(Revoked { id: id.0.clone(), running, stopped_by })
    }
}

/// The licence inside a transaction, so that a decision and its effect see the same state.
pub(super) async fn license_in(
    transaction: &mut Transaction<'static, Sqlite>,
    id: &LicenseId,
) -> Result<Option<LicenseRecord>, StoreError> {
    let row = sqlx::query("SELECT claims, revoked_at, reason FROM license WHERE id = $1")
        .bind(&id.0)
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(LicenseRecord::from_row).transpose()
}

fn status(row: &SqliteRow, now: Timestamp) -> Result<LicenseStatus, StoreError> {
    let record = LicenseRecord::from_row(row)?;
    let at = |seconds| Timestamp::from_second(seconds).map_err(|_| StoreError::Value("validity"));
    Ok(LicenseStatus {
        state: record.state(now).to_owned(),
        seats_in_use: row.try_get("seats_in_use")?,
        valid_from: at(record.claims.valid_from)?,
        valid_until: at(record.claims.valid_until)?,
        issued_at: timestamp(row.try_get("issued_at")?)?,
        id: record.claims.id.0,
        customer: record.claims.customer,
        products: record.claims.products,
        seats: record.claims.seats,
        lease_seconds: record.claims.lease_seconds,
        grace_seconds: record.claims.grace_seconds,
        revoked_at: record.revoked_at,
        reason: record.reason,
    })
}

/// `now` and `seconds` more.
pub(super) fn later(now: Timestamp, seconds: u64) -> Result<Timestamp, StoreError> {
    let seconds = i64::try_from(seconds).map_err(|_| StoreError::Value("duration"))?;
    now.checked_add(SignedDuration::from_secs(seconds)).map_err(|_| StoreError::Value("duration"))
}
