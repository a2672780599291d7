//! What the token says of the evidence: an appraisal by EAR (draft-ietf-rats-ear), its trustworthiness vector by AR4SI
//! (draft-ietf-rats-ar4si). The numbers are claims of AR4SI's section 2.3; the status follows from them.

use serde_json::{Map, Value, json};

/// No claim is made.
const NO_CLAIM: i8 = 0;
/// Configuration: known and approved. Hardware: genuine and supported.
const APPROVED: i8 = 2;
/// Executables: nothing but approved ones was loaded at boot. Configuration: it exposes no known vulnerability.
const APPROVED_BOOT: i8 = 3;
const SAFE_CONFIGURATION: i8 = 3;
/// Hardware: recognised, but known to be vulnerable.
const UNSAFE_HARDWARE: i8 = 32;

/// An AR4SI trustworthiness tier, in EAR's order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Tier {
    None,
    Affirming,
    Warning,
    Contraindicated,
}

impl Tier {
    /// The tier that a claim's value belongs to (AR4SI 2.3.2).
    fn of(claim: i8) -> Self {
        match claim {
            -1..=1 => Self::None,
            2..=31 | -32..=-2 => Self::Affirming,
            32..=95 | -96..=-33 => Self::Warning,
            96.. | ..=-97 => Self::Contraindicated,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}

/// The appraisal of evidence that has verified. `policy` is the digest of the release policy that allowed, where one was
/// asked: only that has judged what booted.
pub(super) fn appraisal(claims: &Value, runtime_data: &Value, policy: Option<&str>) -> Value {
    let vector = vector(claims, policy.is_some());
    // The least that any claim admits.
    let status = vector.iter().map(|(_, claim)| Tier::of(*claim)).max().unwrap_or(Tier::None);
    let vector: Map<String, Value> = vector.into_iter().map(|(name, claim)| (name.to_owned(), claim.into())).collect();
    let tee = claims.get("tee").and_then(Value::as_str).unwrap_or("unknown");
    let mut appraisal = json!({
        "ear.status": status.name(),
        "ear.trustworthiness-vector": vector,
        "ear.veraison.annotated-evidence": {tee: claims, "runtime_data_claims": runtime_data},
    });
    if let Some(policy) = policy {
        // Trustee reads and writes the first, as earlier drafts had it; the second is what the draft has now.
        appraisal["ear.appraisal-policy-id"] = policy.into();
        appraisal["ear.appraisal-policy-ids"] = json!([policy]);
    }
    appraisal
}

fn vector(claims: &Value, decided: bool) -> [(&'static str, i8); 8] {
    let (configuration, executables) = if decided { (APPROVED, APPROVED_BOOT) } else { (SAFE_CONFIGURATION, NO_CLAIM) };
    [
        ("instance-identity", NO_CLAIM),
        ("configuration", configuration),
        ("executables", executables),
        ("file-system", NO_CLAIM),
        ("hardware", hardware(claims)),
        ("runtime-opaque", NO_CLAIM),
        ("storage-opaque", NO_CLAIM),
        ("sourced-data", NO_CLAIM),
    ]
}

/// A simulated platform proves nothing about hardware; of a TD's, Intel says how up to date it is.
fn hardware(claims: &Value) -> i8 {
    let simulated = claims.get("simulated").and_then(Value::as_bool).unwrap_or(true);
    let status = claims.get("tcb_status").and_then(Value::as_str);
    if simulated || status.is_some_and(|status| status != "UpToDate") { UNSAFE_HARDWARE } else { APPROVED }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(claims: &Value, policy: Option<&str>) -> Value {
        appraisal(claims, &json!({"nonce": "n"}), policy)
    }

    #[test]
    fn the_status_follows_from_the_vector() {
        let status = |claims: Value| of(&claims, None)["ear.status"].clone();
        assert_eq!(status(json!({"tee": "snp", "simulated": false})), "affirming");
        assert_eq!(status(json!({"tee": "snp", "simulated": true})), "warning");
        assert_eq!(status(json!({"tee": "tdx", "simulated": false, "tcb_status": "UpToDate"})), "affirming");
        assert_eq!(status(json!({"tee": "tdx", "simulated": false, "tcb_status": "OutOfDate"})), "warning");
        assert_eq!(status(json!({"tee": "snp"})), "warning", "what is not said is not believed");
    }

    #[test]
    fn executables_are_approved_by_a_policy_only() {
        let claims = json!({"tee": "snp", "simulated": false});
        let (decided, attested) = (of(&claims, Some("sha256:ab")), of(&claims, None));
        assert_eq!(decided["ear.trustworthiness-vector"]["executables"], 3);
        assert_eq!(attested["ear.trustworthiness-vector"]["executables"], 0);
        assert_eq!(decided["ear.appraisal-policy-id"], "sha256:ab");
        assert_eq!(decided["ear.appraisal-policy-ids"], json!(["sha256:ab"]));
        assert!(attested.get("ear.appraisal-policy-id").is_none());
    }

    #[test]
    fn evidence_stands_under_the_name_of_its_tee() {
        for tee in ["snp", "tdx", "az-snp-vtpm"] {
            let claims = json!({"tee": tee, "simulated": false});
            let evidence = of(&claims, None)["ear.veraison.annotated-evidence"].clone();
            assert_eq!(evidence, json!({tee: claims, "runtime_data_claims": {"nonce": "n"}}));
        }
    }

    #[test]
    fn tiers_have_the_bounds_of_ar4si() {
        let expected = [
            (Tier::None, vec![-1, 0, 1]),
            (Tier::Affirming, vec![2, 31, -2, -32]),
            (Tier::Warning, vec![32, 95, -33, -96]),
            (Tier::Contraindicated, vec![96, 127, -97, -128]),
        ];
        for (tier, claims) in expected {
            assert!(claims.iter().all(|claim| Tier::of(*claim) == tier), "{tier:?}");
        }
    }
}
