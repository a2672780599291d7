//! The decision on one release: licence, registered manifest, platform, policy, seat, in this order. Each says yes or gives
//! its findings; what is denied is recorded with all of them.

mod input;
mod subject;

use std::sync::Arc;

use release_protocol::{Attestation, Lease, License, LicenseFile, Obligations, ProductName, StatedBy, Workload};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::finding::{Finding, Stage};
use crate::platform::Platform;
use crate::policy::{PolicyDecision, PolicyError};
use crate::release::{Refusal, chain};
use crate::service::{Service, ServiceError};
use crate::store::{
    ACTOR, AuditKind, Grown, LeaseOutcome, LeaseRequest, LicenseRecord, ProductRules, Rules, Standing, StoreError,
    TRIES,
};
use input::{Registered, offline_seconds, policy_input_of};
pub(crate) use subject::{Asked, Subject};

/// What it gets.
pub(crate) struct Granted {
    pub(crate) lease: Lease,
    pub(crate) obligations: Obligations,
    pub(crate) product: ProductName,
    /// Of a relay: the products of the licence.
    pub(crate) delegated: Option<Vec<ProductName>>,
    pub(crate) license: String,
    /// The digest of the policy that allowed.
    pub(crate) policy: String,
    /// The audit entry of the grant or renewal.
    pub(crate) entry: Option<u64>,
    /// What the log grew by with it.
    pub(crate) grown: Option<Grown>,
    /// The newest entry after which leases have to be judged again, as it was before the decision.
    pub(crate) news_since: u64,
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

/// What a decision rests on: its digest in canonical JSON (RFC 8785) stands in the log.
#[derive(Serialize)]
struct Basis<'a> {
    attestation: &'a Attestation,
    policy_input: &'a Value,
}

impl<E: Into<Refusal>> From<E> for No {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

impl Service {
    /// Decides, and records a denial.
    pub(crate) async fn decide(&self, asked: &Asked<'_>) -> Result<Granted, Refusal> {
        // A denial names the licence as soon as one was presented.
        let presented = match self.presented_license(asked) {
            Ok(license) => license,
            Err(reason) => return self.deny(asked, None, Stage::License, vec![reason.into()]).await,
        };
        if let Some(reason) = self.stale(asked).or_else(|| asked.cannot_resume()) {
            return self.deny(asked, Some(&presented), Stage::Lease, vec![reason.into()]).await;
        }
        for _ in 0..TRIES {
            let standing = self.store.standing(&presented.id, &asked.chip_id(), &asked.lease, asked.now).await?;
            return match self.judge(asked, &presented, &standing).await {
                Ok(Some(granted)) => Ok(granted),
                // What was judged by is not in force any more: once more, by what is.
                Ok(None) | Err(No::Refused(Refusal::Internal(ServiceError::Store(StoreError::Outdated)))) => continue,
                Err(No::Refused(refusal)) => Err(refusal),
                Err(No::Denied { stage, findings }) => self.deny(asked, Some(&presented), stage, findings).await,
            };
        }
        Err(StoreError::Outdated.into())
    }

    /// Judges by the rules that stand; gives nothing where they were changed before that could be written.
    async fn judge(&self, asked: &Asked<'_>, presented: &License, standing: &Standing) -> Result<Option<Granted>, No> {
        let rules = &standing.rules;
        let record = self.current_license(asked, presented, rules).await?;
        let license = &record.claims;
        let (manifest, others) = self.registered(asked, license, rules).await?;
        let platform = Platform::of(asked.evidence.claims());
        let denied = self.store.platform_findings(rules, &asked.chip_id(), platform.as_ref()).await?;
        if !denied.is_empty() {
            return Err(No::Denied { stage: Stage::Platform, findings: denied });
        }
        let product = self.store.product_by(rules, &manifest.product).await?;
        let policy_input = policy_input_of(asked, license, &manifest, &product, standing.others_on_chip);
        let mut decision = self.ask_policy(&manifest.product, &product, &policy_input).await?;
        for other in others {
            let product = self.store.product_by(rules, &other.product).await?;
            let policy_input = policy_input_of(asked, license, &other, &product, standing.others_on_chip);
            self.ask_policy(&other.product, &product, &policy_input).await?;
        }
        // A relay goes on without the service for its lease and grace only.
        let of_policy = decision.obligations.offline_seconds;
        let offline_seconds = asked.subject.workload().and_then(|_| offline_seconds(asked, &record, of_policy));
        decision.obligations.offline_seconds = offline_seconds;
        if asked.by_file.is_some() && offline_seconds.is_none() {
            let reason = "neither licence nor policy let this guest do without the service".to_owned();
            return Err(No::because(Stage::Policy, reason));
        }
        let policy = product.policy_digest.clone();
        let basis = Basis { attestation: &asked.attestation, policy_input: &policy_input };
        let basis = serde_json_canonicalizer::to_vec(&basis).map_err(StoreError::from)?;
        let mut audit = json!({
            "customer": license.customer, "measurement": asked.evidence.measurement().to_string(),
            "evidence": asked.evidence.evidence_digest(), "claims": platform, "policy": policy,
            "signers": asked.subject.workload().map_or(&[][..], |workload| &workload.signers),
            "basis": hex::encode(Sha256::digest(&basis)),
        });
        if let Some(relay) = asked.subject.relay() {
            audit["relay"] = json!(relay.url);
            audit["relay_log"] = json!(relay.log_key);
        }
        // A guest asks for itself; somebody of the vendor's brings a file.
        if let Ok(by) = ACTOR.try_with(|actor| serde_json::to_value(actor)) {
            audit["by"] = by.map_err(StoreError::from)?;
        }
        let request = LeaseRequest {
            id: asked.lease.clone(),
            license: Arc::clone(&record),
            rules: rules.version(),
            product: manifest.product.clone(),
            manifest_digest: asked.subject.manifest_digest().to_owned(),
            chip_id: asked.chip_id(),
            platform,
            simulated: asked.evidence.is_simulated(),
            revocable: asked.stated_by == StatedBy::Guest,
            renewal: asked.renews(),
            challenge_at: asked.challenge_at,
            offline_seconds,
            at_most_seconds: self.authority_seconds(),
            by_file: asked.by_file.clone(),
            audit,
            basis: self.seal_basis(&asked.lease, &basis).map_err(Refusal::from)?,
        };
        let (outcome, grown) = self.store.hold_lease(request, asked.now).await?;
        match outcome {
            LeaseOutcome::Held { lease, entry } => Ok(Some(Granted {
                lease,
                obligations: decision.obligations,
                product: manifest.product,
                delegated: asked.subject.relay().map(|_| license.products.clone()),
                license: license.id.0.clone(),
                policy,
                entry,
                grown,
                news_since: standing.judged_again,
            })),
            LeaseOutcome::Denied { reason, entry } => {
                Err(Refusal::Denied { reasons: vec![reason], entry: Some(entry) }.into())
            }
            LeaseOutcome::SeatsExhausted { seats, entry } => Err(Refusal::SeatsExhausted { seats, entry }.into()),
            LeaseOutcome::Outdated => Ok(None),
        }
    }

    fn presented_license(&self, asked: &Asked<'_>) -> Result<Arc<License>, String> {
        if asked.runtime_data.lease.as_ref().is_some_and(|lease| *lease != asked.lease) {
            return Err("the lease to renew belongs to another guest key".to_owned());
        }
        let token = asked.runtime_data.license.as_deref().ok_or("no licence was presented")?;
        self.licenses.read(token, |token| {
            let file: LicenseFile = token.parse().map_err(|error| chain(&error))?;
            file.verify(std::slice::from_ref(self.license_key.verifying_key()))
                .map_err(|_| "the licence was not issued by this service".to_owned())
        })
    }

    /// The licence as it holds now: what is in the database counts, the file may be older.
    async fn current_license(
        &self,
        asked: &Asked<'_>,
        presented: &License,
        rules: &Rules,
    ) -> Result<Arc<LicenseRecord>, No> {
        let id = &presented.id;
        let Some(record) = self.store.license_by(rules, id).await? else {
            return Err(No::because(Stage::License, format!("licence {id} is unknown")));
        };
        let refusal = if asked.renews() { record.refusal_to_go_on(asked.now) } else { record.refusal(asked.now) };
        let license = &record.claims;
        let chip_id = asked.chip_id();
        let reason = if let Some(misused) = self.misused(asked, license) {
            Some(misused)
        } else if presented.generation != license.generation {
            Some(format!("licence {id} went to another customer: this file of it opens nothing any more"))
        } else if !license.platforms.is_empty() && !license.platforms.contains(&chip_id) {
            Some(format!("licence {id} is bound to other chips than {chip_id}"))
        } else {
            refusal
        };
        reason.map_or(Ok(record), |reason| Err(No::because(Stage::License, reason)))
    }

    /// Why this kind of licence is not for what is asked for.
    fn misused(&self, asked: &Asked<'_>, license: &License) -> Option<String> {
        let id = &license.id;
        match (asked.subject, license.relay) {
            (Subject::Relay(_), _) if self.is_relay() => {
                Some("this service is a relay itself: it hands nothing on to another one".to_owned())
            }
            _ if self.authority_seconds() == Some(0) => {
                Some("this service is a relay, and has no authority of the vendor's now".to_owned())
            }
            (Subject::Relay(_), false) => Some(format!(
                "licence {id} is for workloads, no relay may hand it on: the vendor issues another by `license issue --relay`"
            )),
            (Subject::Workload(_), true) => Some(format!(
                "licence {id} is a relay's, it starts no workload: run it under the licence that the relay issued"
            )),
            _ => None,
        }
    }

    /// What the policies are asked about: the manifest, or of a relay each product.
    async fn registered(
        &self,
        asked: &Asked<'_>,
        license: &License,
        rules: &Rules,
    ) -> Result<(Registered, Vec<Registered>), No> {
        let Subject::Workload(workload) = asked.subject else {
            let mut products = license.products.iter();
            let of = |product: &ProductName| Registered { product: product.clone(), image: None, sbom: None };
            let first = products.next().ok_or(StoreError::Value("products of a licence"))?;
            return Ok((of(first), products.map(of).collect()));
        };
        Ok((self.registered_manifest(workload, license, rules).await?, Vec::new()))
    }

    async fn registered_manifest(
        &self,
        workload: &Workload,
        license: &License,
        rules: &Rules,
    ) -> Result<Registered, No> {
        let digest = &workload.manifest_digest;
        let registered = self.store.manifests_by(rules, digest).await?;
        if let Some(own) = registered.iter().find(|manifest| license.products.contains(&manifest.product)) {
            return Ok(Registered {
                product: own.product.clone(),
                image: Some(own.image.clone()),
                sbom: own.sbom.clone(),
            });
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

    /// What the product's policy decides.
    async fn ask_policy(
        &self,
        product: &ProductName,
        rules: &ProductRules,
        input: &Value,
    ) -> Result<PolicyDecision, No> {
        let policy = self.policy(rules).await?;
        let input = input.to_string();
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
            return Ok(decision);
        }
        if decision.deny.is_empty() {
            let reason = format!("the release policy of product {product} does not allow it and gives no reason");
            return Err(No::because(Stage::Policy, reason));
        }
        Err(No::Denied { stage: Stage::Policy, findings: decision.deny })
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
            "manifest_digest": asked.subject.manifest_digest(),
            "measurement": asked.evidence.measurement().to_string(), "chip_id": asked.chip_id(),
            "evidence": asked.evidence.evidence_digest(), "simulated": asked.evidence.is_simulated(),
            "renewal": asked.renews(),
        });
        let entry = self.store.record(AuditKind::Denied, &body, asked.now).await?;
        Err(Refusal::Denied { reasons, entry: Some(entry) })
    }
}
