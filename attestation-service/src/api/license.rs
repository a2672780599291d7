//! Licences in the admin API: asked for, changed, ended, shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use release_protocol::ProductName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::End;

/// Asks for a licence.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct NewLicense {
    /// What may run.
    pub products: Vec<ProductName>,
    /// Who is licensed.
    pub customer: String,
    /// How many instances at once.
    pub seats: u32,
    /// From when; absent: now.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_from: Option<Timestamp>,
    /// Until when (RFC 3339), or for how long from now by the service's clock: `+8h`.
    #[schema(value_type = String, example = "+8h")]
    pub valid_until: End,
    /// How long a lease lives, in seconds.
    pub lease_seconds: u64,
    /// How long a workload may go on when the service is out of reach, in seconds.
    pub grace_seconds: u64,
    /// How long a guest that keeps its keys sealed may start and run without the service, in seconds; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_seconds: Option<u64>,
    /// Chip ids it is bound to; empty: any.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Names and values for policy and workload.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
    /// Whether it starts no workload, but lets one relay hand its seats on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relay: bool,
}

/// The answer to [`NewLicense`].
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct IssuedLicense {
    /// Its identity.
    pub id: String,
    /// The licence as it travels.
    pub token: String,
}

/// A licence as the service knows it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct LicenseStatus {
    /// Its identity.
    pub id: String,
    /// Who is licensed.
    pub customer: String,
    /// What may run.
    pub products: Vec<ProductName>,
    /// `issued`, `active`, `suspended`, `revoked`, `expired` or `not-yet-valid`.
    pub state: String,
    /// How many instances at once.
    pub seats: u32,
    /// How many are taken.
    pub seats_in_use: u32,
    /// How long a lease lives, in seconds.
    pub lease_seconds: u64,
    /// The grace, in seconds.
    pub grace_seconds: u64,
    /// How long guests that keep their keys sealed may start and run without the service, in seconds; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_seconds: Option<u64>,
    /// From when it holds.
    #[schema(value_type = String, format = DateTime)]
    pub valid_from: Timestamp,
    /// Until when it holds.
    #[schema(value_type = String, format = DateTime)]
    pub valid_until: Timestamp,
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// The chips that it is bound to; empty: any.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Whether it starts no workload, but lets one relay hand its seats on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relay: bool,
    /// Since when it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub suspended_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
    /// Until when what ran at its revocation may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub drain_until: Option<Timestamp>,
    /// Why it is suspended or revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks for a revocation.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Revocation {
    /// Why; kept with the licence and in the audit log.
    pub reason: String,
    /// How long what runs already may go on, in seconds; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
}

/// Asks for a suspension or its end.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Reason {
    /// Why; kept in the audit log.
    pub reason: String,
}

/// Asks for another end or number of seats.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Renewal {
    /// Until when it holds (RFC 3339), or for how long from now by the service's clock (`+8h`); absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "+8h")]
    pub valid_until: Option<End>,
    /// How many instances at once; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats: Option<u32>,
    /// Why; kept in the audit log.
    pub reason: String,
}

/// Asks for another customer or other chips.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Transfer {
    /// Who is licensed; absent: as before. The files that the customer before has open nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// The chips that it is bound to, empty for any; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<String>>,
    /// Why; kept in the audit log.
    pub reason: String,
}

/// What a revocation did.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Revoked {
    /// Which licence.
    pub id: String,
    /// How many instances run at this moment.
    pub running: u32,
    /// How many of them nothing stops, because their clients are not ours.
    #[serde(default)]
    pub not_revocable: u32,
    /// How many of them keep their keys sealed and may go on, and start again, without the service until their allowance ends.
    #[serde(default)]
    pub offline: u32,
    /// By when the last of the others has stopped, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub stopped_by: Option<Timestamp>,
}
