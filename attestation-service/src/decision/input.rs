//! What a release policy is asked, and what it may shorten.

use launch_evidence::VerifiedEvidence;
use release_protocol::{License, ProductName, StatedBy};
use serde_json::{Value, json};

use super::subject::Asked;
use crate::api::Sbom;
use crate::store::{LicenseRecord, ProductRules};

/// A manifest as it was registered for a product of the licence; of a relay, a product without one.
pub(super) struct Registered {
    pub(super) product: ProductName,
    pub(super) image: Option<String>,
    pub(super) sbom: Option<Sbom>,
}

/// What the policy is asked.
pub(super) fn policy_input_of(
    asked: &Asked<'_>,
    license: &License,
    manifest: &Registered,
    product: &ProductRules,
    others_on_chip: u64,
) -> Value {
    // Apart, so that a policy that knows of no retirement accepts no retired one.
    let (references, retired): (Vec<_>, Vec<_>) =
        product.references.iter().partition(|reference| reference.counts(asked.now));
    json!({
        "now": asked.now.as_second(),
        "product": manifest.product,
        "product_signers": product.signers,
        "references": references,
        "retired_references": retired,
        "tee": asked.evidence.claims(),
        "platform": asked.evidence.claims().platform(),
        "devices": asked.evidence.devices(),
        "checks": checks(asked.evidence),
        "license": license,
        "workload": asked.subject.workload(),
        "relay": asked.subject.relay().is_some(),
        "stated_by": stated_by(asked.stated_by),
        "init_data": asked.init_data(),
        "image": manifest.image,
        "sbom": manifest.sbom,
        "renewal": asked.renews(),
        "offline": asked.asks_for_offline(),
        "by_file": asked.by_file.is_some(),
        "others_on_chip": others_on_chip,
    })
}

/// How long the guest may do without the service: as long as the licence says, or less where the policy says so, and never
/// beyond the licence's own end.
pub(super) fn offline_seconds(asked: &Asked<'_>, record: &LicenseRecord, by_policy: Option<u64>) -> Option<u64> {
    let licensed = record.claims.offline_seconds.filter(|_| asked.asks_for_offline())?;
    let end = match record.drain_until.filter(|_| record.is_draining(asked.now)) {
        Some(until) => until.as_second(),
        None => record.claims.valid_until,
    };
    let left = u64::try_from(end - asked.now.as_second()).unwrap_or_default();
    Some(licensed.min(by_policy.unwrap_or(u64::MAX)).min(left)).filter(|seconds| *seconds > 0)
}

/// The names of the checks and how each ended; what they found stands in the claims.
fn checks(evidence: &VerifiedEvidence) -> Value {
    evidence.checks().iter().map(|check| json!({"name": check.name, "verdict": check.verdict})).collect()
}

/// What policies are told.
fn stated_by(stated_by: StatedBy) -> &'static str {
    match stated_by {
        StatedBy::Guest => "guest",
        StatedBy::Launch => "launch",
    }
}
