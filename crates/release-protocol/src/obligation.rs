//! What the service obliges the measured shim to do. An obligation that a shim does not know ends the run.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_obligation_is_refused() {
        assert!(serde_json::from_str::<Obligations>(r#"{"paint_it_blue":true}"#).is_err());
    }
}
