//! The messages of the key broker protocol with our members in them.

use kbs_types::TeePubKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use transparency_log::{InclusionProof, Receipt, SignedCheckpoint, VerifierKey};
use url::Url;

use crate::lease::{Lease, LeaseId};
use crate::obligation::Obligations;
use crate::renewal::FileRenewal;

/// What the guest wants to run. Bound to the report through the runtime data.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Workload {
    /// `sha256:…` of the platform's image manifest.
    pub manifest_digest: String,
    /// Thumbprints (RFC 7638) of the keys whose signatures over the manifest the guest has verified.
    #[serde(default)]
    pub signers: Vec<String>,
    /// The command line that will run.
    #[serde(default)]
    pub command: Vec<String>,
}

/// What a relay says of itself: a service that hands the seats of a licence on to guests of its own.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RelayStatement {
    /// Where its guests reach it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub url: Url,
    /// The key of its own log: with it, what it granted can be held to be this very relay's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub log_key: Option<VerifierKey>,
    /// The key that it signs its guests' licence with (SPKI, PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_key: Option<String>,
    /// Whether its key is that of an earlier start in the same guest, whose lease it takes up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumes: bool,
}

impl RelayStatement {
    /// What stands in the place of a manifest's digest where a relay holds the lease.
    pub const IN_PLACE_OF_MANIFEST: &'static str = "relay";
}

/// Why runtime data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeDataError {
    /// A member is missing or of the wrong form.
    #[error("the runtime data is malformed")]
    Malformed(#[source] serde_json::Error),
}

/// Runtime data read into types. The report binds the JSON as it was sent, never this.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RuntimeData {
    /// The service's challenge.
    pub nonce: String,
    /// The guest's ephemeral key.
    #[serde(rename = "tee-pubkey")]
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub tee_pubkey: TeePubKey,
    /// The licence's compact JWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The lease that is being renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// Of a relay, in the place of a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatement>,
    /// Whether the guest keeps its keys sealed and asks for what it may do without the service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
    /// What a request that is carried by file says in the place of a challenge's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<FileRenewal>,
}

impl RuntimeData {
    /// Reads the members that we know; others are bound all the same.
    pub fn read(members: &Map<String, Value>) -> Result<Self, RuntimeDataError> {
        Self::deserialize(&Value::Object(members.clone())).map_err(RuntimeDataError::Malformed)
    }

    /// The JSON members to send and to bind.
    pub fn to_members(&self) -> Result<Map<String, Value>, RuntimeDataError> {
        let value = serde_json::to_value(self).map_err(RuntimeDataError::Malformed)?;
        serde_json::from_value(value).map_err(RuntimeDataError::Malformed)
    }
}

/// The evidence of all devices of the guest.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Evidence {
    /// The CPU's evidence; its form depends on the TEE.
    pub primary_evidence: Value,
    /// JSON text of further devices' evidence; bound as the text that was sent.
    #[serde(default)]
    pub additional_evidence: String,
}

/// The body of `POST /kbs/v0/attest`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Attestation {
    /// Data that the host gave at launch and the report binds through `HOST_DATA`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
    pub init_data: Option<kbs_types::InitData>,
    /// Nonce, key and our members, as they were sent.
    #[cfg_attr(feature = "schema", schema(value_type = RuntimeData))]
    pub runtime_data: Map<String, Value>,
    /// The evidence.
    pub tee_evidence: Evidence,
}

/// Where a leaf stands in the newest checkpoint that witnesses cosigned (`GET /kbs/v0/log/witnessed?index=`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogPlace {
    /// The proof that the leaf is in the checkpoint's tree.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub inclusion_proof: InclusionProof,
    /// The checkpoint with its cosignatures.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub checkpoint: SignedCheckpoint,
}

/// The answer to an attestation. Stock clients read only the token.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AttestAnswer {
    /// An EAR token in compact JWS form.
    pub token: String,
    /// The lease, where a licence was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Duties of the shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obligations: Option<Obligations>,
    /// The proof that the grant or the renewal stands in the service's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// For the first request for news of the lease (`?since=`): nothing that happens after the decision is missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub news_since: Option<u64>,
    /// Whether the evidence came from a simulated platform.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
}
