//! The admin API's documents: what the vendor's tool and the service say to each other below `/api/v1`.

mod access;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use launch_evidence::{KeyDigest, Measurement};
use release_protocol::ProductName;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::platform::{Platform, PlatformRule};

pub use access::{CreatedToken, NewToken, ParseRoleError, Role, TokenRevocation, TokenStatus};

/// The path below which the admin API is served.
pub const API_PREFIX: &str = "/api/v1";

/// A vendor's image signing key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Signer {
    /// RFC 7638 thumbprint.
    pub thumbprint: String,
    /// SPKI PEM.
    pub pem: String,
}

/// What a guest is recognised by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReferenceValue {
    /// The launch digest.
    Measurement {
        /// 96 lower-case hexadecimal digits.
        measurement: Measurement,
    },
    /// The key that signed the guest's ID block.
    IdKey {
        /// SHA-384 of the key as the firmware lays it out, 96 lower-case hexadecimal digits.
        id_key_digest: KeyDigest,
        /// The lowest guest SVN that counts.
        min_svn: u32,
    },
}

impl fmt::Display for ReferenceValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measurement { measurement } => write!(f, "measurement {measurement}"),
            Self::IdKey { id_key_digest, min_svn } => write!(f, "ID key {id_key_digest} from SVN {min_svn}"),
        }
    }
}

/// Asks for a new reference value.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NewReference {
    /// What guests are recognised by.
    #[serde(flatten)]
    pub value: ReferenceValue,
    /// What people call it.
    #[serde(default)]
    pub label: String,
    /// Where it came from: a [`LaunchOrigin`](launch_evidence::measure::origin::LaunchOrigin), or null.
    #[serde(default)]
    pub source: Value,
}

/// A reference value as the service knows it: guests that it recognises may open a product's images.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Reference {
    /// Its identity, in all products.
    pub id: String,
    /// What guests are recognised by.
    #[serde(flatten)]
    pub value: ReferenceValue,
    /// What people call it.
    #[serde(default)]
    pub label: String,
    /// Where it came from.
    #[serde(default)]
    pub source: Value,
    /// When it was added.
    pub added_at: Timestamp,
    /// From when on it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_reason: Option<String>,
}

impl Reference {
    /// Whether it counts at `now`.
    pub fn counts(&self, now: Timestamp) -> bool {
        self.retired_at.is_none_or(|at| now < at)
    }
}

/// Asks that a reference value should not count any more.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Retirement {
    /// From when on; absent: now.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Why; kept with the reference value and in the audit log.
    pub reason: String,
}

/// A product as the service knows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Product {
    /// Its name.
    pub name: ProductName,
    /// Whose signatures its images need.
    #[serde(default)]
    pub signers: Vec<Signer>,
    /// What may open its images, retired ones included.
    #[serde(default)]
    pub references: Vec<Reference>,
    /// SHA-256 of its policy's source, or `default`.
    #[serde(default)]
    pub policy: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// Asks for a new product.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NewProduct {
    /// Its name.
    pub name: ProductName,
    /// Public keys (SPKI PEM) whose signatures its images need.
    pub signers: Vec<String>,
}

/// One platform's manifest that a key may open.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SealedManifest {
    /// `sha256:…`.
    pub digest: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
}

/// Registers an image key together with the manifests that it may open.
#[derive(Clone, Deserialize, Serialize)]
pub struct NewImageKey {
    /// The last part of its `kbs://` path.
    pub id: String,
    /// Base64 of the 32-byte key-encryption key.
    pub kek: Zeroizing<String>,
    /// What people call the image.
    pub image: String,
    /// What it may open. None: the key is pending, and is released to nobody until [`KeyManifests`] binds it.
    pub manifests: Vec<SealedManifest>,
}

/// Binds a pending key to its manifests, once.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KeyManifests {
    /// What people call the image.
    pub image: String,
    /// What the key may open; at least one.
    pub manifests: Vec<SealedManifest>,
}

/// The key is not printed.
impl fmt::Debug for NewImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewImageKey")
            .field("id", &self.id)
            .field("kek", &"[redacted]")
            .field("manifests", &self.manifests)
            .finish_non_exhaustive()
    }
}

/// A registered image key, without the key.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ImageKey {
    /// The last part of its `kbs://` path.
    pub id: String,
    /// What people call the image.
    pub image: String,
    /// What it may open; nothing while it is pending.
    pub manifests: Vec<SealedManifest>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// Asks for a licence.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NewLicense {
    /// What may run.
    pub products: Vec<ProductName>,
    /// Who is licensed.
    pub customer: String,
    /// How many instances at once.
    pub seats: u32,
    /// From when; absent: now.
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    /// Until when.
    pub valid_until: Timestamp,
    /// How long a lease lives, in seconds.
    pub lease_seconds: u64,
    /// How long a workload may go on when the service is out of reach, in seconds.
    pub grace_seconds: u64,
    /// Chip ids it is bound to; empty: any.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Names and values for policy and workload.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
}

/// The answer to [`NewLicense`].
#[derive(Clone, Deserialize, Serialize)]
pub struct IssuedLicense {
    /// Its identity.
    pub id: String,
    /// The licence as it travels.
    pub token: String,
}

/// A licence as the service knows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// From when it holds.
    pub valid_from: Timestamp,
    /// Until when it holds.
    pub valid_until: Timestamp,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The chips that it is bound to; empty: any.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Since when it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// Until when what ran at its revocation may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Timestamp>,
    /// Why it is suspended or revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks for a revocation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Revocation {
    /// Why; kept with the licence and in the audit log.
    pub reason: String,
    /// How long what runs already may go on, in seconds; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u64>,
}

/// Asks for a suspension or its end.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reason {
    /// Why; kept in the audit log.
    pub reason: String,
}

/// Asks for another end or number of seats.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Renewal {
    /// Until when it holds; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// How many instances at once; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats: Option<u32>,
    /// Why; kept in the audit log.
    pub reason: String,
}

/// Asks for another customer or other chips.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Revoked {
    /// Which licence.
    pub id: String,
    /// How many instances run at this moment.
    pub running: u32,
    /// By when the last of them has stopped, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<Timestamp>,
}

/// A lease as the service knows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LeaseStatus {
    /// Its identity.
    pub id: String,
    /// The licence that it takes a seat of.
    pub license: String,
    /// The product that runs.
    pub product: ProductName,
    /// The manifest that runs.
    pub manifest_digest: String,
    /// The chip that it runs on.
    pub chip_id: String,
    /// What else is known of the platform; absent where the lease has not been renewed since that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Whether the platform is simulated.
    pub simulated: bool,
    /// `live`, `ended` or `lapsed`.
    pub state: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
}

/// Asks that platforms should get nothing any more.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NewPlatformDenial {
    /// Which.
    pub rule: PlatformRule,
    /// Why; told to guests that are denied, and kept in the audit log.
    pub reason: String,
    /// Only ask which leases it would end.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a denial did, or would do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlatformDenied {
    /// Which platforms.
    pub rule: PlatformRule,
    /// Whether nothing was denied.
    pub dry_run: bool,
    /// The live leases on them: they end at their next renewal.
    pub leases: Vec<LeaseStatus>,
}

/// Lifts a denial, which must be spelt as it is listed or in another order of components.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlatformAllowance {
    /// Which.
    pub rule: PlatformRule,
    /// Why; kept in the audit log.
    pub reason: String,
}

/// A denial of platforms that holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlatformDenial {
    /// Which.
    pub rule: PlatformRule,
    /// Why.
    pub reason: String,
    /// Since when.
    pub denied_at: Timestamp,
}

/// The answer of `/healthz`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The service's version.
    pub version: String,
    /// Whether evidence of simulated platforms is accepted.
    pub simulated_platforms_allowed: bool,
}
