//! Reference values: what guests of a product are recognised by, until when, and where that came from.

use jiff::Timestamp;
use launch_evidence::{InitDataDigest, KeyDigest, Measurement};
use release_protocol::ProductName;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditKind, append};
use super::write::Write;
use super::{Store, StoreError, count, millis, timestamp};
use crate::api::{NewReference, Reference, ReferenceValue};

const MEASUREMENT: &str = "measurement";
const ID_KEY: &str = "id-key";
const INIT_DATA: &str = "init-data";
const ONE: &str = "reference value";

impl Store {
    /// Adds a reference value and gives it as it is kept. One that is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for one that is retired, or will be: it would not count as the caller expects.
    pub(crate) async fn add_reference(
        &self,
        product: &ProductName,
        new: &NewReference,
        now: Timestamp,
    ) -> Result<Reference, StoreError> {
        self.product(product).await?;
        let (kind, digest, min_svn) = columns(&new.value);
        let mut transaction = self.write().await?;
        let existing = sqlx::query(
            "SELECT * FROM reference_value WHERE product = $1 AND kind = $2 AND digest = $3 AND min_svn = $4",
        )
        .bind(product.as_str())
        .bind(kind)
        .bind(&digest)
        .bind(i64::from(min_svn))
        .fetch_optional(transaction.sql())
        .await?;
        if let Some(existing) = existing {
            let existing = from_row(&existing)?;
            return match existing.retired_at {
                None => Ok(existing),
                Some(at) => Err(StoreError::Conflict(format!(
                    "{ONE} `{}` is retired from {at} on; to accept it anew, remove it first",
                    existing.id
                ))),
            };
        }
        let reference = Reference {
            id: format!("ref-{}", uuid::Uuid::now_v7()),
            value: new.value.clone(),
            label: new.label.clone(),
            source: new.source.clone(),
            added_at: timestamp(millis(now))?,
            retired_at: None,
            retire_reason: None,
        };
        sqlx::query(
            "INSERT INTO reference_value (id, product, kind, digest, min_svn, label, source, added_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&reference.id)
        .bind(product.as_str())
        .bind(kind)
        .bind(&digest)
        .bind(i64::from(min_svn))
        .bind(&reference.label)
        .bind(reference.source.to_string())
        .bind(millis(now))
        .execute(transaction.sql())
        .await?;
        record(&mut transaction, AuditKind::ReferenceAdded, product, &reference, now).await?;
        transaction.commit().await?;
        Ok(reference)
    }

    /// Lets a reference value count until `at` only. A date that has not come yet may be moved.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a date in the past, and for a reference value that is retired by now.
    pub(crate) async fn retire_reference(
        &self,
        id: &str,
        at: Option<Timestamp>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Reference, StoreError> {
        let at = timestamp(millis(at.unwrap_or(now)))?;
        let mut transaction = self.write().await?;
        let row = sqlx::query("SELECT * FROM reference_value WHERE id = $1")
            .bind(id)
            .fetch_optional(transaction.sql())
            .await?
            .ok_or_else(|| unknown(id))?;
        let product = product_of(&row)?;
        let mut reference = from_row(&row)?;
        if let Some(since) = reference.retired_at.filter(|_| !reference.counts(now)) {
            return Err(StoreError::Conflict(format!("{ONE} `{id}` is retired since {since}")));
        }
        if at < timestamp(millis(now))? {
            return Err(StoreError::Conflict(format!("{at} lies in the past: what was released then stays released")));
        }
        sqlx::query("UPDATE reference_value SET retired_at = $2, retire_reason = $3 WHERE id = $1")
            .bind(id)
            .bind(millis(at))
            .bind(reason)
            .execute(transaction.sql())
            .await?;
        reference.retired_at = Some(at);
        reference.retire_reason = Some(reason.to_owned());
        record(&mut transaction, AuditKind::ReferenceRetired, &product, &reference, now).await?;
        transaction.commit().await?;
        Ok(reference)
    }

    /// Takes a reference value away, by its id or its measurement.
    pub(crate) async fn remove_reference(
        &self,
        product: &ProductName,
        name: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let removed = sqlx::query(
            "DELETE FROM reference_value WHERE product = $1 AND (id = $2 OR (kind = $3 AND digest = $2)) RETURNING *",
        )
        .bind(product.as_str())
        .bind(name)
        .bind(MEASUREMENT)
        .fetch_optional(transaction.sql())
        .await?
        .ok_or_else(|| unknown(name))?;
        record(&mut transaction, AuditKind::ReferenceRemoved, product, &from_row(&removed)?, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All of the product's reference values, retired ones included, oldest first.
    pub(crate) async fn references(&self, product: &ProductName) -> Result<Vec<Reference>, StoreError> {
        let rows = sqlx::query("SELECT * FROM reference_value WHERE product = $1 ORDER BY added_at, digest, min_svn")
            .bind(product.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(from_row).collect()
    }
}

/// What the audit log says about a reference value.
#[derive(Serialize)]
struct Entry<'a> {
    product: &'a ProductName,
    id: &'a str,
    #[serde(flatten)]
    value: &'a ReferenceValue,
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retire_reason: Option<&'a str>,
}

async fn record(
    transaction: &mut Write<'_>,
    kind: AuditKind,
    product: &ProductName,
    reference: &Reference,
    now: Timestamp,
) -> Result<(), StoreError> {
    let entry = Entry {
        product,
        id: &reference.id,
        value: &reference.value,
        label: &reference.label,
        retired_at: reference.retired_at,
        retire_reason: reference.retire_reason.as_deref(),
    };
    append(transaction, kind, &serde_json::to_value(&entry)?, now).await.map(drop)
}

fn unknown(name: &str) -> StoreError {
    StoreError::Unknown { kind: ONE, name: name.to_owned() }
}

fn columns(value: &ReferenceValue) -> (&'static str, String, u32) {
    match value {
        ReferenceValue::Measurement { measurement } => (MEASUREMENT, measurement.to_string(), 0),
        ReferenceValue::IdKey { id_key_digest, min_svn } => (ID_KEY, id_key_digest.to_string(), *min_svn),
        ReferenceValue::InitData { init_data } => (INIT_DATA, init_data.to_string(), 0),
    }
}

fn product_of(row: &AnyRow) -> Result<ProductName, StoreError> {
    row.try_get::<String, _>("product")?.parse().map_err(|_| StoreError::Value("product name"))
}

fn from_row(row: &AnyRow) -> Result<Reference, StoreError> {
    const MALFORMED: StoreError = StoreError::Value(ONE);
    let digest: String = row.try_get("digest")?;
    let value = match row.try_get("kind")? {
        MEASUREMENT => {
            ReferenceValue::Measurement { measurement: digest.parse::<Measurement>().map_err(|_| MALFORMED)? }
        }
        ID_KEY => ReferenceValue::IdKey {
            id_key_digest: digest.parse::<KeyDigest>().map_err(|_| MALFORMED)?,
            min_svn: count(row, "min_svn")?,
        },
        INIT_DATA => ReferenceValue::InitData { init_data: digest.parse::<InitDataDigest>().map_err(|_| MALFORMED)? },
        _ => return Err(MALFORMED),
    };
    Ok(Reference {
        id: row.try_get("id")?,
        value,
        label: row.try_get("label")?,
        source: serde_json::from_str(row.try_get("source")?)?,
        added_at: timestamp(row.try_get("added_at")?)?,
        retired_at: row.try_get::<Option<i64>, _>("retired_at")?.map(timestamp).transpose()?,
        retire_reason: row.try_get("retire_reason")?,
    })
}

#[cfg(test)]
mod tests;
