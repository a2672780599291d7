//! The release decision: genuine evidence ∧ registered manifest ∧ licence ∧ policy ∧ seat; then the key, to the guest.

use std::time::Duration;

use jiff::Timestamp;
use jose::Jwk;
use jose::jwe::{self, Recipient};
use launch_evidence::{EvidenceRejected, HostData, VerifiedEvidence};
use release_protocol::{
    AttestAnswer, Attestation, Challenge, LeaseId, License, LicenseFile, ProductName, Request, ResourcePath,
    RuntimeData, TeePubKey, Workload, host_data, report_data,
};
use serde_json::{Value, json};

use crate::endorsement::EndorsementError;
use crate::finding::{Finding, Stage};
use crate::platform::Platform;
use crate::service::{Service, ServiceError, SharedService};
use crate::store::{AuditKind, LeaseOutcome, LeaseRequest};
use crate::token::Session;

/// Why something is not released. Each variant has one HTTP status.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The request is malformed.
    Malformed(String),
    /// There is no valid challenge or session.
    NotAttested(String),
    /// The evidence did not verify.
    EvidenceRejected { reasons: Vec<String>, entry: u64 },
    /// Policy, licence or registration says no.
    Denied { reasons: Vec<String>, entry: Option<u64> },
    /// There is no such resource.
    Unknown(String),
    /// All seats of the licence are taken.
    SeatsExhausted { seats: u32, entry: u64 },
    /// Something that the service depends on cannot be asked now.
    Unavailable { detail: String, retry_after: Duration },
    /// The same address has asked too often.
    TooMany { retry_after: Duration },
    /// The service itself failed.
    Internal(ServiceError),
}

impl From<EndorsementError> for Refusal {
    fn from(error: EndorsementError) -> Self {
        let EndorsementError::Unavailable { retry_after, .. } = error;
        tracing::warn!(error = &error as &dyn std::error::Error, "an endorsement cannot be had now");
        Self::Unavailable { detail: chain(&error), retry_after }
    }
}

impl<E: Into<ServiceError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}

impl Service {
    /// Answers `POST /kbs/v0/auth`.
    pub(crate) fn challenge(&self, request: &Request) -> Result<Challenge, Refusal> {
        if !request.version.starts_with("0.4.") {
            return Err(Refusal::Malformed(format!(
                "protocol version `{}` is not spoken here, 0.4.x is",
                request.version
            )));
        }
        if !self.verification.knows(request.tee.as_ref()) {
            return Err(Refusal::Malformed(format!("evidence of TEE `{}` is not verified here", request.tee)));
        }
        Ok(Challenge { nonce: self.challenger.issue(self.now())?, extra_params: Value::String(String::new()) })
    }

    /// Answers `POST /kbs/v0/attest`: judges evidence and, where a workload is stated, the whole release.
    pub(crate) async fn attest(self: SharedService, attestation: Attestation) -> Result<AttestAnswer, Refusal> {
        let now = self.now();
        let runtime_data =
            RuntimeData::read(&attestation.runtime_data).map_err(|error| Refusal::Malformed(chain(&error)))?;
        let challenge_at = self
            .challenger
            .recognise(&runtime_data.nonce, now)
            .map_err(|error| Refusal::NotAttested(error.to_string()))?;
        let guest = guest(&runtime_data.tee_pubkey)?;
        // The token tells what was bound, but the licence: it is a bearer's secret, and large.
        let mut bound = attestation.runtime_data.clone();
        bound.remove("license");
        let bound = Value::Object(bound);
        let evidence = self.clone().verify_evidence(attestation, now).await?;
        let granted = match &runtime_data.workload {
            None => None,
            Some(workload) => {
                let asked = Asked { runtime_data: &runtime_data, workload, lease: LeaseId(guest.key().thumbprint()) };
                Some(self.decide(&asked, &evidence, challenge_at, now).await?)
            }
        };
        let session = Session {
            tee_pubkey: runtime_data.tee_pubkey,
            lease: granted.as_ref().map(|granted| granted.lease.id.clone()),
            license: granted.as_ref().map(|granted| granted.license.clone()),
            product: granted.as_ref().map(|granted| granted.product.to_string()),
            workload: runtime_data.workload,
            simulated: evidence.is_simulated(),
        };
        let claims = serde_json::to_value(evidence.claims()).map_err(crate::store::StoreError::from)?;
        let policy = granted.as_ref().map(|granted| granted.policy.as_str());
        let token = self.tokens.issue(&session, &claims, &bound, policy, now)?;
        let receipt = match granted.as_ref().and_then(|granted| granted.entry) {
            Some(entry) => Some(self.receipt(entry).await?),
            None => None,
        };
        let (lease, obligations) = granted.map(|granted| (granted.lease, granted.obligations)).unzip();
        Ok(AttestAnswer { token, lease, obligations, receipt, simulated: evidence.is_simulated() })
    }

    /// Answers `GET /kbs/v0/resource/…`: the key, encrypted to the attested guest.
    pub(crate) async fn release(&self, token: Option<&str>, path: &str) -> Result<String, Refusal> {
        let now = self.now();
        let session = self.session(token, now)?;
        let path: ResourcePath = path.parse().map_err(|error| Refusal::Malformed(chain(&error)))?;
        let unknown = || Refusal::Unknown(format!("there is no resource `{path}`"));
        if path.kind != ResourcePath::IMAGE_KEY {
            return Err(unknown());
        }
        let sealed = self.store.sealed_key(&path.product, &path.tag).await?.ok_or_else(unknown)?;
        if let Some(reason) = self.release_refusal(&session, &path, now).await? {
            let body = json!({
                "resource": path.to_string(), "lease": session.lease, "license": session.license,
                "simulated": session.simulated, "reasons": [reason],
            });
            let entry = self.store.record(AuditKind::Denied, &body, now).await?;
            return Err(Refusal::Denied { reasons: vec![reason], entry: Some(entry) });
        }
        let key = self.key_sealer.open(&sealed, path.to_string().as_bytes())?;
        let answer = jwe::encrypt(&key, &[guest(&session.tee_pubkey)?])?;
        let body = json!({
            "resource": path.to_string(), "lease": session.lease, "license": session.license,
            "manifest_digest": session.workload.map(|workload| workload.manifest_digest),
            "simulated": session.simulated,
        });
        // Nothing leaves without its entry.
        self.store.record(AuditKind::KeyReleased, &body, now).await?;
        Ok(answer.to_json().map_err(crate::store::StoreError::from)?)
    }

    /// Ends the session's own lease: the workload has stopped. A long lease outlives its token, which serves here all the
    /// same: a seat would stay taken otherwise.
    pub(crate) async fn end_own_lease(&self, token: Option<&str>) -> Result<(), Refusal> {
        let now = self.now();
        let token = token.ok_or_else(|| Refusal::NotAttested("there is no attestation token".to_owned()))?;
        let session = self.tokens.check_for_return(token).map_err(|error| Refusal::NotAttested(error.to_string()))?;
        let Some(lease) = session.lease else { return Err(Refusal::Unknown("the session has no lease".to_owned())) };
        self.store.end_lease(&lease, "the workload stopped", now).await?;
        Ok(())
    }

    fn session(&self, token: Option<&str>, now: Timestamp) -> Result<Session, Refusal> {
        let token = token.ok_or_else(|| Refusal::NotAttested("there is no attestation token".to_owned()))?;
        self.tokens.check(token, now).map_err(|error| Refusal::NotAttested(error.to_string()))
    }

    async fn release_refusal(
        &self,
        session: &Session,
        path: &ResourcePath,
        now: Timestamp,
    ) -> Result<Option<String>, Refusal> {
        let (Some(workload), Some(lease)) = (&session.workload, &session.lease) else {
            return Ok(Some(
                "the guest stated no workload and no licence, so nothing can be released to it".to_owned(),
            ));
        };
        if session.product.as_deref() != Some(path.product.as_str()) {
            return Ok(Some(format!("the guest was attested for another product than {}", path.product)));
        }
        let manifests = self.store.manifests_of_key(&path.tag).await?;
        if !manifests.iter().any(|manifest| manifest.digest == workload.manifest_digest) {
            return Ok(Some(format!("this key is not for manifest {}", workload.manifest_digest)));
        }
        Ok(self.store.lease_refusal(lease, now).await?)
    }

    async fn verify_evidence(
        self: SharedService,
        attestation: Attestation,
        now: Timestamp,
    ) -> Result<VerifiedEvidence, Refusal> {
        let report_data = report_data(&attestation.runtime_data, &attestation.tee_evidence.additional_evidence)
            .map_err(|error| Refusal::Malformed(chain(&error)))?;
        let host_data = match &attestation.init_data {
            None => HostData::Zero,
            Some(init_data) => HostData::Sha256(host_data(init_data.body.as_bytes())),
        };
        let primary = self.verification.complete(attestation.tee_evidence.primary_evidence, now).await?;
        let service = self.clone();
        // Public-key operations take about a millisecond: not on the runtime's own threads.
        let judged = move || service.verification.judge(&primary, report_data, host_data, now);
        let verified = tokio::task::spawn_blocking(judged).await?;
        match verified {
            Some(Ok(evidence)) => Ok(evidence),
            Some(Err(rejected)) => {
                let reasons = reasons(&rejected);
                let body = json!({"reasons": reasons, "stage": "evidence"});
                let entry = self.store.record(AuditKind::Denied, &body, now).await?;
                Err(Refusal::EvidenceRejected { reasons, entry })
            }
            None => Err(Refusal::Malformed("no verifier is set up".to_owned())),
        }
    }

    async fn decide(
        &self,
        asked: &Asked<'_>,
        evidence: &VerifiedEvidence,
        challenge_at: Timestamp,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        let presented = match self.presented_license(asked) {
            Ok(license) => license,
            Err(reason) => return self.deny(asked, evidence, None, Stage::License, vec![reason.into()], now).await,
        };
        // What is in the database holds: the file may be older.
        let license = match self.current_license(&presented, asked, evidence, now).await? {
            Ok(license) => license,
            Err(reason) => {
                return self.deny(asked, evidence, Some(&presented), Stage::License, vec![reason.into()], now).await;
            }
        };
        let registered = self.store.registered_manifests(&asked.workload.manifest_digest).await?;
        let Some(registered_manifest) = registered.iter().find(|manifest| license.products.contains(&manifest.product))
        else {
            let digest = &asked.workload.manifest_digest;
            let reason = match registered.first() {
                None => format!("manifest {digest} is registered for no product"),
                Some(other) => {
                    format!(
                        "manifest {digest} belongs to product {}, licence {} does not cover it",
                        other.product, license.id
                    )
                }
            };
            return self.deny(asked, evidence, Some(&license), Stage::Manifest, vec![reason.into()], now).await;
        };
        let product = registered_manifest.product.clone();
        let platform = Platform::of(evidence.claims());
        let chip_id = evidence.chip_id().to_string();
        let denied = self.store.platform_findings(&chip_id, platform.as_ref()).await?;
        if !denied.is_empty() {
            return self.deny(asked, evidence, Some(&license), Stage::Platform, denied, now).await;
        }
        let input = self.policy_input(asked, evidence, &license, &product, &registered_manifest.image, now).await?;
        let policy = self.policy(&product).await?;
        let policy_digest = policy.digest().to_owned();
        let decision = match policy.evaluate_in_turn(input).await? {
            Ok(decision) => decision,
            Err(error) => {
                let reason = format!("the release policy of product {product} gave no decision: {error}");
                return self.deny(asked, evidence, Some(&license), Stage::Policy, vec![reason.into()], now).await;
            }
        };
        if !decision.allow {
            let findings = if decision.deny.is_empty() {
                let reason = format!("the release policy of product {product} does not allow it and gives no reason");
                vec![reason.into()]
            } else {
                decision.deny
            };
            return self.deny(asked, evidence, Some(&license), Stage::Policy, findings, now).await;
        }
        let request = LeaseRequest {
            id: asked.lease.clone(),
            license: license.id.clone(),
            product: product.clone(),
            manifest_digest: asked.workload.manifest_digest.clone(),
            chip_id,
            platform,
            simulated: evidence.is_simulated(),
            renewal: asked.runtime_data.lease.is_some(),
            challenge_at,
            audit: json!({
                "measurement": evidence.measurement().to_string(), "evidence": evidence.evidence_digest(),
                "policy": policy_digest,
            }),
        };
        match self.store.hold_lease(&request, now).await? {
            LeaseOutcome::Held { lease, entry } => {
                let (obligations, license) = (decision.obligations, license.id.0);
                Ok(Granted { lease, obligations, product, license, policy: policy_digest, entry })
            }
            LeaseOutcome::Denied { reason, entry } => {
                Err(Refusal::Denied { reasons: vec![reason], entry: Some(entry) })
            }
            LeaseOutcome::SeatsExhausted { seats, entry } => Err(Refusal::SeatsExhausted { seats, entry }),
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

    /// The licence as it holds now, or why nothing is released under it.
    async fn current_license(
        &self,
        presented: &License,
        asked: &Asked<'_>,
        evidence: &VerifiedEvidence,
        now: Timestamp,
    ) -> Result<Result<License, String>, Refusal> {
        let id = &presented.id;
        let Some(record) = self.store.license(id).await? else {
            return Ok(Err(format!("licence {id} is unknown")));
        };
        let renews = asked.runtime_data.lease.is_some();
        let refusal = if renews { record.refusal_to_go_on(now) } else { record.refusal(now) };
        let license = record.claims;
        let chip_id = evidence.chip_id().to_string();
        let reason = if presented.generation != license.generation {
            Some(format!("licence {id} went to another customer: this file of it opens nothing any more"))
        } else if !license.platforms.is_empty() && !license.platforms.contains(&chip_id) {
            Some(format!("licence {id} is bound to other chips than {chip_id}"))
        } else {
            refusal
        };
        Ok(reason.map_or(Ok(license), Err))
    }

    async fn policy_input(
        &self,
        asked: &Asked<'_>,
        evidence: &VerifiedEvidence,
        license: &License,
        product: &ProductName,
        image: &str,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        // Apart, so that a policy that knows of no retirement accepts no retired one.
        let (references, retired): (Vec<_>, Vec<_>) =
            self.store.references(product).await?.into_iter().partition(|reference| reference.counts(now));
        let signers: Vec<String> =
            self.store.signers(product).await?.into_iter().map(|signer| signer.thumbprint).collect();
        Ok(json!({
            "now": now.as_second(),
            "product": product,
            "product_signers": signers,
            "references": references,
            "retired_references": retired,
            "tee": evidence.claims(),
            "platform": evidence.claims().platform(),
            "checks": checks(evidence),
            "license": license,
            "workload": asked.workload,
            "image": image,
            "renewal": asked.runtime_data.lease.is_some(),
        }))
    }

    async fn deny(
        &self,
        asked: &Asked<'_>,
        evidence: &VerifiedEvidence,
        license: Option<&License>,
        stage: Stage,
        findings: Vec<Finding>,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        let reasons = Finding::messages(&findings);
        let body = json!({
            "stage": stage.name(), "reasons": reasons, "findings": findings, "lease": asked.lease, "license": license.map(|license| &license.id),
            "manifest_digest": asked.workload.manifest_digest, "measurement": evidence.measurement().to_string(),
            "chip_id": evidence.chip_id().to_string(), "evidence": evidence.evidence_digest(),
            "simulated": evidence.is_simulated(), "renewal": asked.runtime_data.lease.is_some(),
        });
        let entry = self.store.record(AuditKind::Denied, &body, now).await?;
        Err(Refusal::Denied { reasons, entry: Some(entry) })
    }
}

/// What one guest asks for.
struct Asked<'a> {
    runtime_data: &'a RuntimeData,
    workload: &'a Workload,
    lease: LeaseId,
}

/// What it gets.
struct Granted {
    lease: release_protocol::Lease,
    obligations: release_protocol::Obligations,
    product: ProductName,
    license: String,
    /// The digest of the policy that allowed.
    policy: String,
    /// The audit entry of the grant or renewal.
    entry: Option<u64>,
}

fn guest(key: &TeePubKey) -> Result<Recipient, Refusal> {
    let malformed = |error: &dyn std::error::Error| Refusal::Malformed(format!("`tee-pubkey` cannot be used: {error}"));
    let jwk: Jwk = serde_json::to_value(key).and_then(serde_json::from_value).map_err(|error| malformed(&error))?;
    Recipient::from_jwk(&jwk).map_err(|error| malformed(&error))
}

/// The names of the checks and how each ended; what they found stands in the claims.
fn checks(evidence: &VerifiedEvidence) -> Value {
    evidence.checks().iter().map(|check| json!({"name": check.name, "verdict": check.verdict})).collect()
}

fn reasons(rejected: &EvidenceRejected) -> Vec<String> {
    rejected.failures().map(ToString::to_string).collect()
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
