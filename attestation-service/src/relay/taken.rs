//! The relay's own side: what was delegated becomes its products, policies, reference values, keys, and one licence.

use std::collections::BTreeSet;

use jiff::Timestamp;
use release_protocol::{License, LicenseId, ProductName, RelayStatement, ResourcePath};

use crate::administration::{KeptKey, check_manifests};
use crate::api::{
    DelegatedKey, DelegatedProduct, Delegation, IssuedLicense, LicenseStatus, NewLicense, NewPlatformDenial,
    NewProduct, NewReference, Reference, Renewal, Retirement, Revocation,
};
use crate::service::{Service, ServiceError};
use crate::store::StoreError;

/// Why what was delegated before does not hold any more.
const REPLACED: &str = "the vendor delegates something else now";

impl Service {
    /// What it says of itself to the service above.
    pub fn relay_statement(&self) -> Result<RelayStatement, ServiceError> {
        Ok(RelayStatement {
            url: self.address.url.clone(),
            log_key: self.address.log_key.clone(),
            license_key: Some(self.license_key.verifying_key().to_spki_pem()?),
            resumes: false,
        })
    }

    /// Whether there is nothing in it that it could have from anybody but a delegating service.
    pub async fn is_blank(&self) -> Result<bool, ServiceError> {
        Ok(self.store.products().await?.is_empty() && self.store.license_list(self.now()).await?.is_empty())
    }

    /// Takes up what was delegated, all but keys and licence: what was delegated before and is not now goes.
    pub async fn take_up(&self, delegation: &Delegation) -> Result<(), ServiceError> {
        self.take_up_denials(delegation).await?;
        for product in &delegation.products {
            self.take_up_product(product).await?;
        }
        for other in self.store.products().await? {
            match delegation.products.iter().find(|product| product.name == other.name) {
                None => drop(self.store.forget_keys(&other.name, REPLACED, self.now()).await?),
                Some(product) => self.drop_other_keys(product).await?,
            }
        }
        Ok(())
    }

    /// Keys that were delegated once and are not now: all of the product's go, and those that are delegated come again.
    async fn drop_other_keys(&self, product: &DelegatedProduct) -> Result<(), ServiceError> {
        let held = self.store.image_keys(&product.name).await?;
        let is_delegated = |id: &str| product.keys.iter().any(|key| key.id == id);
        if held.iter().any(|key| !is_delegated(&key.id)) {
            self.store.forget_keys(&product.name, REPLACED, self.now()).await?;
        }
        Ok(())
    }

    async fn take_up_denials(&self, delegation: &Delegation) -> Result<(), ServiceError> {
        let held = self.store.platform_denials().await?;
        for denial in &delegation.denied_platforms {
            if !held.iter().any(|held| held.rule == denial.rule) {
                let new =
                    NewPlatformDenial { rule: denial.rule.clone(), reason: denial.reason.clone(), dry_run: false };
                self.store.deny_platform(&new, self.now()).await?;
            }
        }
        for lifted in held.iter().filter(|held| !delegation.denied_platforms.iter().any(|new| new.rule == held.rule)) {
            self.store.allow_platform(&lifted.rule, "the vendor lifted it", self.now()).await?;
        }
        Ok(())
    }

    async fn take_up_product(&self, product: &DelegatedProduct) -> Result<(), ServiceError> {
        let name = &product.name;
        match self.store.signers(name).await? {
            held if held.is_empty() => {
                let new = NewProduct { name: name.clone(), signers: product.signers.clone() };
                self.create_product(new).await?;
            }
            held => {
                let held: BTreeSet<_> = held.iter().map(|signer| &signer.pem).collect();
                if held != product.signers.iter().collect() {
                    let why = format!(
                        "product {name} has other signers here than the vendor's: make a fresh home for the relay"
                    );
                    return Err(StoreError::Conflict(why).into());
                }
            }
        }
        if self.store.policy(name).await?.as_ref() != Some(&product.policy) {
            self.set_policy(name, Some(product.policy.clone())).await?;
        }
        let held = self.store.references(name).await?;
        let is_same = |one: &Reference, other: &Reference| {
            (&one.value, &one.label, &one.source, one.retired_at)
                == (&other.value, &other.label, &other.source, other.retired_at)
        };
        for gone in held.iter().filter(|held| !product.references.iter().any(|new| is_same(new, held))) {
            self.store.remove_reference(name, &gone.id, self.now()).await?;
        }
        for new in product.references.iter().filter(|new| !held.iter().any(|held| is_same(new, held))) {
            self.take_up_reference(name, new).await?;
        }
        Ok(())
    }

    async fn take_up_reference(&self, product: &ProductName, reference: &Reference) -> Result<(), ServiceError> {
        let Reference { value, label, source, .. } = reference.clone();
        let added = self.add_reference(product, NewReference { value, label, source }).await?;
        if let Some(at) = reference.retired_at.filter(|at| self.now() < *at) {
            let reason = reference.retire_reason.clone().unwrap_or_else(|| REPLACED.to_owned());
            self.retire_reference(&added.id, Retirement { at: Some(at), reason }).await?;
        }
        Ok(())
    }

    /// The keys that are delegated and not here, or bound to fewer manifests here.
    pub async fn missing_keys<'d>(
        &self,
        delegation: &'d Delegation,
    ) -> Result<Vec<(ResourcePath, &'d DelegatedKey)>, ServiceError> {
        let mut missing = Vec::new();
        for product in &delegation.products {
            let held = self.store.image_keys(&product.name).await?;
            for key in &product.keys {
                let is_here = held.iter().any(|held| held.id == key.id && held.manifests == key.manifests);
                if !is_here {
                    let path = ResourcePath::image_key(product.name.clone(), &key.id)
                        .map_err(|error| ServiceError::BadRequest(format!("`{}`: {error}", key.id)))?;
                    missing.push((path, key));
                }
            }
        }
        Ok(missing)
    }

    /// Keeps a key that was delegated.
    pub async fn take_up_key(&self, path: &ResourcePath, key: &DelegatedKey, kek: &[u8]) -> Result<(), ServiceError> {
        check_manifests(&key.manifests)?;
        let kept = KeptKey { id: &key.id, kek, image: &key.image, manifests: &key.manifests, rewrapped: None };
        self.keep_key(path, kept).await
    }

    /// The one licence that the relay's guests run under: the one that is there, with seats and end as they are delegated now,
    /// or a new one. Others end.
    pub async fn child_license(&self, delegation: &Delegation) -> Result<IssuedLicense, ServiceError> {
        let wanted = &delegation.license;
        let mut current = None;
        for id in self.child_ids().await? {
            let claims = self.store.license(&id).await?.ok_or(StoreError::Value("licence"))?.claims;
            if current.is_none() && is_same_license(&claims, delegation) {
                current = Some(claims);
            } else {
                self.end_license(&id, REPLACED).await?;
            }
        }
        let Some(claims) = current else {
            let at = |seconds| Timestamp::from_second(seconds).map_err(ServiceError::from);
            let new = NewLicense {
                products: products(delegation),
                customer: wanted.customer.clone(),
                seats: wanted.seats,
                valid_from: Some(at(wanted.valid_from)?),
                valid_until: at(wanted.valid_until)?.into(),
                lease_seconds: wanted.lease_seconds,
                grace_seconds: wanted.grace_seconds,
                // A guest of the relay hears of its end within its lease.
                offline_seconds: None,
                platforms: Vec::new(),
                features: wanted.features.clone(),
                relay: false,
            };
            let issued = self.issue_licenses(vec![new]).await?.pop();
            return issued.ok_or_else(|| StoreError::Value("licence").into());
        };
        if (claims.seats, claims.valid_until) == (wanted.seats, wanted.valid_until) {
            return Ok(IssuedLicense {
                id: claims.id.0.clone(),
                token: claims.sign(&self.license_key)?.token().to_owned(),
            });
        }
        let renewal = Renewal {
            valid_until: Some(Timestamp::from_second(wanted.valid_until)?.into()),
            seats: Some(wanted.seats),
            reason: "the vendor delegates other seats or another end".to_owned(),
        };
        self.renew_license(&claims.id, &renewal).await
    }

    /// Ends all that was delegated: guests hear that their licence was revoked, and no key of theirs is left.
    pub async fn give_up(&self, reason: &str) -> Result<(), ServiceError> {
        for id in self.child_ids().await? {
            self.end_license(&id, reason).await?;
        }
        for product in self.store.products().await? {
            self.store.forget_keys(&product.name, reason, self.now()).await?;
        }
        Ok(())
    }

    /// How many instances run under the relay's licence.
    pub async fn children(&self) -> Result<u32, ServiceError> {
        Ok(self.store.license_list(self.now()).await?.iter().map(|license| license.seats_in_use).sum())
    }

    async fn child_ids(&self) -> Result<Vec<LicenseId>, ServiceError> {
        let holds = |license: &LicenseStatus| license.revoked_at.is_none();
        let all = self.store.license_list(self.now()).await?;
        Ok(all.into_iter().filter(holds).map(|license| LicenseId(license.id)).collect())
    }

    async fn end_license(&self, id: &LicenseId, reason: &str) -> Result<(), ServiceError> {
        let why = Revocation { reason: reason.to_owned(), drain_seconds: None };
        self.revoke_license(id, &why).await.map(drop)
    }
}

fn products(delegation: &Delegation) -> Vec<ProductName> {
    delegation.products.iter().map(|product| product.name.clone()).collect()
}

/// Whether a licence says what is delegated, but for what may be changed of it.
fn is_same_license(claims: &License, delegation: &Delegation) -> bool {
    let wanted = &delegation.license;
    claims.customer == wanted.customer
        && claims.products == products(delegation)
        && claims.valid_from == wanted.valid_from
        && (claims.lease_seconds, claims.grace_seconds) == (wanted.lease_seconds, wanted.grace_seconds)
        && claims.features == wanted.features
}
