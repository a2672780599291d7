//! Renewal by file: request and answer of a lease whose guest does not reach the service. Whoever carries them need not be
//! trusted: the request is bound by the guest's evidence, the answer is a receipt of the service's log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use transparency_log::{ConsistencyProof, Receipt};

use crate::binding::BindingError;
use crate::message::Attestation;

/// What [`RenewalRequest::format`] says.
pub const RENEWAL_REQUEST_FORMAT: &str = "sealift-renewal-request/1";
/// What [`RenewalAnswer::format`] says.
pub const RENEWAL_ANSWER_FORMAT: &str = "sealift-renewal-answer/1";
/// The longest request or answer that is read, in bytes of JSON.
pub const RENEWAL_FILE_MAX: u64 = 512 * 1024;

/// What the runtime data of a request say beside the lease: bound by the report, as everything in them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FileRenewal {
    /// When it was made, by the guest's clock.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub made_at: Timestamp,
    /// The audit entry of the last grant or renewal that the guest knows of.
    pub entry: u64,
    /// How many entries of the log the guest has seen: the answer proves that its log extends those.
    pub log_size: u64,
}

/// A lease is to be renewed, says a guest that does not reach the service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    /// [`RENEWAL_REQUEST_FORMAT`].
    pub format: String,
    /// As it would be sent, with a nonce of the guest's own.
    pub attestation: Attestation,
}

/// The service's answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewalAnswer {
    /// [`RENEWAL_ANSWER_FORMAT`].
    pub format: String,
    /// The proof of the renewal's entry, which names the request and says what was granted.
    pub receipt: Receipt,
    /// The proof that the receipt's log extends the one that the guest has seen.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub consistency: ConsistencyProof,
}

/// What the entry of a renewal by file says that the guest has to know.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RenewalByFile {
    /// The request ([`request_digest`]).
    pub request: String,
    /// How long the guest may start and run without the service, in seconds from when it made the request.
    pub offline_seconds: u64,
}

/// Which request it is: SHA-256 of its runtime data in canonical JSON (RFC 8785). A signature over the report can be given
/// another form by anybody, what the report binds cannot.
pub fn request_digest(runtime_data: &Map<String, Value>) -> Result<String, BindingError> {
    let canonical = serde_json_canonicalizer::to_vec(runtime_data).map_err(BindingError::Canonical)?;
    Ok(hex::encode(Sha256::digest(canonical)))
}
