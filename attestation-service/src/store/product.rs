//! Products: signers and policies. Their reference values stand in `reference.rs`.

use jiff::Timestamp;
use release_protocol::ProductName;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::audit::{AuditKind, append};
use super::{Store, StoreError, is_unique_violation, millis, timestamp};
use crate::api::{Product, Signer};

impl Store {
    /// Makes a product.
    pub(crate) async fn create_product(
        &self,
        name: &ProductName,
        signers: &[Signer],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("INSERT INTO product (name, created_at) VALUES ($1, $2)")
            .bind(name.as_str())
            .bind(millis(now))
            .execute(transaction.sql())
            .await
            .map_err(|error| {
                if is_unique_violation(&error) {
                    StoreError::Exists { kind: "product", name: name.to_string() }
                } else {
                    error.into()
                }
            })?;
        for signer in signers {
            sqlx::query(
                "INSERT INTO product_signer (product, thumbprint, pem) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(name.as_str())
            .bind(&signer.thumbprint)
            .bind(&signer.pem)
            .execute(transaction.sql())
            .await?;
        }
        let thumbprints: Vec<&str> = signers.iter().map(|signer| signer.thumbprint.as_str()).collect();
        let body = json!({"product": name, "signers": thumbprints});
        append(&mut transaction, AuditKind::ProductCreated, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All products, by name.
    pub(crate) async fn products(&self) -> Result<Vec<Product>, StoreError> {
        let names = sqlx::query("SELECT name FROM product ORDER BY name").fetch_all(&self.pool).await?;
        let mut products = Vec::with_capacity(names.len());
        for row in names {
            let name: String = row.try_get(0)?;
            products.push(self.product(&name.parse().map_err(|_| StoreError::Value("product name"))?).await?);
        }
        Ok(products)
    }

    /// One product.
    pub(crate) async fn product(&self, name: &ProductName) -> Result<Product, StoreError> {
        let row = sqlx::query("SELECT policy, created_at FROM product WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::Unknown { kind: "product", name: name.to_string() })?;
        let policy: Option<String> = row.try_get("policy")?;
        Ok(Product {
            name: name.clone(),
            signers: self.signers(name).await?,
            references: self.references(name).await?,
            policy: policy.map_or_else(|| "default".to_owned(), |source| policy_digest(&source)),
            created_at: Some(timestamp(row.try_get("created_at")?)?),
        })
    }

    /// The product's own policy source, where it has one.
    pub(crate) async fn policy(&self, name: &ProductName) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT policy FROM product WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| StoreError::Unknown { kind: "product", name: name.to_string() })?;
        Ok(row.try_get(0)?)
    }

    /// Gives the product a policy of its own, or with `None` the default again.
    pub(crate) async fn set_policy(
        &self,
        name: &ProductName,
        source: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let changed = sqlx::query("UPDATE product SET policy = $2 WHERE name = $1")
            .bind(name.as_str())
            .bind(source)
            .execute(transaction.sql())
            .await?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Unknown { kind: "product", name: name.to_string() });
        }
        if let Some(source) = source {
            sqlx::query("INSERT INTO policy_source (digest, source) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(policy_digest(source))
                .bind(source)
                .execute(transaction.sql())
                .await?;
        }
        let body = json!({"product": name, "policy": source.map_or_else(|| "default".to_owned(), policy_digest)});
        append(&mut transaction, AuditKind::PolicyChanged, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Whose signatures the product's images need.
    pub(crate) async fn signers(&self, product: &ProductName) -> Result<Vec<Signer>, StoreError> {
        let rows = sqlx::query("SELECT thumbprint, pem FROM product_signer WHERE product = $1 ORDER BY thumbprint")
            .bind(product.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(Signer { thumbprint: row.try_get("thumbprint")?, pem: row.try_get("pem")? })).collect()
    }
}

/// SHA-256 of a policy's source, `sha256:…`.
pub(crate) fn policy_digest(source: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(source)))
}
