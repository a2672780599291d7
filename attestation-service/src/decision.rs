//! The decision on one release: licence, registered manifest, platform, policy, seat, in this order. Each says yes or gives
//! its findings; what is denied is recorded with all of them.

use jiff::Timestamp;
use launch_evidence::VerifiedEvidence;
use release_protocol::{
    Attestation, DecisionBasis, Lease, LeaseId, License, LicenseFile, Obligations, ProductName, RuntimeData, StatedBy,
    Workload, host_data,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::finding::{Finding, Stage};
use crate::platform::Platform;
use crate::policy::{PolicyDecision, PolicyError};
use crate::release::{Refusal, chain};
use crate::service::{Service, ServiceError};
use crate::store::{AuditKind, LeaseOutcome, LeaseRequest, StoreError};

/// What one attested guest asks for.
pub(crate) struct Asked<'a> {
    pub(crate) runtime_data: &'a RuntimeData,
    pub(crate) workload: &'a Workload,
    /// Who said so.
    pub(crate) stated_by: StatedBy,
    /// The lease that its key would hold.
    pub(crate) lease: LeaseId,
    pub(crate) evidence: &'a VerifiedEvidence,
    /// What it showed.
    pub(crate) attestation: Attestation,
    /// When the challenge that it answered had been issued.
    pub(crate) challenge_at: Timestamp,
    pub(crate) now: Timestamp,
}

impl Asked<'_> {
    fn renews(&self) -> bool {
        self.runtime_data.lease.is_some()
    }

    fn chip_id(&self) -> String {
        self.evidence.chip_id().to_string()
    }

    /// The digest of the launch's initialisation data, as the report binds it.
    fn init_data(&self) -> Option<String> {
        self.attestation.init_data.as_ref().map(|data| hex::encode(host_data(data.body.as_bytes())))
    }
}

/// What policies are told.
fn stated_by(stated_by: StatedBy) -> &'static str {
    match stated_by {
        StatedBy::Guest => "guest",
        StatedBy::Launch => "launch",
    }
}

/// What it gets.
pub(crate) struct Granted {
    pub(crate) lease: Lease,
    pub(crate) obligations: Obligations,
    pub(crate) product: ProductName,
    pub(crate) license: String,
    /// The digest of the policy that allowed.
    pub(crate) policy: String,
    /// The audit entry of the grant or renewal.
    pub(crate) entry: Option<u64>,
}

/// Why it does not get it.
enum No {
    /// It is denied, which has to be recorded.
    Denied { stage: Stage, findings: Vec<Finding> },
    /// It was recorded already, or nothing could be decided.
    Refused(Refusal),
}

impl No {
    fn because(stage: Stage, reason: String) -> Self {
        Self::Denied { stage, findings: vec![reason.into()] }
    }
}

impl<E: Into<Refusal>> From<E> for No {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// A manifest as it was registered for a product of the licence.
struct Registered {
    product: ProductName,
    image: String,
}

impl Service {
    /// Decides, and records a denial.
    pub(crate) async fn decide(&self, asked: &Asked<'_>) -> Result<Granted, Refusal> {
        // A denial names the licence as soon as one was presented.
        let presented = match self.presented_license(asked) {
            Ok(license) => license,
            Err(reason) => return self.deny(asked, None, Stage::License, vec![reason.into()]).await,
        };
        match self.judge(asked, &presented).await {
            Ok(granted) => Ok(granted),
            Err(No::Refused(refusal)) => Err(refusal),
            Err(No::Denied { stage, findings }) => self.deny(asked, Some(&presented), stage, findings).await,
        }
    }

    async fn judge(&self, asked: &Asked<'_>, presented: &License) -> Result<Granted, No> {
        let license = self.current_license(asked, presented).await?;
        let manifest = self.registered_manifest(asked, &license).await?;
        let platform = Platform::of(asked.evidence.claims());
        let denied = self.store.platform_findings(&asked.chip_id(), platform.as_ref()).await?;
        if !denied.is_empty() {
            return Err(No::Denied { stage: Stage::Platform, findings: denied });
        }
        let policy_input = self.policy_input(asked, &license, &manifest).await?;
        let (decision, policy) = self.ask_policy(&manifest.product, policy_input.clone()).await?;
        let basis = DecisionBasis { attestation: asked.attestation.clone(), policy_input };
        let digest = digest_of(&basis)?;
        let audit = json!({
            "customer": license.customer, "measurement": asked.evidence.measurement().to_string(),
            "evidence": asked.evidence.evidence_digest(), "claims": platform, "policy": policy, "basis": digest,
        });
        let request = LeaseRequest {
            id: asked.lease.clone(),
            license: license.id.clone(),
            product: manifest.product.clone(),
            manifest_digest: asked.workload.manifest_digest.clone(),
            chip_id: asked.chip_id(),
            platform,
            simulated: asked.evidence.is_simulated(),
            revocable: asked.stated_by == StatedBy::Guest,
            renewal: asked.renews(),
            challenge_at: asked.challenge_at,
            audit,
            basis: self.seal_basis(&asked.lease, &basis).map_err(Refusal::from)?,
        };
        match self.store.hold_lease(&request, asked.now).await? {
            LeaseOutcome::Held { lease, entry } => {
                let (obligations, license, product) = (decision.obligations, license.id.0, manifest.product);
                Ok(Granted { lease, obligations, product, license, policy, entry })
            }
            LeaseOutcome::Denied { reason, entry } => {
                Err(Refusal::Denied { reasons: vec![reason], entry: Some(entry) }.into())
            }
            LeaseOutcome::SeatsExhausted { seats, entry } => Err(Refusal::SeatsExhausted { seats, entry }.into()),
        }
    }

    fn presented_license(&self, asked: &Asked<'_>) -> Result<License, String> {
        if asked.runtime_data.lease.as_ref().is_some_and(|lease| *lease != asked.lease) {
            return Err("the lease to renew belongs to another guest key".to_owned());
        }
        let token = asked.runtime_data.license.as_deref().ok_or("no licence was presented")?;
        let file: LicenseFile = token.parse().map_err(|error| chain(&error))?;
        file.verify(std::slice::from_ref(self.license_key.verifying_key()))
            .map_err(|_| "the licence was not issued by this service".to_owned())
    }

    /// The licence as it holds now: what is in the database counts, the file may be older.
    async fn current_license(&self, asked: &Asked<'_>, presented: &License) -> Result<License, No> {
        let id = &presented.id;
        let Some(record) = self.store.license(id).await? else {
            return Err(No::because(Stage::License, format!("licence {id} is unknown")));
        };
        let refusal = if asked.renews() { record.refusal_to_go_on(asked.now) } else { record.refusal(asked.now) };
        let license = record.claims;
        let chip_id = asked.chip_id();
        let reason = if presented.generation != license.generation {
            Some(format!("licence {id} went to another customer: this file of it opens nothing any more"))
        } else if !license.platforms.is_empty() && !license.platforms.contains(&chip_id) {
            Some(format!("licence {id} is bound to other chips than {chip_id}"))
        } else {
            refusal
        };
        reason.map_or(Ok(license), |reason| Err(No::because(Stage::License, reason)))
    }

    async fn registered_manifest(&self, asked: &Asked<'_>, license: &License) -> Result<Registered, No> {
        let digest = &asked.workload.manifest_digest;
        let registered = self.store.registered_manifests(digest).await?;
        if let Some(own) = registered.iter().find(|manifest| license.products.contains(&manifest.product)) {
            return Ok(Registered { product: own.product.clone(), image: own.image.clone() });
        }
        let reason = match registered.first() {
            None => format!("manifest {digest} is registered for no product"),
            Some(other) => format!(
                "manifest {digest} belongs to product {}, licence {} does not cover it",
                other.product, license.id
            ),
        };
        Err(No::because(Stage::Manifest, reason))
    }

    /// What the product's policy decides, and the policy's digest.
    async fn ask_policy(&self, product: &ProductName, input: Value) -> Result<(PolicyDecision, String), No> {
        let policy = self.policy(product).await?;
        let digest = policy.digest().to_owned();
        let decision = match policy.evaluate_in_turn(input).await? {
            Ok(decision) => decision,
            // The service's own failure is no verdict.
            Err(error @ PolicyError::Process(_)) => return Err(ServiceError::from(error).into()),
            Err(error) => {
                let reason = format!("the release policy of product {product} gave no decision: {error}");
                return Err(No::because(Stage::Policy, reason));
            }
        };
        if decision.allow {
            return Ok((decision, digest));
        }
        if decision.deny.is_empty() {
            let reason = format!("the release policy of product {product} does not allow it and gives no reason");
            return Err(No::because(Stage::Policy, reason));
        }
        Err(No::Denied { stage: Stage::Policy, findings: decision.deny })
    }

    async fn policy_input(
        &self,
        asked: &Asked<'_>,
        license: &License,
        manifest: &Registered,
    ) -> Result<Value, Refusal> {
        let product = &manifest.product;
        // Apart, so that a policy that knows of no retirement accepts no retired one.
        let (references, retired): (Vec<_>, Vec<_>) =
            self.store.references(product).await?.into_iter().partition(|reference| reference.counts(asked.now));
        let signers: Vec<String> =
            self.store.signers(product).await?.into_iter().map(|signer| signer.thumbprint).collect();
        let others = self.store.others_on_chip(&license.id, &asked.chip_id(), &asked.lease, asked.now).await?;
        Ok(json!({
            "now": asked.now.as_second(),
            "product": product,
            "product_signers": signers,
            "references": references,
            "retired_references": retired,
            "tee": asked.evidence.claims(),
            "platform": asked.evidence.claims().platform(),
            "checks": checks(asked.evidence),
            "license": license,
            "workload": asked.workload,
            "stated_by": stated_by(asked.stated_by),
            "init_data": asked.init_data(),
            "image": manifest.image,
            "renewal": asked.renews(),
            "others_on_chip": others,
        }))
    }

    async fn deny(
        &self,
        asked: &Asked<'_>,
        license: Option<&License>,
        stage: Stage,
        findings: Vec<Finding>,
    ) -> Result<Granted, Refusal> {
        let reasons = Finding::messages(&findings);
        let body = json!({
            "stage": stage.name(), "reasons": reasons, "findings": findings, "lease": asked.lease,
            "license": license.map(|license| &license.id), "customer": license.map(|license| &license.customer),
            "manifest_digest": asked.workload.manifest_digest,
            "measurement": asked.evidence.measurement().to_string(), "chip_id": asked.chip_id(),
            "evidence": asked.evidence.evidence_digest(), "simulated": asked.evidence.is_simulated(),
            "renewal": asked.renews(),
        });
        let entry = self.store.record(AuditKind::Denied, &body, asked.now).await?;
        Err(Refusal::Denied { reasons, entry: Some(entry) })
    }
}

/// SHA-256 of the canonical JSON (RFC 8785), hexadecimal.
fn digest_of(basis: &DecisionBasis) -> Result<String, Refusal> {
    Ok(hex::encode(Sha256::digest(serde_json_canonicalizer::to_vec(basis).map_err(StoreError::from)?)))
}

/// The names of the checks and how each ended; what they found stands in the claims.
fn checks(evidence: &VerifiedEvidence) -> Value {
    evidence.checks().iter().map(|check| json!({"name": check.name, "verdict": check.verdict})).collect()
}
