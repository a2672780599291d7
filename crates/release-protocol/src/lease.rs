//! A lease: one running instance on one attested guest.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::init_data::StatedBy;

/// The identity of a lease: of one guest, so that a repeated request cannot take a second seat.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct LeaseId(pub String);

impl LeaseId {
    /// The lease of a guest that proved itself by the key with this RFC 7638 thumbprint. Our client keeps its key while it
    /// runs, and there the thumbprint is the lease. Stock clients make a new key for each layer and each secret: there it
    /// is the guest's, as far as the evidence tells guests apart (`guest`), else each of their keys counts as one.
    pub fn of(stated_by: StatedBy, thumbprint: String, guest: Option<&str>) -> Self {
        match (stated_by, guest) {
            (StatedBy::Launch, Some(guest)) => Self(URL_SAFE_NO_PAD.encode(Sha256::digest(format!("guest {guest}")))),
            (StatedBy::Launch, None) | (StatedBy::Guest, _) => Self(thumbprint),
        }
    }

    /// The lease of a relay with this key. A relay keeps its key beside its database, for a start after a crash: the lease
    /// is of its guest as well, as far as the evidence tells guests apart, so that no copy elsewhere goes on with it.
    pub fn of_relay(thumbprint: String, guest: Option<&str>) -> Self {
        match guest {
            Some(guest) => Self(URL_SAFE_NO_PAD.encode(Sha256::digest(format!("relay {thumbprint} {guest}")))),
            None => Self(thumbprint),
        }
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an attested guest holds while its workload runs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Lease {
    /// Which lease.
    pub id: LeaseId,
    /// The licence that it takes a seat of.
    pub license: String,
    /// When it ends unless it is renewed, by the service's clock.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub expires_at: Timestamp,
    /// How long it lives from each renewal, in seconds.
    pub ttl_seconds: u64,
    /// How long the workload may go on past the end while the service cannot be reached, in seconds.
    pub grace_seconds: u64,
}

impl Lease {
    /// When to renew, in seconds from the last renewal: a third of the time to live, at least one second.
    pub fn renew_after_seconds(&self) -> u64 {
        (self.ttl_seconds / 3).max(1)
    }
}

/// What the service answers to a guest that holds a request open (`GET /kbs/v0/lease/watch`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LeaseNews {
    /// What becomes of the lease.
    #[serde(flatten)]
    pub state: LeaseState,
    /// To be sent with the next request (`?since=`), so that nothing between two requests is missed.
    pub since: u64,
}

/// What becomes of a lease.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum LeaseState {
    /// It may not go on: the workload is to be stopped.
    Ended {
        /// Why.
        reason: String,
    },
    /// Nothing has happened.
    Live,
    /// Something that it rests on has changed: it is to be renewed now.
    Renew,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_stock_client_share_the_lease_of_its_guest_where_evidence_tells_guests_apart() {
        let of = |stated_by, key: &str, guest| LeaseId::of(stated_by, key.to_owned(), guest).0;
        let launched = of(StatedBy::Launch, "key", Some("guest"));
        assert_eq!(of(StatedBy::Launch, "another key", Some("guest")), launched);
        assert_ne!(of(StatedBy::Launch, "key", Some("another guest")), launched);
        assert_eq!(of(StatedBy::Launch, "key", None), "key");
        assert_eq!(of(StatedBy::Guest, "key", Some("guest")), "key");
    }

    #[test]
    fn a_relays_key_in_another_guest_is_another_lease() {
        let of = |key: &str, guest| LeaseId::of_relay(key.to_owned(), guest).0;
        assert_eq!(of("key", Some("guest")), of("key", Some("guest")));
        assert_ne!(of("key", Some("guest")), of("key", Some("another guest")));
        assert_ne!(of("key", Some("guest")), of("another key", Some("guest")));
        assert_eq!(of("key", None), "key");
    }
}
