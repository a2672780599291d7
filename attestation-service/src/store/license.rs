//! Licences: issued, looked up, judged. What else becomes of them stands in `license_change.rs`, their seats are counted in
//! `lease.rs`.

use jiff::{SignedDuration, Timestamp};
use release_protocol::{License, LicenseId};
use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::audit::{AuditKind, append};
use super::write::Write;
use super::{Store, StoreError, count, millis, timestamp};
use crate::api::LicenseStatus;

/// A licence as it stands in the database.
#[derive(Clone, Debug)]
pub(crate) struct LicenseRecord {
    /// As they hold now: the file that travels may be older.
    pub(crate) claims: License,
    pub(crate) activated_at: Option<Timestamp>,
    pub(crate) suspended_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
    /// After a revocation: until when what runs already may go on.
    pub(crate) drain_until: Option<Timestamp>,
    /// Why it was suspended or revoked.
    pub(crate) reason: Option<String>,
}

impl LicenseRecord {
    /// Why nothing may start under it at `now`; `None` when something may.
    pub(crate) fn refusal(&self, now: Timestamp) -> Option<String> {
        let id = &self.claims.id;
        let reason = self.reason.as_deref().unwrap_or("no reason given");
        if let Some(at) = self.revoked_at {
            return Some(format!("licence {id} was revoked at {at}: {reason}"));
        }
        if let Some(at) = self.suspended_at {
            return Some(format!("licence {id} is suspended since {at}: {reason}"));
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

    /// Why what runs under it may not go on at `now`: as for a start, but for one that is revoked and drains.
    pub(crate) fn refusal_to_go_on(&self, now: Timestamp) -> Option<String> {
        if self.is_draining(now) { None } else { self.refusal(now) }
    }

    /// Whether it is revoked and what runs may go on for a while.
    pub(crate) fn is_draining(&self, now: Timestamp) -> bool {
        self.revoked_at.is_some() && self.drain_until.is_some_and(|until| now < until)
    }

    pub(super) fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let at = |name: &str| row.try_get::<Option<i64>, _>(name)?.map(timestamp).transpose();
        Ok(Self {
            claims: serde_json::from_str(row.try_get("claims")?)?,
            activated_at: at("activated_at")?,
            suspended_at: at("suspended_at")?,
            revoked_at: at("revoked_at")?,
            drain_until: at("drain_until")?,
            reason: row.try_get("reason")?,
        })
    }

    /// Its state in a word; the first that holds.
    pub(super) fn state(&self, now: Timestamp) -> &'static str {
        match now.as_second() {
            _ if self.revoked_at.is_some() => "revoked",
            _ if self.suspended_at.is_some() => "suspended",
            now if now < self.claims.valid_from => "not-yet-valid",
            now if now >= self.claims.valid_until => "expired",
            _ if self.activated_at.is_some() => "active",
            _ => "issued",
        }
    }
}

fn second(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

impl Store {
    /// Keeps licences that have just been signed: all of them, or none.
    pub(crate) async fn insert_licenses(&self, licenses: &[License], now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for license in licenses {
            insert(&mut transaction, license, now).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The licence, where there is one.
    pub(crate) async fn license(&self, id: &LicenseId) -> Result<Option<LicenseRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM license WHERE id = $1").bind(&id.0).fetch_optional(&self.pool).await?;
        row.as_ref().map(LicenseRecord::from_row).transpose()
    }

    /// All licences, oldest first, as the admin API shows them.
    pub(crate) async fn license_list(&self, now: Timestamp) -> Result<Vec<LicenseStatus>, StoreError> {
        let rows = sqlx::query(AssertSqlSafe(format!("{STATUS} ORDER BY issued_at, id")))
            .bind(millis(now))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| status(row, now)).collect()
    }

    /// One licence as the admin API shows it.
    pub(crate) async fn license_status(&self, id: &LicenseId, now: Timestamp) -> Result<LicenseStatus, StoreError> {
        let row = sqlx::query(AssertSqlSafe(format!("{STATUS} WHERE id = $2")))
            .bind(millis(now))
            .bind(&id.0)
            .fetch_optional(&self.pool)
            .await?;
        status(&row.ok_or_else(|| StoreError::Unknown { kind: "licence", name: id.0.clone() })?, now)
    }
}

/// Licences with the seats that are taken: those that are counted, but for those that have lapsed since.
const STATUS: &str = "SELECT license.*, \
                      coalesce((SELECT taken FROM seat WHERE license_id = license.id AND chip_id = ''), 0) \
                      - (SELECT count(*) FROM lease WHERE license_id = license.id AND ended_at IS NULL \
                         AND seat_until > 0 AND seat_until <= $1) AS seats_in_use FROM license";

async fn insert(transaction: &mut Write<'_>, license: &License, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO license (id, customer, state, seats, lease_seconds, grace_seconds, claims, issued_at) \
         VALUES ($1, $2, 'issued', $3, $4, $5, $6, $7)",
    )
    .bind(&license.id.0)
    .bind(&license.customer)
    .bind(i64::from(license.seats))
    .bind(i64::try_from(license.lease_seconds).map_err(|_| StoreError::Value("lease time"))?)
    .bind(i64::try_from(license.grace_seconds).map_err(|_| StoreError::Value("grace time"))?)
    .bind(serde_json::to_string(license)?)
    .bind(millis(now))
    .execute(transaction.sql())
    .await?;
    let mut body = json!({
        "license": license.id, "customer": license.customer, "products": license.products, "seats": license.seats,
        "valid_from": license.valid_from, "valid_until": license.valid_until,
    });
    if license.relay {
        body["relay"] = json!(true);
    }
    if let Some(seconds) = license.offline_seconds {
        body["offline_seconds"] = seconds.into();
    }
    append(transaction, AuditKind::LicenseIssued, &body, now).await?;
    Ok(())
}

/// The licence inside a transaction, so that a decision and its effect see the same state.
pub(super) async fn license_in(
    transaction: &mut Write<'_>,
    id: &LicenseId,
) -> Result<Option<LicenseRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM license WHERE id = $1").bind(&id.0).fetch_optional(transaction.sql()).await?;
    row.as_ref().map(LicenseRecord::from_row).transpose()
}

fn status(row: &AnyRow, now: Timestamp) -> Result<LicenseStatus, StoreError> {
    let record = LicenseRecord::from_row(row)?;
    let at = |seconds| Timestamp::from_second(seconds).map_err(|_| StoreError::Value("validity"));
    Ok(LicenseStatus {
        state: record.state(now).to_owned(),
        seats_in_use: count(row, "seats_in_use")?,
        valid_from: at(record.claims.valid_from)?,
        valid_until: at(record.claims.valid_until)?,
        issued_at: timestamp(row.try_get("issued_at")?)?,
        id: record.claims.id.0,
        customer: record.claims.customer,
        products: record.claims.products,
        seats: record.claims.seats,
        lease_seconds: record.claims.lease_seconds,
        grace_seconds: record.claims.grace_seconds,
        offline_seconds: record.claims.offline_seconds,
        platforms: record.claims.platforms,
        relay: record.claims.relay,
        suspended_at: record.suspended_at,
        revoked_at: record.revoked_at,
        drain_until: record.drain_until,
        reason: record.reason,
    })
}

/// `now` and `seconds` more.
pub(super) fn later(now: Timestamp, seconds: u64) -> Result<Timestamp, StoreError> {
    let seconds = i64::try_from(seconds).map_err(|_| StoreError::Value("duration"))?;
    now.checked_add(SignedDuration::from_secs(seconds)).map_err(|_| StoreError::Value("duration"))
}
