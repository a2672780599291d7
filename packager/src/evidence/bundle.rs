//! Judging an evidence bundle, offline: the log, the chain of the lease's entries, and for each decision in it the evidence,
//! the licence and the policy. Everything that is believed comes from the log's key, the licence key and the trust roots.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image_signature::SignedPayload;
use jiff::Timestamp;
use jose::jwk::Jwk;
use jose::signing::VerifyingKey;
use launch_evidence::saved::{Question, judge};
use launch_evidence::{HostData, Requirements, UnverifiedDevices, VerifiedEvidence, devices};
use release_protocol::{
    BundledAttestation, BundledSignature, DecisionBasis, EVIDENCE_BUNDLE_FORMAT, EvidenceBundle, LeaseId, License,
    LicenseFile, RelayStatement, RuntimeData, device_nonce, host_data, report_data,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use transparency_log::{Checkpoint, VerifierKey, Witnesses};

use super::trust::Trust;
use attestation_service::{AuditEntry, ReleasePolicy};

/// Why a bundle proves nothing. Each names the entry that it is about, where it is about one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("the bundle is of the form `{0}`, only `{EVIDENCE_BUNDLE_FORMAT}` is known")]
    Format(String),
    #[error("the bundle names another {0} key than the one that it is judged by")]
    Key(&'static str),
    #[error("the bundle has no entries")]
    Empty,
    #[error("an entry of the bundle is not in the log")]
    Receipt(#[from] transparency_log::ReceiptError),
    #[error("the bundle's entries are proven against different checkpoints")]
    Checkpoints,
    #[error("the log of the grant is not believed")]
    Granted(#[from] transparency_log::CheckpointError),
    #[error("the log does not extend the one that the lease was granted by: it was forked")]
    Forked(#[from] transparency_log::ProofError),
    #[error("entry {0} is malformed")]
    Entry(u64),
    #[error("entry {found} does not follow entry {expected}: one was dropped, or belongs to another lease")]
    Chain { found: u64, expected: u64 },
    #[error("what entry {0} rests on is missing")]
    Missing(u64),
    #[error("what entry {0} rests on was altered")]
    Altered(u64),
    #[error("the evidence of entry {entry} fails: {why}")]
    Evidence { entry: u64, why: String },
    #[error("the licence of entry {entry} fails: {why}")]
    License { entry: u64, why: String },
    #[error("the policy of entry {entry} fails: {why}")]
    Policy { entry: u64, why: String },
    #[error("the image's signatures fail: {0}")]
    Signatures(String),
    #[error("the relay's lease does not bear it: {0}")]
    Relay(String),
    #[error("the evidence of the relay's lease fails")]
    Above(#[source] Box<BundleError>),
}

/// What a bundle is judged by.
pub(crate) struct Believed<'a> {
    pub(crate) log: &'a VerifierKey,
    pub(crate) license: &'a VerifyingKey,
    pub(crate) witnesses: &'a Witnesses,
    pub(crate) trust: &'a Trust,
}

/// What a bundle proves.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) entries: Vec<AuditEntry>,
    /// How many decisions were judged again.
    pub(crate) decisions: usize,
    /// Whether any evidence is of a simulated platform.
    pub(crate) simulated: bool,
    /// Thumbprints of those who signed the image, where the bundle has their signatures.
    pub(crate) signers: Vec<String>,
    /// The licence that was presented.
    pub(crate) license: License,
    /// Where a relay held the lease: what it said of itself.
    pub(crate) relay: Option<RelayStatement>,
    /// What tells the guests apart that showed evidence: one, unless the TEE tells none apart.
    pub(crate) guests: BTreeSet<String>,
}

/// Judges everything in a bundle.
pub(crate) fn verify(bundle: &EvidenceBundle, believed: &Believed<'_>) -> Result<Proven, BundleError> {
    if bundle.format != EVIDENCE_BUNDLE_FORMAT {
        return Err(BundleError::Format(bundle.format.chars().take(40).collect()));
    }
    if bundle.log_key != *believed.log {
        return Err(BundleError::Key("log"));
    }
    let license_key = VerifyingKey::from_spki_pem(&bundle.license_key).map_err(|_| BundleError::Key("licence"))?;
    if license_key.thumbprint() != believed.license.thumbprint() {
        return Err(BundleError::Key("licence"));
    }
    let (checkpoint, entries) = entries(bundle, believed)?;
    let decisions: Vec<&AuditEntry> =
        entries.iter().filter(|entry| matches!(entry.kind.as_str(), "lease_granted" | "lease_renewed")).collect();
    for needed in [decisions.first(), decisions.last()].into_iter().flatten() {
        if !bundle.attestations.iter().any(|attestation| attestation.entry == needed.sequence) {
            return Err(BundleError::Missing(needed.sequence));
        }
    }
    let signers = signers(bundle)?;
    let (mut simulated, mut guests, mut said) = (false, BTreeSet::new(), None);
    for attestation in &bundle.attestations {
        let entry = decisions.iter().find(|entry| entry.sequence == attestation.entry);
        let entry = entry.ok_or(BundleError::Entry(attestation.entry))?;
        let (evidence, now) = decision(bundle, attestation, entry, believed)?;
        simulated |= evidence.is_simulated() || entry.body["simulated"] == true;
        guests.extend(evidence.guest_id().map(ToOwned::to_owned));
        if said.as_ref().is_some_and(|before: &Said| !before.is_same_relay(&now)) {
            return Err(BundleError::Relay(format!("entry {} is about a relay with other keys", entry.sequence)));
        }
        said = Some(now);
    }
    let Said { license, relay } = said.ok_or(BundleError::Empty)?;
    Ok(Proven { checkpoint, entries, decisions: bundle.attestations.len(), simulated, signers, license, relay, guests })
}

/// Who signed the image: everybody whom a guest named, or nobody where the bundle has no signatures.
fn signers(bundle: &EvidenceBundle) -> Result<Vec<String>, BundleError> {
    let failed = |why: &str| BundleError::Signatures(why.to_owned());
    let keys = bundle
        .signer_keys
        .iter()
        .map(|pem| VerifyingKey::from_spki_pem(pem).map_err(|_| failed("a signer's key is malformed")))
        .collect::<Result<Vec<_>, _>>()?;
    let inputs = || bundle.attestations.iter().map(|attestation| &attestation.basis.policy_input["workload"]);
    let named: BTreeSet<&str> =
        inputs().filter_map(|workload| workload["signers"].as_array()).flatten().filter_map(Value::as_str).collect();
    if keys.iter().any(|key| !named.contains(key.thumbprint().as_str())) {
        return Err(failed("the bundle has the key of somebody whom no guest named"));
    }
    let Some(digest) = inputs().find_map(|workload| workload["manifest_digest"].as_str()) else {
        return Ok(Vec::new());
    };
    let mut found = BTreeSet::new();
    for BundledSignature { payload, signature } in &bundle.signatures {
        let signature = STANDARD.decode(signature).map_err(|_| failed("a signature is malformed"))?;
        let signed = SignedPayload { payload: payload.clone().into_bytes(), signature };
        let signer =
            signed.signer(digest, &keys).ok_or_else(|| failed("a signature is nobody's whom a guest named"))?;
        found.insert(signer.thumbprint);
    }
    if !bundle.signatures.is_empty() && !named.iter().all(|one| found.contains(*one)) {
        return Err(failed("the signature of somebody whom a guest named is missing"));
    }
    Ok(found.into_iter().collect())
}

/// The log, and the lease's entries in it: each in place, none between them left out.
fn entries(bundle: &EvidenceBundle, believed: &Believed<'_>) -> Result<(Checkpoint, Vec<AuditEntry>), BundleError> {
    let first = bundle.entries.first().ok_or(BundleError::Empty)?;
    let newest = first.checkpoint.verify_witnessed(believed.log, believed.witnesses)?.checkpoint;
    let granted = bundle.granted.verify(believed.log)?;
    bundle.consistency.verify(granted.size, &granted.root, newest.size, &newest.root)?;
    let mut entries = Vec::with_capacity(bundle.entries.len());
    let mut previous = None;
    for receipt in &bundle.entries {
        if receipt.checkpoint != first.checkpoint {
            return Err(BundleError::Checkpoints);
        }
        let verified = receipt.verify(believed.log)?;
        let number = verified.index.get().saturating_add(1);
        let entry: AuditEntry = serde_json::from_slice(verified.entry).map_err(|_| BundleError::Entry(number))?;
        let names = entry.body.get("previous").and_then(Value::as_u64);
        if entry.sequence != number || entry.body["lease"] != bundle.lease.0.as_str() {
            return Err(BundleError::Entry(number));
        }
        if names != previous {
            return Err(BundleError::Chain { found: number, expected: names.unwrap_or_default() });
        }
        previous = Some(number);
        entries.push(entry);
    }
    let is_grant = entries.first().is_some_and(|entry| entry.kind == "lease_granted");
    if !is_grant || granted.size.get() != entries.first().map_or(0, |entry| entry.sequence) {
        return Err(BundleError::Entry(granted.size.get()));
    }
    Ok((newest, entries))
}

/// What a guest said, and proved to have said.
struct Said {
    license: License,
    relay: Option<RelayStatement>,
}

impl Said {
    /// Where it is a relay's: whether what hangs by its keys is the same as in `other`.
    fn is_same_relay(&self, other: &Self) -> bool {
        let keys = |said: &Self| said.relay.as_ref().map(|relay| (relay.log_key.clone(), relay.license_key.clone()));
        keys(self) == keys(other)
    }
}

/// One decision, judged again; gives what the guest had proven.
fn decision(
    bundle: &EvidenceBundle,
    attestation: &BundledAttestation,
    entry: &AuditEntry,
    believed: &Believed<'_>,
) -> Result<(VerifiedEvidence, Said), BundleError> {
    let number = entry.sequence;
    let basis = &attestation.basis;
    let canonical = serde_json_canonicalizer::to_vec(basis).map_err(|_| BundleError::Altered(number))?;
    if entry.body["basis"] != hex::encode(Sha256::digest(canonical)) {
        return Err(BundleError::Altered(number));
    }
    let evidence = evidence(basis, entry, believed)?;
    let said = license(bundle, basis, entry, &evidence, believed)?;
    policy(bundle, basis, entry)?;
    Ok((evidence, said))
}

fn evidence(
    basis: &DecisionBasis,
    entry: &AuditEntry,
    believed: &Believed<'_>,
) -> Result<VerifiedEvidence, BundleError> {
    let failed = |why: String| BundleError::Evidence { entry: entry.sequence, why };
    let sent = &basis.attestation;
    let bound = report_data(&sent.runtime_data, &sent.tee_evidence.additional_evidence)
        .map_err(|error| failed(error.to_string()))?;
    let host = sent.init_data.as_ref().map_or(HostData::Zero, |data| HostData::Sha256(host_data(data.body.as_bytes())));
    let primary = &sent.tee_evidence.primary_evidence;
    let verifier = believed.trust.verifier(primary).ok_or_else(|| failed("no verifier knows it".to_owned()))?;
    let question = Question {
        report_data: Some(bound),
        host_data: Some(host),
        requirements: Requirements::default(),
        at: entry.at,
    };
    let mut answer = judge(verifier, primary, &question);
    let Some(evidence) = answer.evidence.take() else {
        let why = answer.failures().next().map_or_else(|| "it cannot be read".to_owned(), ToString::to_string);
        return Err(failed(why));
    };
    if entry.body["evidence"] != evidence.evidence_digest()
        || entry.body["measurement"] != evidence.measurement().to_string()
    {
        return Err(failed("its entry is about other evidence".to_owned()));
    }
    let nonce = device_nonce(&sent.runtime_data).map_err(|error| failed(error.to_string()))?;
    // Who grants may have left unverified devices to the policy, which is judged again by what it was told of them.
    let devices = devices::judge(&sent.tee_evidence.additional_evidence, &nonce, UnverifiedDevices::LeaveToPolicy)
        .map_err(|rejected| failed(rejected.to_string()))?;
    let evidence = evidence.with_devices(devices);
    let told = basis.policy_input.get("devices").cloned().unwrap_or_else(|| json!([]));
    if told != serde_json::to_value(evidence.devices()).unwrap_or_default() {
        return Err(failed("the policy was told of other devices".to_owned()));
    }
    if basis.policy_input["tee"]["measurement"]
        != serde_json::to_value(evidence.claims()).unwrap_or_default()["measurement"]
    {
        return Err(failed("the policy was asked about another measurement".to_owned()));
    }
    Ok(evidence)
}

/// The guest's own words: that it is the lease's guest, what it ran or that it is a relay, and under which licence.
fn license(
    bundle: &EvidenceBundle,
    basis: &DecisionBasis,
    entry: &AuditEntry,
    evidence: &VerifiedEvidence,
    believed: &Believed<'_>,
) -> Result<Said, BundleError> {
    let failed = |why: &str| BundleError::License { entry: entry.sequence, why: why.to_owned() };
    let (said, stated_by) = RuntimeData::read(&basis.attestation.runtime_data)
        .map_err(|_| failed("the guest's runtime data are malformed"))?
        .completed(basis.attestation.init_data.as_ref());
    let key: Jwk = serde_json::to_value(&said.tee_pubkey)
        .and_then(serde_json::from_value)
        .map_err(|_| failed("the guest's key is malformed"))?;
    let (thumbprint, guest_id) = (key.key.thumbprint(), evidence.guest_id());
    let lease = match said.relay {
        Some(_) => LeaseId::of_relay(thumbprint, guest_id),
        None => LeaseId::of(stated_by, thumbprint, guest_id),
    };
    if lease != bundle.lease {
        return Err(failed("the lease belongs to another guest or another guest's key"));
    }
    match (said.workload, &said.relay) {
        (Some(workload), None) if entry.body["manifest_digest"] == workload.manifest_digest => {
            // Entries from before they named the signers name none.
            if entry.body.get("signers").is_some_and(|named| *named != Value::from(workload.signers)) {
                return Err(failed("the entry names others who signed the image than the guest did"));
            }
        }
        (None, Some(relay)) if entry.body["manifest_digest"] == RelayStatement::IN_PLACE_OF_MANIFEST => {
            if entry.body["relay"] != relay.url.as_str() {
                return Err(failed("the entry names another relay"));
            }
        }
        (_, None) => return Err(failed("the lease was granted for another image")),
        (_, Some(_)) => return Err(failed("the lease was granted for an image, and a relay showed the evidence")),
    }
    let file: LicenseFile = said
        .license
        .as_deref()
        .ok_or_else(|| failed("none was presented"))?
        .parse()
        .map_err(|_| failed("it is malformed"))?;
    let license = file
        .verify(std::slice::from_ref(believed.license))
        .map_err(|_| failed("it is not signed by the vendor's licence key"))?;
    if entry.body["license"] != license.id.0.as_str() {
        return Err(failed("its entry is about another one"));
    }
    if license.relay != said.relay.is_some() {
        return Err(failed("a relay's licence starts no workload, nor a workload's licence a relay"));
    }
    Ok(Said { license, relay: said.relay })
}

fn policy(bundle: &EvidenceBundle, basis: &DecisionBasis, entry: &AuditEntry) -> Result<(), BundleError> {
    let failed = |why: String| BundleError::Policy { entry: entry.sequence, why };
    let named = entry.body["policy"].as_str().unwrap_or_default();
    let digest = |source: &str| format!("sha256:{}", hex::encode(Sha256::digest(source)));
    let source = bundle
        .policies
        .iter()
        .find(|source| digest(source) == named)
        .ok_or_else(|| failed(format!("the bundle has no policy with the digest {named}")))?;
    let decision = ReleasePolicy::compile(source)
        .and_then(|policy| policy.evaluate(&basis.policy_input))
        .map_err(|error| failed(error.to_string()))?;
    if decision.allow { Ok(()) } else { Err(failed("it does not allow what was granted".to_owned())) }
}

/// A moment as people read it.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
