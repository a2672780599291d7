//! The audit log: every decision, in the transaction of its effect.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{Store, StoreError, millis, timestamp};

/// What an entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditKind {
    Denied,
    KeyRegistered,
    KeyReleased,
    LeaseEnded,
    LeaseGranted,
    LeaseRenewed,
    LicenseIssued,
    LicenseRevoked,
    PlatformAllowed,
    PlatformDenied,
    PolicyChanged,
    ProductCreated,
    ReferenceAdded,
    ReferenceRemoved,
    ReferenceRetired,
}

impl AuditKind {
    fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::KeyRegistered => "key_registered",
            Self::KeyReleased => "key_released",
            Self::LeaseEnded => "lease_ended",
            Self::LeaseGranted => "lease_granted",
            Self::LeaseRenewed => "lease_renewed",
            Self::LicenseIssued => "license_issued",
            Self::LicenseRevoked => "license_revoked",
            Self::PlatformAllowed => "platform_allowed",
            Self::PlatformDenied => "platform_denied",
            Self::PolicyChanged => "policy_changed",
            Self::ProductCreated => "product_created",
            Self::ReferenceAdded => "reference_added",
            Self::ReferenceRemoved => "reference_removed",
            Self::ReferenceRetired => "reference_retired",
        }
    }
}

/// One recorded decision.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AuditEntry {
    /// Its number, from 1.
    pub sequence: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What was decided.
    pub kind: String,
    /// The particulars; never key material.
    pub body: Value,
}

/// Appends an entry inside `transaction` and gives its number.
pub(crate) async fn append(
    transaction: &mut Transaction<'static, Sqlite>,
    kind: AuditKind,
    body: &Value,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let row = sqlx::query("INSERT INTO audit_entry (at, kind, body) VALUES ($1, $2, $3) RETURNING sequence")
        .bind(millis(now))
        .bind(kind.name())
        .bind(body.to_string())
        .fetch_one(&mut **transaction)
        .await?;
    u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| StoreError::Value("audit sequence"))
}

impl Store {
    /// Appends an entry that has no other effect.
    pub(crate) async fn record(&self, kind: AuditKind, body: &Value, now: Timestamp) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let sequence = append(&mut transaction, kind, body, now).await?;
        transaction.commit().await?;
        Ok(sequence)
    }

    /// The newest `limit` entries, oldest first.
    pub async fn audit_entries(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query(
            "SELECT sequence, at, kind, body FROM (SELECT * FROM audit_entry ORDER BY sequence DESC LIMIT $1) \
             ORDER BY sequence",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(from_row).collect()
    }

    /// One entry.
    pub(crate) async fn audit_entry(&self, number: u64) -> Result<AuditEntry, StoreError> {
        let unknown = || StoreError::Unknown { kind: "audit entry", name: number.to_string() };
        let row = sqlx::query("SELECT sequence, at, kind, body FROM audit_entry WHERE sequence = $1")
            .bind(i64::try_from(number).map_err(|_| unknown())?)
            .fetch_optional(&self.pool)
            .await?;
        from_row(&row.ok_or_else(unknown)?)
    }
}

fn from_row(row: &SqliteRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        sequence: u64::try_from(row.try_get::<i64, _>("sequence")?).map_err(|_| StoreError::Value("audit sequence"))?,
        at: timestamp(row.try_get("at")?)?,
        kind: row.try_get("kind")?,
        body: serde_json::from_str(row.try_get("body")?)?,
    })
}
