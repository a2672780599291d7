//! What decisions rest on (licences, products, keys, denied platforms), kept from one decision to the next. The number of
//! the newest entry of the log that changed any of it stands beside the log, and is written in the transaction of that entry:
//! whatever is kept here is as it was at that number. A decision that was made by older rules is not written, whoever of
//! several replicas changed them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use release_protocol::{LeaseId, LicenseId, ProductName};

use super::image_key::RegisteredManifest;
use super::license::LicenseRecord;
use super::master_key::Sealed;
use super::{Store, StoreError, count, millis, policy_digest};
use crate::api::{PlatformDenial, Reference};
use crate::finding::Finding;
use crate::platform::Platform;
use crate::policy::DEFAULT_POLICY;

/// The rules as of one entry of the log, as far as somebody has asked for them.
pub(crate) struct Rules {
    version: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    licenses: HashMap<LicenseId, Arc<LicenseRecord>>,
    manifests: HashMap<String, Arc<[RegisteredManifest]>>,
    products: HashMap<ProductName, Arc<ProductRules>>,
    keys: HashMap<(ProductName, String), Arc<KeyRules>>,
    denials: Option<Arc<[PlatformDenial]>>,
}

/// How often a decision is made anew because what it rests on was changed meanwhile.
pub(crate) const TRIES: usize = 8;

/// How many of each kind are kept.
const MOST: usize = 4096;

/// What the decision on a product's guests rests on.
#[derive(Debug)]
pub(crate) struct ProductRules {
    /// The thumbprints of those whose signatures its images need.
    pub(crate) signers: Vec<String>,
    /// Retired ones included.
    pub(crate) references: Vec<Reference>,
    /// Its policy's source: its own, or the one of products that have none.
    pub(crate) policy: String,
    pub(crate) policy_digest: String,
}

/// An image key as it is kept.
#[derive(Debug)]
pub(crate) struct KeyRules {
    pub(crate) sealed: Sealed,
    /// The digests of the manifests that it may open.
    pub(crate) manifests: Vec<String>,
}

impl KeyRules {
    /// A secret beside image keys: it is bound to no manifest.
    pub(crate) fn of_secret(sealed: Sealed) -> Self {
        Self { sealed, manifests: Vec::new() }
    }
}

/// What is asked before each decision, by one question.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) rules: Arc<Rules>,
    /// How many other instances run under the licence on the same processor.
    pub(crate) others_on_chip: u64,
    /// The newest entry after which leases have to be judged again.
    pub(crate) judged_again: u64,
}

/// The newest rules that this process knows of.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownRules(Arc<Mutex<Arc<Rules>>>);

impl KnownRules {
    fn newest(&self) -> Arc<Rules> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The rules of this version: those that are known, or new ones of which nothing has been read.
    pub(super) fn at(&self, version: u64) -> Arc<Rules> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.version != version {
            *newest = Arc::new(Rules { version, kept: Mutex::default() });
        }
        Arc::clone(&newest)
    }
}

impl Default for Rules {
    fn default() -> Self {
        // No database has so many entries: it is replaced when one has been asked.
        Self { version: u64::MAX, kept: Mutex::default() }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Rules {
    /// The entry that changed them last.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        // Nothing in it is ever half done.
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn keep<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: V) {
    if map.len() >= MOST {
        map.clear();
    }
    map.insert(key, value);
}

/// What the denials say against a platform.
pub(super) fn against(denials: &[PlatformDenial], chip_id: &str, platform: Option<&Platform>) -> Vec<Finding> {
    let findings = denials.iter().flat_map(|denial| denial.rule.findings(chip_id, platform, &denial.reason));
    Finding::bounded(findings.collect())
}

impl Store {
    /// The rules that were in force when this process last heard of any. They may have been changed since: nothing is
    /// written by them then, and nothing may be denied by them alone.
    pub(crate) fn known_rules(&self) -> Arc<Rules> {
        self.rules.newest()
    }

    /// The rules that are in force now.
    pub(crate) async fn current_rules(&self) -> Result<Arc<Rules>, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query("SELECT rules FROM news").fetch_one(reader.sql()).await?;
        reader.keep();
        Ok(self.rules.at(count(&row, 0)?))
    }

    /// What is asked before a guest is decided on that would hold the lease `own`.
    pub(crate) async fn standing(
        &self,
        license: &LicenseId,
        chip_id: &str,
        own: &LeaseId,
        now: Timestamp,
    ) -> Result<Standing, StoreError> {
        let mut reader = self.reader().await?;
        // A seat that has lapsed counts until somebody takes note of it. The own lease is joined by its key alone: given the
        // licence, too, a database without statistics walks all leases of that.
        let row = sqlx::query(
            "SELECT news.rules, news.judged_again, \
             coalesce((SELECT taken FROM seat WHERE license_id = $1 AND chip_id = $2), 0) \
             - (SELECT count(*) FROM lease WHERE license_id = $1 AND chip_id = $2 AND ended_at IS NULL \
                AND seat_until > 0 AND seat_until <= $3) \
             - CASE WHEN own.license_id = $1 AND own.chip_id = $2 AND own.ended_at IS NULL AND own.seat_until > 0 \
                AND own.seat_until > $3 THEN 1 ELSE 0 END AS others \
             FROM news LEFT JOIN lease AS own ON own.id = $4",
        )
        .bind(&license.0)
        .bind(chip_id)
        .bind(millis(now))
        .bind(&own.0)
        .fetch_one(reader.sql())
        .await?;
        reader.keep();
        Ok(Standing {
            rules: self.rules.at(count(&row, "rules")?),
            others_on_chip: count(&row, "others")?,
            judged_again: count(&row, "judged_again")?,
        })
    }

    /// The licence by these rules, where there is one.
    ///
    /// # Errors
    /// [`StoreError::Outdated`], here and below, when the rules are not in force any more.
    pub(crate) async fn license_by(
        &self,
        rules: &Rules,
        id: &LicenseId,
    ) -> Result<Option<Arc<LicenseRecord>>, StoreError> {
        if let Some(found) = rules.with(|kept| kept.licenses.get(id).cloned()) {
            return Ok(Some(found));
        }
        let Some(loaded) = self.in_force(rules, self.license(id).await?).await?.map(Arc::new) else { return Ok(None) };
        rules.with(|kept| keep(&mut kept.licenses, id.clone(), Arc::clone(&loaded)));
        Ok(Some(loaded))
    }

    /// What is registered for the manifest by these rules, for any product.
    pub(crate) async fn manifests_by(
        &self,
        rules: &Rules,
        digest: &str,
    ) -> Result<Arc<[RegisteredManifest]>, StoreError> {
        if let Some(found) = rules.with(|kept| kept.manifests.get(digest).cloned()) {
            return Ok(found);
        }
        let loaded: Arc<[_]> = self.in_force(rules, self.registered_manifests(digest).await?).await?.into();
        if !loaded.is_empty() {
            rules.with(|kept| keep(&mut kept.manifests, digest.to_owned(), Arc::clone(&loaded)));
        }
        Ok(loaded)
    }

    /// The product by these rules.
    pub(crate) async fn product_by(
        &self,
        rules: &Rules,
        product: &ProductName,
    ) -> Result<Arc<ProductRules>, StoreError> {
        if let Some(found) = rules.with(|kept| kept.products.get(product).cloned()) {
            return Ok(found);
        }
        let policy = self.policy(product).await?.unwrap_or_else(|| DEFAULT_POLICY.to_owned());
        let loaded = ProductRules {
            signers: self.signers(product).await?.into_iter().map(|signer| signer.thumbprint).collect(),
            references: self.references(product).await?,
            policy_digest: policy_digest(&policy),
            policy,
        };
        let loaded = Arc::new(self.in_force(rules, loaded).await?);
        rules.with(|kept| keep(&mut kept.products, product.clone(), Arc::clone(&loaded)));
        Ok(loaded)
    }

    /// The key `id` of the product by these rules, where there is one.
    pub(crate) async fn key_by(
        &self,
        rules: &Rules,
        product: &ProductName,
        id: &str,
    ) -> Result<Option<Arc<KeyRules>>, StoreError> {
        let name = (product.clone(), id.to_owned());
        if let Some(found) = rules.with(|kept| kept.keys.get(&name).cloned()) {
            return Ok(Some(found));
        }
        let Some(sealed) = self.sealed_key(product, id).await? else { return self.in_force(rules, None).await };
        let manifests = self.manifests_of_key(id).await?.into_iter().map(|manifest| manifest.digest).collect();
        let loaded = Arc::new(self.in_force(rules, KeyRules { sealed, manifests }).await?);
        rules.with(|kept| keep(&mut kept.keys, name, Arc::clone(&loaded)));
        Ok(Some(loaded))
    }

    /// Which platforms are denied by these rules, oldest first.
    pub(crate) async fn denials_by(&self, rules: &Rules) -> Result<Arc<[PlatformDenial]>, StoreError> {
        if let Some(found) = rules.with(|kept| kept.denials.clone()) {
            return Ok(found);
        }
        let loaded: Arc<[_]> = self.in_force(rules, self.platform_denials().await?).await?.into();
        rules.with(|kept| kept.denials = Some(Arc::clone(&loaded)));
        Ok(loaded)
    }

    /// What the denials of these rules say against a platform.
    pub(crate) async fn platform_findings(
        &self,
        rules: &Rules,
        chip_id: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<Finding>, StoreError> {
        Ok(against(&self.denials_by(rules).await?, chip_id, platform))
    }

    /// What was just read, once it is seen that these rules are in force still.
    async fn in_force<T>(&self, rules: &Rules, read: T) -> Result<T, StoreError> {
        if self.current_rules().await?.version == rules.version { Ok(read) } else { Err(StoreError::Outdated) }
    }
}
