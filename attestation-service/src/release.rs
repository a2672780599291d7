//! The key broker's steps: a challenge, evidence judged, what it may have decided (`decision.rs`), the key to the guest.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jose::Jwk;
use jose::jwe::{self, Recipient};
use launch_evidence::{EvidenceRejected, HostData, VerifiedEvidence};
use release_protocol::{
    AttestAnswer, Attestation, Challenge, LeaseId, LicenseId, RelayStatement, Request, ResourcePath, RuntimeData,
    TeePubKey, device_nonce, host_data, report_data,
};
use serde_json::{Value, json};

use crate::decision::{Asked, Subject};
use crate::endorsement::EndorsementError;
use crate::service::{Service, ServiceError, SharedService};
use crate::store::{AuditKind, EndedBy, KeyRules, ReleaseOutcome, ReleaseRequest, Rules, StoreError, TRIES};
use crate::token::Session;
use crate::verification::Bound;

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
        Ok(Challenge {
            nonce: self.custodian.working().challenge(self.now())?,
            extra_params: Value::String(String::new()),
        })
    }

    /// Answers `POST /kbs/v0/attest`: judges evidence and, where a workload is stated, the whole release.
    pub(crate) async fn attest(self: SharedService, attestation: Attestation) -> Result<AttestAnswer, Refusal> {
        let now = self.now();
        let (runtime_data, stated_by) = RuntimeData::read(&attestation.runtime_data)
            .map_err(|error| Refusal::Malformed(chain(&error)))?
            .completed(attestation.init_data.as_ref());
        let challenge_at = self
            .custodian
            .working()
            .recognise(&runtime_data.nonce, now)
            .map_err(|error| Refusal::NotAttested(error.to_string()))?;
        let guest = guest(&runtime_data.tee_pubkey)?;
        let subject = match (&runtime_data.workload, &runtime_data.relay) {
            (Some(_), Some(_)) => return Err(Refusal::Malformed("a relay runs no workload of its own".to_owned())),
            (workload, relay) => workload.as_ref().map(Subject::Workload).or(relay.as_ref().map(Subject::Relay)),
        };
        // The token tells what was bound, but the licence: it is a bearer's secret, and large.
        let mut bound = attestation.runtime_data.clone();
        bound.remove("license");
        let bound = Value::Object(bound);
        let (evidence, attestation) = self.clone().verify_evidence(attestation, now).await?;
        let granted = match subject {
            None => None,
            Some(subject) => {
                let (thumbprint, guest_id) = (guest.key().thumbprint(), evidence.guest_id());
                let lease = match subject {
                    Subject::Workload(_) => LeaseId::of(stated_by, thumbprint, guest_id),
                    Subject::Relay(_) => LeaseId::of_relay(thumbprint, guest_id),
                };
                let (runtime_data, evidence) = (&runtime_data, &evidence);
                let asked = Asked {
                    runtime_data,
                    subject,
                    stated_by,
                    lease,
                    evidence,
                    attestation,
                    challenge_at,
                    by_file: None,
                    now,
                };
                Some(self.decide(&asked).await?)
            }
        };
        let session = Session {
            tee_pubkey: runtime_data.tee_pubkey,
            lease: granted.as_ref().map(|granted| granted.lease.id.clone()),
            license: granted.as_ref().map(|granted| granted.license.clone()),
            // What is news of any of its products is news to a relay.
            product: granted
                .as_ref()
                .filter(|granted| granted.delegated.is_none())
                .map(|granted| granted.product.to_string()),
            delegated: granted.as_ref().and_then(|granted| granted.delegated.clone()),
            workload: runtime_data.workload,
            simulated: evidence.is_simulated(),
        };
        let claims = serde_json::to_value(evidence.claims()).map_err(StoreError::from)?;
        let policy = granted.as_ref().map(|granted| granted.policy.as_str());
        let token = self.tokens.issue(&session, &claims, &bound, policy, now)?;
        let written = granted.as_ref().and_then(|granted| Some((granted.entry?, granted.grown.as_ref())));
        let receipt = match written {
            Some((entry, grown)) => Some(self.receipt_of(entry, grown).await?),
            None => None,
        };
        // Read before anything was decided: what changed meanwhile makes the guest renew.
        let news_since = granted.as_ref().map(|granted| granted.news_since);
        let (lease, obligations) = granted.map(|granted| (granted.lease, granted.obligations)).unzip();
        Ok(AttestAnswer { token, lease, obligations, receipt, news_since, simulated: evidence.is_simulated() })
    }

    /// Answers `GET /kbs/v0/resource/…`: the key or secret, encrypted to the attested guest.
    pub(crate) async fn release(&self, token: Option<&str>, path: &str) -> Result<String, Refusal> {
        let now = self.now();
        let session = self.session(token, now)?;
        let path: ResourcePath = path.parse().map_err(|error| Refusal::Malformed(chain(&error)))?;
        let mut rules = self.store.known_rules();
        for _ in 0..TRIES {
            match self.release_by(&rules, &session, &path, now).await {
                Err(Refusal::Internal(ServiceError::Store(StoreError::Outdated))) => {}
                answer => return answer,
            }
            rules = self.store.current_rules().await?;
        }
        Err(StoreError::Outdated.into())
    }

    async fn release_by(
        &self,
        rules: &Rules,
        session: &Session,
        path: &ResourcePath,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let key = match path.kind.as_str() {
            ResourcePath::IMAGE_KEY => self.store.key_by(rules, &path.product, &path.tag).await?,
            _ => self.store.sealed_secret(path).await?.map(|sealed| Arc::new(KeyRules::of_secret(sealed))),
        };
        let key = key.ok_or_else(|| Refusal::Unknown(format!("there is no resource `{path}`")))?;
        let denied = |reasons: &[String]| {
            json!({
                "resource": path.to_string(), "lease": session.lease, "license": session.license,
                "simulated": session.simulated, "reasons": reasons,
            })
        };
        let (manifest, lease, license) = match usable(session, path, &key.manifests) {
            Ok(usable) => usable,
            Err(reason) => {
                // A key that was bound to another manifest just now is.
                if self.store.current_rules().await?.version() != rules.version() {
                    return Err(StoreError::Outdated.into());
                }
                let entry = self.store.record(AuditKind::Denied, &denied(std::slice::from_ref(&reason)), now).await?;
                return Err(Refusal::Denied { reasons: vec![reason], entry: Some(entry) });
            }
        };
        let Some(license) = self.store.license_by(rules, &license).await? else {
            return Err(StoreError::Value("licence of a session").into());
        };
        let plain = match self.custodian.unwrap(&key.sealed, &path.to_string()).await {
            Ok(plain) => plain,
            // A key that came under another master key just now, and whose former one is gone.
            Err(_) if self.store.current_rules().await?.version() != rules.version() => {
                return Err(StoreError::Outdated.into());
            }
            Err(error) => return Err(error.into()),
        };
        let answer = jwe::encrypt(&plain, &[guest(&session.tee_pubkey)?])?;
        let released = json!({
            "resource": path.to_string(), "lease": lease, "license": session.license, "product": path.product,
            "manifest_digest": manifest, "simulated": session.simulated,
        });
        let request = ReleaseRequest {
            lease: lease.clone(),
            license,
            denials: self.store.denials_by(rules).await?,
            rules: rules.version(),
            released,
            denied: denied(&[]),
        };
        // Nothing leaves without its entry, nor by what is not in force any more.
        match self.store.record_release(request, now).await? {
            ReleaseOutcome::Released => Ok(answer.to_json().map_err(StoreError::from)?),
            ReleaseOutcome::Denied { reason, entry } => {
                Err(Refusal::Denied { reasons: vec![reason], entry: Some(entry) })
            }
            ReleaseOutcome::Outdated => Err(StoreError::Outdated.into()),
        }
    }

    /// Ends the session's own lease: the workload has stopped. A long lease outlives its token, which serves here all the
    /// same: a seat would stay taken otherwise.
    pub(crate) async fn end_own_lease(&self, token: Option<&str>) -> Result<(), Refusal> {
        let now = self.now();
        let token = token.ok_or_else(|| Refusal::NotAttested("there is no attestation token".to_owned()))?;
        let session = self.tokens.check_for_return(token).map_err(|error| Refusal::NotAttested(error.to_string()))?;
        let Some(lease) = session.lease else { return Err(Refusal::Unknown("the session has no lease".to_owned())) };
        self.store.end_lease(&lease, EndedBy::Guest, "the workload stopped", now).await?;
        Ok(())
    }

    pub(crate) fn session(&self, token: Option<&str>, now: Timestamp) -> Result<Session, Refusal> {
        let token = token.ok_or_else(|| Refusal::NotAttested("there is no attestation token".to_owned()))?;
        self.tokens.check(token, now).map_err(|error| Refusal::NotAttested(error.to_string()))
    }

    pub(crate) async fn verify_evidence(
        self: SharedService,
        mut attestation: Attestation,
        now: Timestamp,
    ) -> Result<(VerifiedEvidence, Attestation), Refusal> {
        let malformed = |error| Refusal::Malformed(chain(&error));
        let bound = Bound {
            report_data: report_data(&attestation.runtime_data, &attestation.tee_evidence.additional_evidence)
                .map_err(malformed)?,
            host_data: match &attestation.init_data {
                None => HostData::Zero,
                Some(init_data) => HostData::Sha256(host_data(init_data.body.as_bytes())),
            },
            device_nonce: device_nonce(&attestation.runtime_data).map_err(malformed)?,
        };
        let primary = std::mem::take(&mut attestation.tee_evidence.primary_evidence);
        attestation.tee_evidence.primary_evidence = self.verification.complete(primary, now).await?;
        let service = self.clone();
        // Public-key operations take about a millisecond: not on the runtime's own threads.
        let judged = move || (service.verification.judge(&attestation.tee_evidence, &bound, now), attestation);
        let (verified, attestation) = tokio::task::spawn_blocking(judged).await?;
        match verified {
            Some(Ok(evidence)) => Ok((evidence, attestation)),
            Some(Err(rejected)) => {
                let reasons = reasons(&rejected);
                let body = json!({"reasons": reasons, "stage": "evidence"});
                let entry = self.store.record(AuditKind::Denied, &body, now).await?;
                Err(Refusal::EvidenceRejected { reasons, entry })
            }
            None => Err(Refusal::Malformed("no verifier is set up".to_owned())),
        }
    }
}

/// What a session that may ask for this key was attested for, and holds; or why it may not.
fn usable<'s>(
    session: &'s Session,
    path: &ResourcePath,
    manifests: &[String],
) -> Result<(&'s str, &'s LeaseId, LicenseId), String> {
    if let (Some(products), Some(lease), Some(license)) = (&session.delegated, &session.lease, &session.license) {
        if path.kind != ResourcePath::IMAGE_KEY || manifests.is_empty() {
            return Err(format!("a relay gets the keys of images that are packed, and nothing else: not `{path}`"));
        }
        if !products.contains(&path.product) {
            return Err(format!("the relay's licence does not cover product {}", path.product));
        }
        return Ok((RelayStatement::IN_PLACE_OF_MANIFEST, lease, LicenseId(license.clone())));
    }
    let (Some(workload), Some(lease), Some(license)) = (&session.workload, &session.lease, &session.license) else {
        return Err("neither the guest nor its initialisation data (`sealift.license`, `sealift.manifest`) state a licence and \
                    the image that is to run, so nothing can be released"
            .to_owned());
    };
    if session.product.as_deref() != Some(path.product.as_str()) {
        return Err(format!("the guest was attested for another product than {}", path.product));
    }
    if path.kind == ResourcePath::IMAGE_KEY && !manifests.contains(&workload.manifest_digest) {
        return Err(format!("this key is not for manifest {}", workload.manifest_digest));
    }
    Ok((&workload.manifest_digest, lease, LicenseId(license.clone())))
}

pub(crate) fn guest(key: &TeePubKey) -> Result<Recipient, Refusal> {
    let malformed = |error: &dyn std::error::Error| Refusal::Malformed(format!("`tee-pubkey` cannot be used: {error}"));
    let jwk: Jwk = serde_json::to_value(key).and_then(serde_json::from_value).map_err(|error| malformed(&error))?;
    Recipient::from_jwk(&jwk).map_err(|error| malformed(&error))
}

fn reasons(rejected: &EvidenceRejected) -> Vec<String> {
    rejected.failures().map(ToString::to_string).collect()
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
