//! Relays: a service that holds a licence's seats for a site and gives them to guests there. What the service above says to
//! it stands here, what it makes of that in `relay/taken.rs`.

mod authority;
mod taken;

use release_protocol::{LeaseId, LicenseId, ProductName};
use serde_json::json;

use crate::api::{DelegatedKey, DelegatedLicense, DelegatedProduct, Delegation};
use crate::release::Refusal;
use crate::service::{Service, ServiceError};
use crate::store::{AuditKind, Rules, StoreError, TRIES};
use crate::token::Session;
pub(crate) use authority::RelayAuthority;
pub use authority::boot_time;

impl Service {
    /// Answers `GET /kbs/v0/delegation`.
    pub(crate) async fn delegation(&self, token: Option<&str>) -> Result<String, Refusal> {
        let session = self.session(token, self.now())?;
        let (lease, license) = match self.delegating(&session).await? {
            Ok(held) => held,
            Err(reason) => return Err(self.refuse_delegation(&session, reason).await?),
        };
        let delegation = self.delegated(&license).await?;
        let text = serde_json::to_string(&delegation).map_err(StoreError::from)?;
        if text.len() > Delegation::MAX_LEN {
            let reason = format!(
                "what licence {license} delegates has {} bytes, at most {} are handed on: license fewer products to one relay",
                text.len(),
                Delegation::MAX_LEN
            );
            return Err(self.refuse_delegation(&session, reason).await?);
        }
        // What was read meanwhile is given only to who may have it still.
        match self.store.lease_refusal(lease, self.now()).await? {
            None => Ok(text),
            Some(reason) => Err(self.refuse_delegation(&session, reason).await?),
        }
    }

    /// The lease and the licence of a relay's session, or why it gets no delegation.
    async fn delegating<'s>(&self, session: &'s Session) -> Result<Result<(&'s LeaseId, LicenseId), String>, Refusal> {
        let (Some(_), Some(lease), Some(license)) = (&session.delegated, &session.lease, &session.license) else {
            return Ok(Err(
                "this session is no relay's: only who attested as one, under a relay's licence, gets a delegation"
                    .to_owned(),
            ));
        };
        let refusal = self.store.lease_refusal(lease, self.now()).await?;
        Ok(refusal.map_or_else(|| Ok((lease, LicenseId(license.clone()))), Err))
    }

    async fn refuse_delegation(&self, session: &Session, reason: String) -> Result<Refusal, StoreError> {
        let body = json!({
            "resource": "delegation", "lease": session.lease, "license": session.license,
            "simulated": session.simulated, "reasons": [reason],
        });
        let entry = self.store.record(AuditKind::Denied, &body, self.now()).await?;
        Ok(Refusal::Denied { reasons: vec![reason], entry: Some(entry) })
    }

    async fn delegated(&self, license: &LicenseId) -> Result<Delegation, ServiceError> {
        for _ in 0..TRIES {
            let rules = self.store.current_rules().await?;
            match self.delegated_by(&rules, license).await {
                Err(StoreError::Outdated) => {}
                delegated => return Ok(delegated?),
            }
        }
        Err(StoreError::Outdated.into())
    }

    async fn delegated_by(&self, rules: &Rules, license: &LicenseId) -> Result<Delegation, StoreError> {
        let record = self.store.license_by(rules, license).await?.ok_or(StoreError::Value("licence of a session"))?;
        let claims = &record.claims;
        let mut products = Vec::with_capacity(claims.products.len());
        for name in &claims.products {
            products.push(self.delegated_product(rules, name).await?);
        }
        let denied_platforms = self.store.denials_by(rules).await?.to_vec();
        // Keys are read beside the rules: they have to be of the same moment.
        if self.store.current_rules().await?.version() != rules.version() {
            return Err(StoreError::Outdated);
        }
        let license = DelegatedLicense {
            customer: claims.customer.clone(),
            seats: claims.seats,
            valid_from: claims.valid_from,
            valid_until: claims.valid_until,
            lease_seconds: claims.lease_seconds,
            grace_seconds: claims.grace_seconds,
            features: claims.features.clone(),
        };
        Ok(Delegation { license, products, denied_platforms })
    }

    async fn delegated_product(&self, rules: &Rules, name: &ProductName) -> Result<DelegatedProduct, StoreError> {
        let product = self.store.product_by(rules, name).await?;
        let keys = self.store.image_keys(name).await?.into_iter().filter(|key| !key.manifests.is_empty());
        let now = self.now();
        Ok(DelegatedProduct {
            name: name.clone(),
            signers: self.store.signers(name).await?.into_iter().map(|signer| signer.pem).collect(),
            references: product.references.iter().filter(|reference| reference.counts(now)).cloned().collect(),
            policy: product.policy.clone(),
            keys: keys.map(|key| DelegatedKey { id: key.id, image: key.image, manifests: key.manifests }).collect(),
        })
    }
}
