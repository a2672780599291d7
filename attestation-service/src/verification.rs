//! How the service judges evidence: one verifier for each TEE, the operator's requirements, endorsements that evidence
//! lacks, and revocation lists and collateral that are kept fresh.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use launch_evidence::tdx::Collateral;
use launch_evidence::{
    AzSnpVtpmVerifier, EvidenceRejected, Expected, HostData, Requirements, Revocation, SampleVerifier, SnpVerifier,
    TdxVerifier, TrustRoots, VerifiedEvidence, Verifier, devices,
};
use release_protocol::Evidence;
use serde_json::Value;

use crate::endorsement::{EndorsementError, Endorsements};
use crate::home::{EvidenceSettings, Home};
use crate::service::ServiceError;

/// How often lists and collateral are looked for.
const REFRESH: Duration = Duration::from_hours(1);

/// What evidence must be bound to.
pub(crate) struct Bound {
    pub(crate) report_data: [u8; 64],
    pub(crate) host_data: HostData,
    /// What reports of devices answer.
    pub(crate) device_nonce: [u8; 32],
}

/// The service's verifiers and what they rest on.
pub(crate) struct Verification {
    /// What is trusted, but for lists.
    roots: TrustRoots,
    requirements: Requirements,
    endorsements: Endorsements,
    /// Whether clients without a TEE are judged, too: whether anything simulated is.
    allows_sample: bool,
    current: RwLock<Arc<Verifiers>>,
}

type Verifiers = Vec<Box<dyn Verifier>>;

impl Verification {
    /// Trusts AMD's and Intel's roots, and those of the simulated platforms given (DER). Where there are such, clients of
    /// Confidential Containers without a TEE are taken for simulated ones.
    pub(crate) fn new(
        home: &Home,
        settings: &EvidenceSettings,
        simulated_roots: &[Vec<u8>],
    ) -> Result<Self, ServiceError> {
        let mut roots = TrustRoots::amd();
        for root in simulated_roots {
            roots = roots.with_simulated(root).map_err(|error| ServiceError::TrustRoot(error.to_string()))?;
        }
        let endorsements = Endorsements::new(&settings.endorsements, home.endorsements_path())?;
        let allows_sample = !simulated_roots.is_empty();
        let this = Self {
            current: RwLock::new(Arc::new(verifiers(&roots, &endorsements, allows_sample))),
            allows_sample,
            roots,
            requirements: settings.requirements.clone(),
            endorsements,
        };
        Ok(this)
    }

    /// Whether evidence of this TEE is judged here.
    pub(crate) fn knows(&self, tee: &str) -> bool {
        self.current().iter().any(|verifier| verifier.tee() == tee)
    }

    /// The evidence with the endorsement that it lacks, where there is one.
    pub(crate) async fn complete(&self, primary: Value, now: Timestamp) -> Result<Value, EndorsementError> {
        self.endorsements.complete(primary, &self.roots, now).await
    }

    /// Judges evidence of the CPU and, once that holds, of devices beside it; about a millisecond of public-key operations, so
    /// not for an asynchronous task's own thread.
    pub(crate) fn judge(
        &self,
        evidence: &Evidence,
        bound: &Bound,
        now: Timestamp,
    ) -> Option<Result<VerifiedEvidence, EvidenceRejected>> {
        let primary = &evidence.primary_evidence;
        let verifiers = self.current();
        let own = verifiers.iter().find(|verifier| verifier.recognises(primary));
        // What nobody recognises, the first refuses by name.
        let verifier = own.or(verifiers.first())?;
        let Bound { report_data, host_data, device_nonce } = *bound;
        let expected = Expected { report_data, host_data, requirements: self.requirements.clone(), now };
        Some(verifier.verify(primary, &expected).and_then(|verified| {
            let devices =
                devices::judge(&evidence.additional_evidence, &device_nonce, self.requirements.unverified_devices)?;
            Ok(verified.with_devices(devices))
        }))
    }

    /// Looks for fresh revocation lists and collateral, once.
    pub(crate) async fn refresh(&self, now: Timestamp) {
        let roots = self.roots_with_lists(now).await;
        let fresh = Arc::new(verifiers(&roots, &self.endorsements, self.allows_sample));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// What is trusted now. A product whose list is there and cannot be used is refused: what it may have revoked is unknown.
    async fn roots_with_lists(&self, now: Timestamp) -> TrustRoots {
        let mut roots = self.roots.clone();
        let hardware: Vec<_> =
            self.roots.products().filter(|(_, simulated)| !simulated).map(|(product, _)| product).collect();
        for product in hardware {
            let Some(list) = self.endorsements.revocation_list(product, &self.roots, now).await else {
                if self.requirements.revocation == Revocation::Require {
                    tracing::error!(%product, "no revocation list: evidence of this product is refused");
                }
                continue;
            };
            roots = roots.with_revocation_list_of(product, &list);
            if let Some(error) = roots.unusable_list(product) {
                tracing::error!(%product, error, "the revocation list is unusable: evidence of this product is refused");
            }
        }
        roots
    }

    /// Refreshes for ever.
    pub(crate) async fn keep_fresh(&self, clock: fn() -> Timestamp) {
        loop {
            self.refresh(clock()).await;
            tokio::time::sleep(REFRESH).await;
        }
    }

    fn current(&self) -> Arc<Verifiers> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn verifiers(roots: &TrustRoots, endorsements: &Endorsements, allows_sample: bool) -> Verifiers {
    let mut tdx = TdxVerifier::new();
    for (name, text) in endorsements.collateral() {
        match Collateral::from_json(&text) {
            Ok(collateral) => tdx = tdx.with_collateral(collateral),
            Err(error) => tracing::warn!(name, %error, "collateral is not usable"),
        }
    }
    let mut all: Verifiers =
        vec![Box::new(SnpVerifier::new(roots.clone())), Box::new(AzSnpVtpmVerifier::new(roots.clone())), Box::new(tdx)];
    if allows_sample {
        all.push(Box::new(SampleVerifier));
    }
    all
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification").field("requirements", &self.requirements).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use launch_evidence::snp::Product;

    use super::*;
    use crate::endorsement::Shelf;

    #[tokio::test]
    async fn a_list_that_is_there_and_cannot_be_used_is_not_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        let mut settings = EvidenceSettings::default();
        settings.endorsements.fetch = false;
        let given = directory.path().join("given");
        settings.endorsements.directory = Some(given.clone());
        Shelf::at(given.clone()).put("Genoa/crl.der", b"damaged").unwrap();
        Shelf::at(home.endorsements_path()).put("Milan/crl.der", b"damaged").unwrap();
        std::fs::create_dir(given.join("Turin")).unwrap();
        std::fs::write(given.join("Turin/crl.der"), "").unwrap();
        let verification = Verification::new(&home, &settings, &[]).unwrap();

        let refused = async || {
            let roots = verification.roots_with_lists(Timestamp::now()).await;
            Product::ALL.into_iter().filter(|product| roots.unusable_list(*product).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(refused().await, Product::ALL);
        std::fs::remove_file(given.join("Genoa/crl.der")).unwrap();
        std::fs::remove_file(given.join("Turin/crl.der")).unwrap();
        assert_eq!(refused().await, [Product::Milan]);
    }
}
