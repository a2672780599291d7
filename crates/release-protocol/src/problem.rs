//! Errors on the wire: RFC 9457 problem documents that stock key broker clients read, too.

use serde::{Deserialize, Serialize};

/// An RFC 9457 problem (`application/problem+json`). Stock clients read `type` and `detail`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A stable machine code as a URI reference, `urn:sealift:problem:<code>` from us.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for people.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What happened.
    pub detail: String,
    /// Why a release was denied, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The number of the audit entry that records the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// The request's id, to find it in the service's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// What stands before our codes in `type`.
    pub const URN: &str = "urn:sealift:problem:";

    /// Our machine code, when the problem is one of ours.
    pub fn code(&self) -> Option<&str> {
        self.kind.strip_prefix(Self::URN)
    }
}
