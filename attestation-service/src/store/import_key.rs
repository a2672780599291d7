//! Keys that another service encrypts layers' keys to. Each is good for one import, soon.

use jiff::Timestamp;
use release_protocol::ProductName;
use sqlx::Row as _;

use super::write::Write;
use super::{Store, StoreError, millis};

/// The private half of an import key, sealed by a working key.
#[derive(Clone, Debug)]
pub(crate) struct SealedImportKey {
    /// The thumbprint of its public half.
    pub(crate) id: String,
    pub(crate) sealed: Vec<u8>,
    pub(crate) expires_at: Timestamp,
}

impl Store {
    /// Keeps an import key; those whose time is over are forgotten.
    pub(crate) async fn add_import_key(
        &self,
        product: &ProductName,
        key: &SealedImportKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.product(product).await?;
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM import_key WHERE expires_at <= $1")
            .bind(millis(now))
            .execute(transaction.sql())
            .await?;
        sqlx::query("INSERT INTO import_key (id, product, sealed, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(&key.id)
            .bind(product.as_str())
            .bind(&key.sealed)
            .bind(millis(key.expires_at))
            .execute(transaction.sql())
            .await?;
        transaction.commit().await.map(drop)
    }

    /// The sealed private half, while it is good.
    pub(crate) async fn import_key(
        &self,
        product: &ProductName,
        id: &str,
        now: Timestamp,
    ) -> Result<Vec<u8>, StoreError> {
        let row = sqlx::query("SELECT sealed FROM import_key WHERE id = $1 AND product = $2 AND expires_at > $3")
            .bind(id)
            .bind(product.as_str())
            .bind(millis(now))
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.ok_or_else(|| unknown(id))?.try_get("sealed")?)
    }
}

/// Uses an import key up.
pub(super) async fn take(
    transaction: &mut Write<'_>,
    product: &ProductName,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let taken = sqlx::query("DELETE FROM import_key WHERE id = $1 AND product = $2 AND expires_at > $3")
        .bind(id)
        .bind(product.as_str())
        .bind(millis(now))
        .execute(transaction.sql())
        .await?;
    if taken.rows_affected() == 1 { Ok(()) } else { Err(unknown(id)) }
}

fn unknown(id: &str) -> StoreError {
    StoreError::Unknown { kind: "import key that is good", name: id.to_owned() }
}
