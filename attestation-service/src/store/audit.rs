//! The audit log: every decision, in the transaction of its effect.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use transparency_log::MAX_ENTRY_BYTES;

use super::log::place;
use super::rows::{Cell, Kind, Table};
use super::write::Write;
use super::{Store, StoreError, millis, timestamp};
use crate::api::Role;

/// What an entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditKind {
    Denied,
    KeyBound,
    KeyRegistered,
    KeyReleased,
    KeysExported,
    LeaseEnded,
    LeaseGranted,
    LeaseRenewed,
    LicenseIssued,
    LicenseRenewed,
    LicenseResumed,
    LicenseRevoked,
    LicenseSuspended,
    LicenseTransferred,
    MasterKeyChanged,
    MasterKeyRetired,
    PlatformAllowed,
    PlatformDenied,
    PolicyChanged,
    ProductCreated,
    ReferenceAdded,
    ReferenceRemoved,
    ReferenceRetired,
    RoleRefused,
    SecretRemoved,
    SecretStored,
    TokenCreated,
    TokenRevoked,
}

impl AuditKind {
    fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::KeyBound => "key_bound",
            Self::KeyRegistered => "key_registered",
            Self::KeyReleased => "key_released",
            Self::KeysExported => "keys_exported",
            Self::LeaseEnded => "lease_ended",
            Self::LeaseGranted => "lease_granted",
            Self::LeaseRenewed => "lease_renewed",
            Self::LicenseIssued => "license_issued",
            Self::LicenseRenewed => "license_renewed",
            Self::LicenseResumed => "license_resumed",
            Self::LicenseRevoked => "license_revoked",
            Self::LicenseSuspended => "license_suspended",
            Self::LicenseTransferred => "license_transferred",
            Self::MasterKeyChanged => "master_key_changed",
            Self::MasterKeyRetired => "master_key_retired",
            Self::PlatformAllowed => "platform_allowed",
            Self::PlatformDenied => "platform_denied",
            Self::PolicyChanged => "policy_changed",
            Self::ProductCreated => "product_created",
            Self::ReferenceAdded => "reference_added",
            Self::ReferenceRemoved => "reference_removed",
            Self::ReferenceRetired => "reference_retired",
            Self::RoleRefused => "role_refused",
            Self::SecretRemoved => "secret_removed",
            Self::SecretStored => "secret_stored",
            Self::TokenCreated => "token_created",
            Self::TokenRevoked => "token_revoked",
        }
    }
}

/// Whose token a request of the admin API bears.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Actor {
    /// The token's name.
    pub(crate) token: String,
    pub(crate) role: Role,
}

tokio::task_local! {
    /// Who asks, while a request of the admin API is answered: every entry of it says so.
    pub(crate) static ACTOR: Actor;
}

/// One recorded decision. Its leaf in the log is the canonical JSON (RFC 8785) of just these members.
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
    /// Random, so that who sees the entry's hash alone cannot guess the entry.
    pub salt: String,
}

impl AuditEntry {
    /// The bytes that are hashed into the log. A body that makes them longer than a leaf may be is replaced by its own
    /// digest and those of its members that are short.
    pub fn leaf(&self) -> Result<Vec<u8>, StoreError> {
        let leaf = serde_json_canonicalizer::to_vec(self)?;
        if leaf.len() <= MAX_ENTRY_BYTES {
            return Ok(leaf);
        }
        let mut short = serde_json::Map::new();
        // By name: which order an object has in memory depends on how the JSON library was built.
        let members: BTreeMap<_, _> = self.body.as_object().into_iter().flatten().collect();
        for (name, value) in members {
            if serde_json_canonicalizer::to_vec(value)?.len() <= SHORT_BYTES && short.len() < SHORT_MEMBERS {
                short.insert(name.chars().take(SHORT_NAME).collect(), value.clone());
            }
        }
        let digest = Sha256::digest(serde_json_canonicalizer::to_vec(&self.body)?);
        short.insert("shortened_sha256".to_owned(), hex::encode(digest).into());
        Ok(serde_json_canonicalizer::to_vec(&Self { body: Value::Object(short), ..self.clone() })?)
    }
}

/// A member of a body that is too long stays if its JSON is no longer than this, in bytes.
const SHORT_BYTES: usize = 1024;
/// How many members stay; with [`SHORT_BYTES`] they fit into a leaf. Bodies have half as many.
const SHORT_MEMBERS: usize = 32;
/// How much of a member's name stays, in characters; all the names that there are are shorter.
const SHORT_NAME: usize = 64;

/// Appends an entry inside `transaction`, and its leaf to the tree, and gives its number. Where a request of the admin API
/// is answered, the entry's `by` says whose.
pub(crate) async fn append(
    transaction: &mut Write<'_>,
    kind: AuditKind,
    body: &Value,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let entry = append_said(transaction, kind, said_by(body)?, now).await?;
    transaction.note(kind, entry, body, ACTOR.try_with(|_| ()).is_ok());
    Ok(entry)
}

/// The body, and whose request is being answered.
fn said_by(body: &Value) -> Result<Value, StoreError> {
    let mut body = body.clone();
    if let (Ok(by), Some(members)) = (ACTOR.try_with(|actor| serde_json::to_value(actor)), body.as_object_mut()) {
        members.insert("by".to_owned(), by?);
    }
    Ok(body)
}

/// Like [`append`], for a body that says all that it should.
pub(super) async fn append_said(
    transaction: &mut Write<'_>,
    kind: AuditKind,
    body: Value,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| StoreError::Value("random source"))?;
    let sequence = transaction.next_entry().await?;
    // Times as they are kept: what is read later has to give the same leaf.
    let at = timestamp(millis(now))?;
    let entry = AuditEntry { sequence, at, kind: kind.name().to_owned(), body, salt: hex::encode(salt) };
    transaction.append(entry).await?;
    Ok(sequence)
}

/// Where entries stand.
pub(super) static ENTRIES: Table = Table {
    name: "audit_entry",
    columns: &[
        ("sequence", Kind::Number),
        ("at", Kind::Number),
        ("kind", Kind::Text),
        ("body", Kind::Text),
        ("salt", Kind::Text),
    ],
    on_conflict: "",
};

pub(super) fn entry_row(entry: &AuditEntry) -> Result<Vec<Cell>, StoreError> {
    Ok(vec![
        place(entry.sequence)?.into(),
        millis(entry.at).into(),
        entry.kind.clone().into(),
        entry.body.to_string().into(),
        entry.salt.clone().into(),
    ])
}

pub(super) fn entry(row: &AnyRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        sequence: u64::try_from(row.try_get::<i64, _>("sequence")?).map_err(|_| StoreError::Value("audit sequence"))?,
        at: timestamp(row.try_get("at")?)?,
        kind: row.try_get("kind")?,
        body: serde_json::from_str(row.try_get("body")?)?,
        salt: row.try_get("salt")?,
    })
}

impl Store {
    /// Appends an entry that has no other effect.
    pub(crate) async fn record(&self, kind: AuditKind, body: &Value, now: Timestamp) -> Result<u64, StoreError> {
        self.group.entry(kind, said_by(body)?, now).await
    }

    /// The newest `limit` entries, oldest first.
    pub async fn audit_entries(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM (SELECT * FROM audit_entry ORDER BY sequence DESC LIMIT $1) AS newest ORDER BY sequence",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(entry).collect()
    }

    /// One entry.
    pub(crate) async fn audit_entry(&self, number: u64) -> Result<AuditEntry, StoreError> {
        let unknown = || StoreError::Unknown { kind: "audit entry", name: number.to_string() };
        let row = sqlx::query("SELECT * FROM audit_entry WHERE sequence = $1")
            .bind(i64::try_from(number).map_err(|_| unknown())?)
            .fetch_optional(&self.pool)
            .await?;
        entry(&row.ok_or_else(unknown)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry_of(body: Value) -> AuditEntry {
        let at = "2026-10-01T08:09:10.123Z".parse().unwrap();
        AuditEntry { sequence: 7, at, kind: "denied".to_owned(), body, salt: "00ff".to_owned() }
    }

    /// Old receipts are checked against these bytes for ever.
    #[test]
    fn a_leaf_is_the_canonical_json_of_its_entry() {
        let leaf = entry_of(json!({"z": 1, "a": {"é": [true, null]}})).leaf().unwrap();
        assert_eq!(
            String::from_utf8(leaf).unwrap(),
            r#"{"at":"2026-10-01T08:09:10.123Z","body":{"a":{"é":[true,null]},"z":1},"kind":"denied","salt":"00ff","sequence":7}"#
        );
    }

    #[test]
    fn a_body_too_long_for_a_leaf_is_committed_to_by_its_digest() {
        let body = |last: &str| json!({"reasons": ["x".repeat(MAX_ENTRY_BYTES), last], "stage": "evidence"});
        let leaf = entry_of(body("a")).leaf().unwrap();
        let shown: Value = serde_json::from_slice(&leaf).unwrap();
        assert_eq!(shown["body"]["stage"], "evidence");
        assert_eq!(shown["body"]["shortened_sha256"].as_str().unwrap().len(), 64);
        assert!(shown["body"].get("reasons").is_none());
        assert_ne!(entry_of(body("b")).leaf().unwrap(), leaf);
        let many: serde_json::Map<String, Value> =
            (0..200).map(|number| (format!("{number:0>2000}"), json!("x".repeat(1000)))).collect();
        assert!(entry_of(Value::Object(many)).leaf().unwrap().len() <= MAX_ENTRY_BYTES);
    }
}
