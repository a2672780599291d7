//! Why something was denied: one finding a reason, for people, guests and the audit log. Who denies stands in [`Stage`],
//! with what to do about it. Nothing here decides.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// One reason of a denial, and as far as it is known which claim it is about and what to do.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The reason, for a reader. The guest gets it.
    pub message: String,
    /// The member of the policy's input that it is about, such as `tee.measurement`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// What was wanted there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
    /// What was found there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Value>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// The object form, exactly.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    message: String,
    claim: Option<String>,
    expected: Option<Value>,
    found: Option<Value>,
    fix: Option<String>,
}

/// From a string, or from an object of which only `message` is mandatory.
impl<'de> Deserialize<'de> for Finding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(message) => Ok(Self::new(message)),
            object @ Value::Object(_) => {
                let Members { message, claim, expected, found, fix } =
                    serde_json::from_value(object).map_err(D::Error::custom)?;
                Ok(Self { message, claim, expected, found, fix })
            }
            other => Err(D::Error::custom(format!(
                "a reason is a string or an object, not `{}`",
                cut(other.to_string(), 64)
            ))),
        }
    }
}

impl From<String> for Finding {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl Finding {
    /// The longest message or fix that is kept, in bytes.
    pub const TEXT_MAX: usize = 1024;
    /// The longest name of a claim that is kept, in bytes.
    pub const CLAIM_MAX: usize = 256;
    /// The longest `expected` or `found` that is kept, in bytes of JSON.
    pub const VALUE_MAX: usize = 4096;
    /// How many findings of one denial are kept.
    pub const COUNT_MAX: usize = 32;

    /// A reason that is about no claim.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), claim: None, expected: None, found: None, fix: None }
    }

    /// Sorts by message, drops what is said twice, and cuts what is too many or too long: a policy is the vendor's, but what
    /// it says may be its input's, and that is the guest's. What was cut ends in `…`.
    pub(crate) fn bounded(mut findings: Vec<Self>) -> Vec<Self> {
        findings.sort_by(|one, other| one.message.cmp(&other.message));
        findings.dedup();
        if let Some(more) = findings.len().checked_sub(Self::COUNT_MAX).filter(|more| *more > 0) {
            findings.truncate(Self::COUNT_MAX - 1);
            findings.push(Self::new(format!("and {} more reasons", more + 1)));
        }
        findings.into_iter().map(Self::shortened).collect()
    }

    fn shortened(self) -> Self {
        let value = |value: Value| {
            let json = value.to_string();
            if json.len() <= Self::VALUE_MAX { value } else { Value::String(cut(json, Self::VALUE_MAX)) }
        };
        Self {
            message: cut(self.message, Self::TEXT_MAX),
            claim: self.claim.map(|claim| cut(claim, Self::CLAIM_MAX)),
            expected: self.expected.map(value),
            found: self.found.map(value),
            fix: self.fix.map(|fix| cut(fix, Self::TEXT_MAX)),
        }
    }

    /// The messages alone.
    pub(crate) fn messages(findings: &[Self]) -> Vec<String> {
        findings.iter().map(|finding| finding.message.clone()).collect()
    }
}

fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

/// Which judgement denied. Audit entries carry its name as `stage`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stage {
    /// The evidence did not verify.
    Evidence,
    /// The licence does not hold, or is another's.
    License,
    /// The manifest is not registered, or for a product that the licence does not cover.
    Manifest,
    /// The vendor has denied the platform.
    Platform,
    /// The product's release policy.
    Policy,
    /// The lease is over, or was another guest's.
    Lease,
    /// All seats are taken.
    Seats,
    /// The key is another image's.
    Key,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Evidence,
        Self::License,
        Self::Manifest,
        Self::Platform,
        Self::Policy,
        Self::Lease,
        Self::Seats,
        Self::Key,
    ];

    /// The name in audit entries, and what to do where a finding says nothing better: the one place for both.
    fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Evidence => (
                "evidence",
                "the reason names the check that failed: bring the platform's firmware and certificates up to date, launch the guest \
                 again, and let its shim attest anew",
            ),
            Self::License => (
                "license",
                "look at the licence with `sealift license show`, and issue one that holds for this product and platform with \
                 `sealift license issue`",
            ),
            Self::Manifest => (
                "manifest",
                "run the image by the reference that `sealift pack` printed, under a licence for its product; pack it again where \
                 its key was never registered",
            ),
            Self::Platform => (
                "platform",
                "run on another platform or bring its firmware up to date; `sealift platform list` shows what is denied, `sealift \
                 platform allow` lifts it",
            ),
            Self::Policy => (
                "policy",
                "read the product's policy with `sealift policy show`, and try a change with `sealift policy test`",
            ),
            Self::Lease => ("lease", "start the workload again: it attests anew and gets a lease of its own"),
            Self::Seats => (
                "seats",
                "stop an instance, end its lease with `sealift lease end`, or issue a licence with more seats",
            ),
            Self::Key => (
                "key",
                "attest for the image that the key belongs to, under a licence and a lease that hold; `sealift inspect` shows \
                 which key seals an image",
            ),
        }
    }

    /// The name in audit entries.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// What to do, in one sentence.
    pub fn fix(self) -> &'static str {
        self.entry().1
    }

    /// The judgement that the body of an audit entry names. Entries that name none are of keys where they name a resource.
    pub fn of_entry(body: &Value) -> Option<Self> {
        match body.get("stage").and_then(Value::as_str) {
            Some(name) => Self::ALL.into_iter().find(|stage| stage.name() == name),
            None => body.get("resource").map(|_| Self::Key),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_is_a_string_or_an_object_with_a_message() {
        assert_eq!(serde_json::from_value::<Finding>(json!("no")).unwrap(), Finding::new("no"));
        let full = json!({"message": "no", "claim": "tee.vmpl", "expected": [0], "found": 1, "fix": "ask at 0"});
        let finding: Finding = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(serde_json::to_value(finding).unwrap(), full);
        for bad in [json!(1), json!({}), json!({"message": 1}), json!({"message": "no", "fixes": "x"}), json!(["no"])] {
            assert!(serde_json::from_value::<Finding>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn findings_are_bounded_in_number_and_size() {
        let long = Finding {
            message: "é".repeat(2000),
            claim: Some("c".repeat(2000)),
            expected: Some(json!(["x".repeat(9000)])),
            found: Some(json!("short")),
            fix: Some("f".repeat(2000)),
        };
        let bounded = Finding::bounded(vec![long]);
        let size = serde_json::to_string(&bounded).unwrap().len();
        assert!(size < 2 * (Finding::TEXT_MAX + Finding::VALUE_MAX) + Finding::CLAIM_MAX, "{size}");
        assert_eq!(bounded[0].found, Some(json!("short")));
        assert!(bounded[0].message.ends_with('…') && bounded[0].message.starts_with("éé"));

        let many = (0..100).map(|number| Finding::new(format!("reason {number:03}"))).collect();
        let bounded = Finding::bounded(many);
        assert_eq!(bounded.len(), Finding::COUNT_MAX);
        assert_eq!(bounded.last().unwrap().message, "and 69 more reasons");
        assert_eq!(Finding::bounded(vec![Finding::new("b"), Finding::new("a"), Finding::new("b")]).len(), 2);
    }

    #[test]
    fn every_stage_is_found_by_its_name() {
        for stage in Stage::ALL {
            assert_eq!(Stage::of_entry(&json!({"stage": stage.name()})), Some(stage));
        }
        assert_eq!(Stage::of_entry(&json!({"resource": "a/b/c"})), Some(Stage::Key));
        assert_eq!(Stage::of_entry(&json!({})), None);
    }
}
