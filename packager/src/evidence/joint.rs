//! Judging joint evidence, offline: each partner's part by that partner's own keys, and then whether all of them and the
//! customer's receipts speak of the same run.

use std::collections::BTreeSet;

use attestation_service::AuditEntry;
use jiff::{SignedDuration, Timestamp};
use jose::signing::VerifyingKey;
use release_protocol::{EvidenceBundle, JOINT_EVIDENCE_FORMAT, JointEvidence};
use serde_json::Value;
use transparency_log::{VerifierKey, Witnesses};

use super::bundle::{Believed, BundleError, Proven, verify};
use super::trust::Trust;

/// Why joint evidence proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JointError {
    #[error("the bundle is of the form `{0}`, only `{JOINT_EVIDENCE_FORMAT}` is known")]
    Format(String),
    #[error("the part of the log {0} fails")]
    Part(String, #[source] BundleError),
    #[error("a part is of the log {0}, which is none that was named")]
    Stranger(String),
    #[error("there is no part of the log {0}")]
    Absent(String),
    #[error("there are two parts of the log {0}")]
    Twice(String),
    #[error("two of the keys that were named are of the log {0}: each partner has a log of its own")]
    SameLog(String),
    #[error("the parts do not speak of the same {what}: {one} by the log {of}, {other} by the log {but}")]
    Differ { what: &'static str, of: String, one: String, but: String, other: String },
    #[error("the leases were not held at the same time: {0} had ended when the last was granted")]
    Apart(String),
    #[error("entry {entry} of the log {log} does not name those who signed the image")]
    NoSigners { entry: u64, log: String },
    #[error("a receipt is of no log that was named, or not in it")]
    Receipt,
    #[error("the customer has a receipt of entry {entry} of the log {log}, and the part has none like it")]
    Contradicts { entry: u64, log: String },
    #[error("the customer has no receipt of the grant, entry {entry} of the log {log}")]
    NoReceipt { entry: u64, log: String },
}

/// By what one partner's part is judged.
pub(crate) struct PartnerKeys {
    pub(crate) log: VerifierKey,
    pub(crate) license: VerifyingKey,
}

/// One partner's part, judged.
pub(crate) struct ProvenPart<'a> {
    pub(crate) bundle: &'a EvidenceBundle,
    pub(crate) log: String,
    pub(crate) proven: Proven,
    /// Numbers of the entries of which the customer has a receipt.
    pub(crate) receipts: BTreeSet<u64>,
}

/// What all parts and receipts agree on.
pub(crate) struct ProvenJoint<'a> {
    pub(crate) manifest_digest: String,
    /// Thumbprints of those who signed it.
    pub(crate) signers: Vec<String>,
    pub(crate) measurement: String,
    /// What tells the one guest from all others, where its TEE does.
    pub(crate) guest: Option<String>,
    pub(crate) parts: Vec<ProvenPart<'a>>,
}

/// Judges everything in joint evidence.
pub(crate) fn verify_joint<'a>(
    evidence: &'a JointEvidence,
    partners: &[PartnerKeys],
    witnesses: &Witnesses,
    trust: &Trust,
) -> Result<ProvenJoint<'a>, JointError> {
    if evidence.format != JOINT_EVIDENCE_FORMAT {
        return Err(JointError::Format(evidence.format.chars().take(40).collect()));
    }
    check_distinct(partners)?;
    if let Some(part) = evidence.parts.iter().find(|part| partners.iter().all(|keys| keys.log != part.log_key)) {
        return Err(JointError::Stranger(label(&part.log_key)));
    }
    let mut parts = Vec::with_capacity(partners.len());
    for keys in partners {
        let log = label(&keys.log);
        let mut found = evidence.parts.iter().filter(|part| part.log_key == keys.log);
        let bundle = found.next().ok_or_else(|| JointError::Absent(log.clone()))?;
        if found.next().is_some() {
            return Err(JointError::Twice(log));
        }
        let believed = Believed { log: &keys.log, license: &keys.license, witnesses, trust };
        let proven = verify(bundle, &believed).map_err(|error| JointError::Part(log.clone(), error))?;
        parts.push(ProvenPart { bundle, log, proven, receipts: BTreeSet::new() });
    }
    let manifest_digest = agreed(&parts, "image", |entry| Some(text(entry, "manifest_digest")))?;
    let measurement = agreed(&parts, "guest", |entry| Some(text(entry, "measurement")))?;
    let signers = agreed(&parts, "signers", signers)?;
    let guest = one_guest(&parts)?;
    check_overlap(&parts)?;
    check_receipts(evidence, partners, &mut parts)?;
    let signers = signers.split(", ").map(ToOwned::to_owned).collect();
    Ok(ProvenJoint { manifest_digest, signers, measurement, guest, parts })
}

/// A log's name and the identity of its key: names alone may be the same.
fn label(log: &VerifierKey) -> String {
    // `NAME+HASH+KEY`, and the key may have a `+` of its own.
    log.to_string().splitn(3, '+').take(2).collect::<Vec<_>>().join("+")
}

fn check_distinct(partners: &[PartnerKeys]) -> Result<(), JointError> {
    for (position, keys) in partners.iter().enumerate() {
        if partners.iter().take(position).any(|other| other.log == keys.log) {
            return Err(JointError::SameLog(label(&keys.log)));
        }
    }
    Ok(())
}

/// The grants and renewals of a part.
fn decisions<'p>(part: &'p ProvenPart<'_>) -> impl Iterator<Item = &'p AuditEntry> {
    let is_decision = |entry: &&AuditEntry| matches!(entry.kind.as_str(), "lease_granted" | "lease_renewed");
    part.proven.entries.iter().filter(is_decision)
}

fn text(entry: &AuditEntry, name: &str) -> String {
    entry.body[name].as_str().unwrap_or_default().to_owned()
}

/// Those who signed the image, each once; none where the entry does not say.
fn signers(entry: &AuditEntry) -> Option<String> {
    let named: BTreeSet<&str> = entry.body["signers"].as_array()?.iter().filter_map(Value::as_str).collect();
    (!named.is_empty()).then(|| named.into_iter().collect::<Vec<_>>().join(", "))
}

/// What every decision of every part says of one thing.
fn agreed(
    parts: &[ProvenPart<'_>],
    what: &'static str,
    of: impl Fn(&AuditEntry) -> Option<String>,
) -> Result<String, JointError> {
    let mut first: Option<(&str, String)> = None;
    for (part, entry) in parts.iter().flat_map(|part| decisions(part).map(move |entry| (part, entry))) {
        let said = of(entry).ok_or_else(|| JointError::NoSigners { entry: entry.sequence, log: part.log.clone() })?;
        match &first {
            None => first = Some((&part.log, said)),
            Some((_, one)) if *one == said => {}
            Some((log, one)) => {
                let (of, one) = ((*log).to_owned(), one.clone());
                return Err(JointError::Differ { what, of, one, but: part.log.clone(), other: said });
            }
        }
    }
    Ok(first.map(|(_, said)| said).unwrap_or_default())
}

/// That it was one guest that all of them granted their leases to. Where one part's evidence does not tell guests apart, the
/// others' do not either: it may be another guest's.
fn one_guest(parts: &[ProvenPart<'_>]) -> Result<Option<String>, JointError> {
    let tell_all = parts.iter().all(|part| !part.proven.guests.is_empty());
    let mut first: Option<(&str, &String)> = None;
    for (part, guest) in parts.iter().flat_map(|part| part.proven.guests.iter().map(move |guest| (part, guest))) {
        match first {
            None => first = Some((&part.log, guest)),
            Some((_, one)) if one == guest => {}
            Some((log, one)) => {
                let (of, one, other) = (log.to_owned(), one.clone(), guest.clone());
                return Err(JointError::Differ { what: "guest", of, one, but: part.log.clone(), other });
            }
        }
    }
    Ok(first.filter(|_| tell_all).map(|(_, guest)| guest.clone()))
}

/// That no lease had ended before the last one was granted.
fn check_overlap(parts: &[ProvenPart<'_>]) -> Result<(), JointError> {
    let granted = |part: &ProvenPart<'_>| part.proven.entries.first().map(|entry| entry.at);
    let last: Option<Timestamp> = parts.iter().filter_map(granted).max();
    for part in parts {
        let ended = part.proven.entries.iter().find(|entry| entry.kind == "lease_ended").map(|entry| entry.at);
        let decided = decisions(part).map(|entry| entry.at);
        if last.is_some_and(|last| is_over(decided, term(part), ended, last)) {
            return Err(JointError::Apart(part.log.clone()));
        }
    }
    Ok(())
}

/// How long a part's lease lived without a renewal, in seconds: by the licence that its decisions rest on, or by its allowance.
fn term(part: &ProvenPart<'_>) -> u64 {
    let by_license = part.bundle.attestations.iter().map(|shown| {
        let of = |name| shown.basis.policy_input["license"][name].as_u64().unwrap_or_default();
        of("lease_seconds").saturating_add(of("grace_seconds"))
    });
    let by_allowance = decisions(part).filter_map(|entry| entry.body["offline_seconds"].as_u64());
    by_license.chain(by_allowance).max().unwrap_or_default()
}

/// Whether a lease was over when the last one was granted: ended, or not renewed in its term, of which its log says nothing.
fn is_over(mut decided: impl Iterator<Item = Timestamp>, term: u64, ended: Option<Timestamp>, last: Timestamp) -> bool {
    let term = SignedDuration::from_secs(i64::try_from(term).unwrap_or(i64::MAX));
    let is_held = |from: Timestamp| from <= last && from.saturating_add(term).is_ok_and(|until| last <= until);
    ended.is_some_and(|ended| ended < last) || !decided.any(is_held)
}

/// That the customer was given what the logs say, and was given every grant.
fn check_receipts(
    evidence: &JointEvidence,
    partners: &[PartnerKeys],
    parts: &mut [ProvenPart<'_>],
) -> Result<(), JointError> {
    for receipt in &evidence.receipts {
        let verified = partners.iter().zip(parts.iter_mut()).find_map(|(keys, part)| {
            let verified = receipt.verify(&keys.log).ok()?;
            Some((verified, part))
        });
        let (verified, part) = verified.ok_or(JointError::Receipt)?;
        let entry = verified.index.get().saturating_add(1);
        let logged =
            part.bundle.entries.iter().any(|logged| logged.index == receipt.index && logged.entry == receipt.entry);
        if !logged {
            return Err(JointError::Contradicts { entry, log: part.log.clone() });
        }
        part.receipts.insert(entry);
    }
    for part in parts.iter() {
        let grant = part.proven.entries.first().map_or(0, |entry| entry.sequence);
        if !part.receipts.contains(&grant) {
            return Err(JointError::NoReceipt { entry: grant, log: part.log.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_was_not_renewed_in_its_term_is_over_though_no_entry_says_so() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let over = |decided: &[i64], ended: Option<i64>| {
            is_over(decided.iter().map(|second| at(*second)), 10, ended.map(at), at(100))
        };
        assert!(!over(&[95], None) && !over(&[90], None) && !over(&[100, 105], None));
        assert!(!over(&[20, 92], Some(100)));
        assert!(over(&[89], None) && over(&[20, 89, 101], None), "lapsed");
        assert!(over(&[95], Some(99)), "ended");
    }
}
