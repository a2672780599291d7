//! What the service obliges the measured shim to do. An obligation that a shim does not know ends the run.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Duties of the shim, decided by the release policy.
///
/// Unknown members are refused on reading: a shim that cannot keep a duty must not start the workload.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Obligations {
    /// The manifest digest that was released; the shim runs no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// Key thumbprints (RFC 7638) of which at least [`Self::signer_threshold`] must have signed the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// How many of [`Self::signers`] must have signed; absent means one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer_threshold: Option<u32>,
    /// The root file system is mounted read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only_root: bool,
    /// The whole command line of the workload, where the policy fixes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// How long the guest may start and run without the service, in seconds from when it asked, under keys that it keeps
    /// sealed. A policy may give less than the licence, or 0. Sent only to a shim that asked ([`RuntimeData::offline`]).
    ///
    /// [`RuntimeData::offline`]: crate::RuntimeData::offline
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_seconds: Option<u64>,
}

impl Obligations {
    /// Leaves each signer in the list once: a threshold is over distinct keys.
    pub fn keep_distinct_signers(&mut self) {
        let mut seen = BTreeSet::new();
        self.signers.retain(|signer| seen.insert(signer.clone()));
    }

    /// How many distinct ones of [`Self::signers`] are among those who signed, and how many have to be. One key counts
    /// once, however often either list names it.
    pub fn signed(&self, by: &[String]) -> (usize, usize) {
        if self.signers.is_empty() && self.signer_threshold.is_none() {
            return (0, 0);
        }
        let wanted: BTreeSet<&String> = self.signers.iter().collect();
        let signed = wanted.iter().filter(|signer| by.contains(signer)).count();
        (signed, self.signer_threshold.unwrap_or(1).max(1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obligations(signers: &[&str], threshold: Option<u32>) -> Obligations {
        let signers = signers.iter().map(ToString::to_string).collect();
        Obligations { signers, signer_threshold: threshold, ..Obligations::default() }
    }

    #[test]
    fn one_key_counts_once_however_often_it_is_named() {
        let by = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        let two_of_three = obligations(&["a", "a", "b", "c"], Some(2));
        assert_eq!(two_of_three.signed(&by(&["a"])), (1, 2));
        assert_eq!(two_of_three.signed(&by(&["a", "a"])), (1, 2));
        assert_eq!(two_of_three.signed(&by(&["a", "c", "x"])), (2, 2));
        assert_eq!(obligations(&["a"], None).signed(&by(&["b"])), (0, 1));
        assert_eq!(obligations(&["a"], Some(0)).signed(&by(&["b"])), (0, 1), "a threshold is at least one");
        assert_eq!(obligations(&[], None).signed(&by(&["b"])), (0, 0), "nobody is asked for");
        assert_eq!(obligations(&[], Some(3)).signed(&by(&["b"])), (0, 3), "no three of nobody have signed");
        let mut kept = two_of_three;
        kept.keep_distinct_signers();
        assert_eq!(kept.signers, ["a", "b", "c"]);
    }

    #[test]
    fn an_unknown_obligation_is_refused() {
        assert!(serde_json::from_str::<Obligations>(r#"{"paint_it_blue":true}"#).is_err());
    }
}
