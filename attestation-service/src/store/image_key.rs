//! Image keys, sealed, and the manifests that each may open.

use std::collections::BTreeSet;

use jiff::Timestamp;
use release_protocol::ProductName;
use serde::Serialize;
use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditKind, append};
use super::import_key;
use super::master_key::{Sealed, check_newest};
use super::write::Write;
use super::{Store, StoreError, is_unique_violation, millis, timestamp};
use crate::api::{ImageKey, KeyManifests, Sbom, SealedManifest};

/// What is registered for a manifest digest.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredManifest {
    pub(crate) product: ProductName,
    pub(crate) image: String,
    pub(crate) sbom: Option<Sbom>,
}

/// A key to register with the manifests that it may open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRegistration<'a> {
    pub(crate) product: &'a ProductName,
    pub(crate) id: &'a str,
    /// The key under the newest master key.
    pub(crate) sealed: &'a Sealed,
    /// What was seen to be stored by this id, and whether that is the same key.
    pub(crate) seen: Option<&'a Sealed>,
    pub(crate) is_same: bool,
    pub(crate) image: &'a str,
    pub(crate) manifests: &'a [SealedManifest],
    /// Of a key that others' layers were wrapped to anew: whose, and for whom else.
    pub(crate) rewrapped: Option<&'a Rewrapping>,
}

/// Where layers that a key wraps come from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rewrapping {
    /// The keys that wrapped them before.
    pub(crate) from: BTreeSet<String>,
    /// The thumbprints of the keys that open them without the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) recipients: Vec<String>,
    /// The thumbprint of the key that another service encrypted them to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) import_key: Option<String>,
}

impl Store {
    /// Registers a key with its manifests. Registering the same id again is refused, unless what is stored is
    /// the same key.
    pub(crate) async fn register_key(
        &self,
        registration: KeyRegistration<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let KeyRegistration { product, id, sealed, seen, is_same, image, manifests, rewrapped } = registration;
        self.product(product).await?;
        let mut transaction = self.write().await?;
        check_newest(&mut transaction, sealed).await?;
        let stored = sqlx::query("SELECT product, master, sealed FROM image_key WHERE id = $1")
            .bind(id)
            .fetch_optional(transaction.sql())
            .await?;
        if let Some(row) = stored {
            let stored = Sealed { master: row.try_get("master")?, bytes: row.try_get("sealed")? };
            let is_products = row.try_get::<&str, _>("product")? == product.as_str();
            if is_products && seen != Some(&stored) {
                return Err(StoreError::Outdated);
            }
            if !is_products || !is_same {
                return Err(StoreError::Exists { kind: "another image key", name: id.to_owned() });
            }
        } else {
            sqlx::query(
                "INSERT INTO image_key (id, product, sealed, master, image, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(id)
            .bind(product.as_str())
            .bind(&sealed.bytes)
            .bind(sealed.master)
            .bind(image)
            .bind(millis(now))
            .execute(transaction.sql())
            .await
            .map_err(|error| {
                if is_unique_violation(&error) {
                    StoreError::Exists { kind: "image key", name: id.to_owned() }
                } else {
                    error.into()
                }
            })?;
        }
        if let Some(used) = rewrapped.and_then(|rewrapped| rewrapped.import_key.as_ref()) {
            import_key::take(&mut transaction, product, used, now).await?;
        }
        add_manifests(&mut transaction, id, manifests).await?;
        let mut body = json!({"product": product, "key": id, "image": image, "manifests": manifests});
        if let (Some(rewrapped), Some(members)) = (rewrapped, body.as_object_mut()) {
            members.insert("rewrapped".to_owned(), json!(rewrapped));
        }
        append(&mut transaction, AuditKind::KeyRegistered, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives a pending key its manifests. A key that has some is not given others.
    pub(crate) async fn bind_key(
        &self,
        product: &ProductName,
        id: &str,
        bound: &KeyManifests,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let KeyManifests { image, manifests } = bound;
        let mut transaction = self.write().await?;
        let updated = sqlx::query("UPDATE image_key SET image = $3 WHERE id = $1 AND product = $2")
            .bind(id)
            .bind(product.as_str())
            .bind(image)
            .execute(transaction.sql())
            .await?;
        if updated.rows_affected() == 0 {
            return Err(StoreError::Unknown { kind: "image key", name: id.to_owned() });
        }
        let rows = sqlx::query("SELECT manifest_digest FROM image_key_manifest WHERE key_id = $1")
            .bind(id)
            .fetch_all(transaction.sql())
            .await?;
        let before = rows.iter().map(|row| row.try_get("manifest_digest")).collect::<Result<BTreeSet<String>, _>>()?;
        if !before.is_empty() {
            if before.iter().eq(manifests.iter().map(|manifest| &manifest.digest).collect::<BTreeSet<_>>()) {
                return Ok(());
            }
            return Err(StoreError::Conflict(format!("the image key `{id}` is bound to other manifests already")));
        }
        add_manifests(&mut transaction, id, manifests).await?;
        let body = json!({"product": product, "key": id, "image": image, "manifests": manifests});
        append(&mut transaction, AuditKind::KeyBound, &body, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The product's keys, newest first, without the keys.
    pub(crate) async fn image_keys(&self, product: &ProductName) -> Result<Vec<ImageKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT image_key.id, image, created_at, coalesce(master_key.name, '') AS master_key FROM image_key \
             LEFT JOIN master_key ON master_key.number = image_key.master WHERE product = $1 ORDER BY created_at DESC, id",
        )
        .bind(product.as_str())
        .fetch_all(&self.pool)
        .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let id: String = row.try_get("id")?;
            let manifests = self.manifests_of_key(&id).await?;
            keys.push(ImageKey {
                manifests,
                image: row.try_get("image")?,
                created_at: timestamp(row.try_get("created_at")?)?,
                master_key: row.try_get("master_key")?,
                id,
            });
        }
        Ok(keys)
    }

    /// What is registered for the manifest, for any product.
    pub(crate) async fn registered_manifests(&self, digest: &str) -> Result<Vec<RegisteredManifest>, StoreError> {
        let rows = sqlx::query(
            "SELECT DISTINCT image_key.product, image_key.image, sbom FROM image_key_manifest \
             JOIN image_key ON image_key.id = image_key_manifest.key_id WHERE manifest_digest = $1 ORDER BY sbom NULLS LAST",
        )
        .bind(digest)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(RegisteredManifest {
                    product: row
                        .try_get::<&str, _>("product")?
                        .parse()
                        .map_err(|_| StoreError::Value("product name"))?,
                    image: row.try_get("image")?,
                    sbom: sbom(row)?,
                })
            })
            .collect()
    }

    /// The sealed key `id` of `product`, where there is one.
    pub(crate) async fn sealed_key(&self, product: &ProductName, id: &str) -> Result<Option<Sealed>, StoreError> {
        let row = sqlx::query("SELECT master, sealed FROM image_key WHERE id = $1 AND product = $2")
            .bind(id)
            .bind(product.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(Sealed { master: row.try_get("master")?, bytes: row.try_get("sealed")? })).transpose()
    }

    /// The manifests that the key may open.
    pub(crate) async fn manifests_of_key(&self, id: &str) -> Result<Vec<SealedManifest>, StoreError> {
        let rows = sqlx::query(
            "SELECT manifest_digest, platform, sbom FROM image_key_manifest WHERE key_id = $1 ORDER BY platform, manifest_digest",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(SealedManifest {
                    digest: row.try_get("manifest_digest")?,
                    platform: row.try_get("platform")?,
                    sbom: sbom(row)?,
                })
            })
            .collect()
    }
}

fn sbom(row: &AnyRow) -> Result<Option<Sbom>, StoreError> {
    let text: Option<&str> = row.try_get("sbom")?;
    Ok(text.map(serde_json::from_str).transpose()?)
}

async fn add_manifests(transaction: &mut Write<'_>, id: &str, manifests: &[SealedManifest]) -> Result<(), StoreError> {
    for manifest in manifests {
        sqlx::query(
            "INSERT INTO image_key_manifest (key_id, manifest_digest, platform, sbom) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(id)
        .bind(&manifest.digest)
        .bind(&manifest.platform)
        .bind(manifest.sbom.as_ref().map(serde_json::to_string).transpose()?)
        .execute(transaction.sql())
        .await?;
    }
    Ok(())
}
