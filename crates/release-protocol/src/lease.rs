//! A lease: one running instance on one attested guest.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The identity of a lease: the RFC 7638 thumbprint of the guest's ephemeral key, so that a repeated request cannot
/// take a second seat.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct LeaseId(pub String);

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
