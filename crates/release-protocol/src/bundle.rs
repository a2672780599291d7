//! Evidence bundles: everything that one lease rests on in one file, for whoever has to be shown it later. Types only: the
//! service makes them, `sealift audit verify` judges them offline.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use transparency_log::{ConsistencyProof, Receipt, SignedCheckpoint, VerifierKey};

use crate::lease::LeaseId;
use crate::message::Attestation;

/// What [`EvidenceBundle::format`] says.
pub const EVIDENCE_BUNDLE_FORMAT: &str = "sealift-evidence-bundle/1";
/// The longest bundle that is read, in bytes of JSON.
pub const MAX_EVIDENCE_BUNDLE_BYTES: u64 = 64 << 20;

/// What one lease rests on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EvidenceBundle {
    /// [`EVIDENCE_BUNDLE_FORMAT`].
    pub format: String,
    /// Whose evidence it is.
    pub lease: LeaseId,
    /// The log's key as the service names it; whoever judges brings its own.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub log_key: VerifierKey,
    /// The key that licences are signed with (SPKI, PEM), likewise.
    pub license_key: String,
    /// The log as it was when the lease was granted.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub granted: SignedCheckpoint,
    /// That the log of `entries` extends that one.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub consistency: ConsistencyProof,
    /// Every entry of the lease, oldest first, each proven against the same, newest checkpoint. Each names the one before it
    /// as `previous`.
    pub entries: Vec<Receipt>,
    /// What the guest showed when the lease was granted, and when it was last renewed.
    pub attestations: Vec<BundledAttestation>,
    /// The sources of the policies that decided.
    pub policies: Vec<String>,
    /// The keys (SPKI, PEM) of those whose signatures over the image the guest says it has verified.
    pub signer_keys: Vec<String>,
    /// Those signatures, where whoever made the bundle had the image at hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<BundledSignature>,
}

/// What [`JointEvidence::format`] says.
pub const JOINT_EVIDENCE_FORMAT: &str = "sealift-joint-evidence/1";

/// What one run of an image of several partners rests on: what each partner's service kept of its lease, and what the customer
/// was given. Put together by whoever has all of it; judged by the partners' keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JointEvidence {
    /// [`JOINT_EVIDENCE_FORMAT`].
    pub format: String,
    /// One of each partner.
    pub parts: Vec<EvidenceBundle>,
    /// The customer's receipts of grants and renewals of these leases.
    pub receipts: Vec<Receipt>,
}

/// One signature over the image.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BundledSignature {
    /// What was signed: the simple signing JSON, as text.
    pub payload: String,
    /// ECDSA over it: DER in base64.
    pub signature: String,
}

/// What a guest showed for one decision.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BundledAttestation {
    /// The number of the decision's entry.
    pub entry: u64,
    /// What the decision rested on.
    #[serde(flatten)]
    pub basis: DecisionBasis,
}

/// What one decision rested on. Its entry has the SHA-256 of this in canonical JSON (RFC 8785) as `basis`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DecisionBasis {
    /// As the guest sent it, with the endorsement that the service added where it lacked one.
    pub attestation: Attestation,
    /// What the policy was asked.
    pub policy_input: Value,
}
