//! Secrets beside image keys, sealed. What is in them is known to whoever put them there and to the guests that get them.

use jiff::Timestamp;
use release_protocol::{ProductName, ResourcePath};
use serde_json::json;
use sqlx::Row as _;

use super::audit::{AuditKind, append};
use super::master_key::{Sealed, check_newest};
use super::{Store, StoreError, count, millis, timestamp};
use crate::api::SecretStatus;

impl Store {
    /// Keeps a secret of `bytes` bytes, in the place of one of the same path.
    pub(crate) async fn put_secret(
        &self,
        path: &ResourcePath,
        sealed: &Sealed,
        bytes: u32,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.product(&path.product).await?;
        let mut transaction = self.write().await?;
        check_newest(&mut transaction, sealed).await?;
        sqlx::query(
            "INSERT INTO secret (product, kind, tag, sealed, bytes, updated_at, master) VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (product, kind, tag) DO UPDATE SET sealed = $4, bytes = $5, updated_at = $6, master = $7",
        )
        .bind(path.product.as_str())
        .bind(&path.kind)
        .bind(&path.tag)
        .bind(&sealed.bytes)
        .bind(i64::from(bytes))
        .bind(millis(now))
        .bind(sealed.master)
        .execute(transaction.sql())
        .await?;
        let body = json!({"product": path.product, "resource": path.to_string()});
        append(&mut transaction, AuditKind::SecretStored, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Forgets a secret.
    pub(crate) async fn remove_secret(&self, path: &ResourcePath, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let removed = sqlx::query("DELETE FROM secret WHERE product = $1 AND kind = $2 AND tag = $3")
            .bind(path.product.as_str())
            .bind(&path.kind)
            .bind(&path.tag)
            .execute(transaction.sql())
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::Unknown { kind: "secret", name: path.to_string() });
        }
        let body = json!({"product": path.product, "resource": path.to_string()});
        append(&mut transaction, AuditKind::SecretRemoved, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The product's secrets by name, without what is in them.
    pub(crate) async fn secrets(&self, product: &ProductName) -> Result<Vec<SecretStatus>, StoreError> {
        let rows = sqlx::query("SELECT kind, tag, bytes, updated_at FROM secret WHERE product = $1 ORDER BY kind, tag")
            .bind(product.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let (kind, tag): (&str, &str) = (row.try_get("kind")?, row.try_get("tag")?);
                Ok(SecretStatus {
                    resource: format!("{product}/{kind}/{tag}"),
                    bytes: count(row, "bytes")?,
                    updated_at: timestamp(row.try_get("updated_at")?)?,
                })
            })
            .collect()
    }

    /// The sealed secret, where there is one.
    pub(crate) async fn sealed_secret(&self, path: &ResourcePath) -> Result<Option<Sealed>, StoreError> {
        let row = sqlx::query("SELECT master, sealed FROM secret WHERE product = $1 AND kind = $2 AND tag = $3")
            .bind(path.product.as_str())
            .bind(&path.kind)
            .bind(&path.tag)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(Sealed { master: row.try_get("master")?, bytes: row.try_get("sealed")? })).transpose()
    }
}
