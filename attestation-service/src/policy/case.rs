//! Cases of a policy: an input and the decision that it must come to. A vendor keeps them beside a policy.

use release_protocol::Obligations;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PolicyDecision, PolicyError, ReleasePolicy};
use crate::finding::Finding;

/// One case, as it stands in a file: `{"input": …, "decision": {"allow", "deny", "obligations"}}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyCase {
    /// The policy's input.
    pub input: Value,
    /// What it must answer.
    decision: Wanted,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    allow: bool,
    #[serde(default)]
    deny: Vec<WantedFinding>,
    /// Absent: not compared.
    obligations: Option<Obligations>,
}

/// A string is compared with the message alone, an object with the whole finding.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum WantedFinding {
    Message(String),
    Whole(Finding),
}

impl WantedFinding {
    fn message(&self) -> &str {
        match self {
            Self::Message(message) => message,
            Self::Whole(finding) => &finding.message,
        }
    }

    fn is(&self, finding: &Finding) -> bool {
        match self {
            Self::Message(message) => *message == finding.message,
            Self::Whole(whole) => whole == finding,
        }
    }
}

impl PolicyCase {
    /// Where the policy's decision differs from the case's, one line each; empty where it does not.
    pub fn differences(&self, policy: &ReleasePolicy) -> Result<Vec<String>, PolicyError> {
        let PolicyDecision { allow, deny, obligations } = policy.evaluate(&self.input)?;
        let mut differences = Vec::new();
        if self.decision.allow != allow {
            differences.push(difference("allow", &self.decision.allow, &allow));
        }
        if let Some(expected) = self.decision.obligations.as_ref().filter(|expected| **expected != obligations) {
            differences.push(difference("obligations", expected, &obligations));
        }
        for expected in self.decision.deny.iter().filter(|expected| !deny.iter().any(|finding| expected.is(finding))) {
            // Where only the rest of a finding differs, its message is there.
            let found = deny.iter().find(|finding| finding.message == expected.message());
            differences.push(match (expected, found) {
                (WantedFinding::Whole(expected), Some(found)) => difference("deny", expected, found),
                _ => format!("deny: expected {:?}, which is not among the reasons", expected.message()),
            });
        }
        let unforeseen =
            |finding: &&Finding| !self.decision.deny.iter().any(|expected| expected.message() == finding.message);
        for finding in deny.iter().filter(unforeseen) {
            differences.push(format!("deny: found {:?}, which is not in the case", finding.message));
        }
        Ok(differences)
    }
}

fn difference(what: &str, expected: &impl Serialize, found: &impl Serialize) -> String {
    // Documents of our own always serialise.
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    format!("{what}: expected {}, found {}", json(serde_json::to_string(expected)), json(serde_json::to_string(found)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(decision: &Value) -> Vec<String> {
        let policy = ReleasePolicy::compile(
            "package sealift.release\nimport rego.v1\ndeny contains {\"message\": \"no\", \"claim\": \"now\"}\n\
             obligations := {\"read_only_root\": true}",
        );
        let case: PolicyCase = serde_json::from_value(json!({"input": {}, "decision": decision})).unwrap();
        case.differences(&policy.unwrap()).unwrap()
    }

    #[test]
    fn a_case_holds_where_nothing_that_it_names_differs() {
        for decision in [
            json!({"allow": false, "deny": ["no"]}),
            json!({"allow": false, "deny": [{"message": "no", "claim": "now"}], "obligations": {"read_only_root": true}}),
        ] {
            assert!(differences(&decision).is_empty(), "{decision}");
        }
    }

    #[test]
    fn every_difference_is_found() {
        for decision in [
            json!({"allow": true, "deny": ["no"]}),
            json!({"allow": false}),
            json!({"allow": false, "deny": ["no", "never"]}),
            json!({"allow": false, "deny": [{"message": "no"}]}),
            json!({"allow": false, "deny": ["no"], "obligations": {}}),
        ] {
            assert_eq!(differences(&decision).len(), 1, "{decision}");
        }
        assert_eq!(differences(&json!({"allow": false, "deny": ["never"]})).len(), 2);
    }
}
