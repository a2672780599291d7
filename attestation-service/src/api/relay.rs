//! What a service delegates to a relay (`GET /kbs/v0/delegation`).

use std::collections::BTreeMap;

use release_protocol::ProductName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PlatformDenial, Reference, SealedManifest};

/// All that a relay may hand on, but for the keys themselves.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Delegation {
    /// What bounds the licence that the relay issues.
    pub license: DelegatedLicense,
    /// The products of the licence.
    pub products: Vec<DelegatedProduct>,
    /// Platforms that get nothing, from the relay either.
    pub denied_platforms: Vec<PlatformDenial>,
}

impl Delegation {
    /// The longest delegation, in bytes of JSON.
    pub const MAX_LEN: usize = 16 << 20;
}

/// A relay's licence as it holds now.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct DelegatedLicense {
    /// Who is licensed.
    pub customer: String,
    /// How many instances at once.
    pub seats: u32,
    /// From when it holds, in seconds since 1970.
    pub valid_from: i64,
    /// Until when it holds, likewise.
    pub valid_until: i64,
    /// How long a lease lives, in seconds.
    pub lease_seconds: u64,
    /// The grace, in seconds.
    pub grace_seconds: u64,
    /// Names and values for policy and workload.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
}

/// One product of the licence.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct DelegatedProduct {
    /// Its name.
    pub name: ProductName,
    /// Public keys (SPKI PEM) whose signatures its images need.
    pub signers: Vec<String>,
    /// Its reference values that count now.
    pub references: Vec<Reference>,
    /// Its release policy's source.
    pub policy: String,
    /// Its image keys with the manifests that they open.
    pub keys: Vec<DelegatedKey>,
}

/// An image key, without the key.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct DelegatedKey {
    /// The last part of its path.
    pub id: String,
    /// What people call the image.
    pub image: String,
    /// What it opens.
    pub manifests: Vec<SealedManifest>,
}
