//! The admin API's documents: what the vendor's tool and the service say to each other below `/api/v1`.

mod access;
mod custody;
mod end;
mod license;
mod relay;
mod secret;
mod transfer;

use std::fmt;

use jiff::Timestamp;
use launch_evidence::{InitDataDigest, KeyDigest, Measurement};
use release_protocol::ProductName;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::platform::{Platform, PlatformRule};

pub use access::{CreatedToken, NewToken, ParseRoleError, Role, TokenRevocation, TokenStatus};
pub use custody::{CustodyStatus, MasterKeyChange, MasterKeyStatus, Rotation};
pub use end::{End, ParseEndError};
pub use license::{IssuedLicense, LicenseStatus, NewLicense, Reason, Renewal, Revocation, Revoked, Transfer};
pub use relay::{DelegatedKey, DelegatedLicense, DelegatedProduct, Delegation};
pub use secret::{SECRET_MAX, SecretStatus};
pub use transfer::{ExportedKeys, ImportKey, KeyExport, KeyImport};

/// The path below which the admin API is served.
pub const API_PREFIX: &str = "/api/v1";

/// A vendor's image signing key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct Signer {
    /// RFC 7638 thumbprint.
    pub thumbprint: String,
    /// SPKI PEM.
    pub pem: String,
}

/// What a guest is recognised by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReferenceValue {
    /// The launch digest.
    Measurement {
        /// 96 lower-case hexadecimal digits.
        #[schema(value_type = String, pattern = "^[0-9a-f]{96}$")]
        measurement: Measurement,
    },
    /// The key that signed the guest's ID block.
    IdKey {
        /// SHA-384 of the key as the firmware lays it out, 96 lower-case hexadecimal digits.
        #[schema(value_type = String, pattern = "^[0-9a-f]{96}$")]
        id_key_digest: KeyDigest,
        /// The lowest guest SVN that counts.
        min_svn: u32,
    },
    /// Initialisation data whose every word the vendor has approved, for guests that state no workload themselves.
    InitData {
        /// SHA-256 of the data as the report binds them, 64 lower-case hexadecimal digits.
        #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
        init_data: InitDataDigest,
    },
}

impl fmt::Display for ReferenceValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measurement { measurement } => write!(f, "measurement {measurement}"),
            Self::IdKey { id_key_digest, min_svn } => write!(f, "ID key {id_key_digest} from SVN {min_svn}"),
            Self::InitData { init_data } => write!(f, "initialisation data {init_data}"),
        }
    }
}

/// Asks for a new reference value.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
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
    #[schema(value_type = String, format = DateTime)]
    pub added_at: Timestamp,
    /// From when on it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Retirement {
    /// From when on; absent: now.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// Why; kept with the reference value and in the audit log.
    pub reason: String,
}

/// A product as the service knows it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
}

/// Asks for a new product.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct NewProduct {
    /// Its name.
    pub name: ProductName,
    /// Public keys (SPKI PEM) whose signatures its images need.
    pub signers: Vec<String>,
}

/// One platform's manifest that a key may open.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct SealedManifest {
    /// `sha256:…`.
    pub digest: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Its bill of materials, where the packager attached one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Sbom>,
}

/// A bill of materials that stands beside an image, as a manifest that refers to it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct Sbom {
    /// `application/spdx+json` or `application/vnd.cyclonedx+json`.
    pub media_type: String,
    /// `sha256:…` of the document.
    pub digest: String,
    /// `sha256:…` of the manifest that attaches it, which is signed like the image.
    pub manifest: String,
}

/// Registers an image key together with the manifests that it may open.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct NewImageKey {
    /// The last part of its `kbs://` path.
    pub id: String,
    /// Base64 of the 32-byte key-encryption key.
    #[schema(value_type = String)]
    pub kek: Zeroizing<String>,
    /// What people call the image.
    pub image: String,
    /// What it may open. None: the key is pending, and is released to nobody until [`KeyManifests`] binds it.
    pub manifests: Vec<SealedManifest>,
}

/// Binds a pending key to its manifests, once.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct KeyManifests {
    /// What people call the image.
    pub image: String,
    /// What the key may open; at least one.
    pub manifests: Vec<SealedManifest>,
}

/// Wraps layers' keys anew, under a fresh image key that the service makes, keeps and never shows. It is pending until
/// [`KeyManifests`] binds it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Rewrap {
    /// The last part of the new key's `kbs://` path.
    pub id: String,
    /// What people call the image.
    pub image: String,
    /// A packet of each layer, as its annotation has it; at least one. The keys that they name are the product's.
    pub packets: Vec<String>,
    /// Public keys (PEM) whose owners can open the layers, too, without the service. For administrators.
    #[serde(default)]
    pub recipients: Vec<String>,
}

/// What takes the packets' places, in their order.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Rewrapped {
    /// For each packet.
    pub layers: Vec<RewrappedLayer>,
}

/// A layer's key, wrapped anew.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct RewrappedLayer {
    /// The packet, as the annotation has it.
    pub packet: String,
    /// The message for the recipients, as its annotation has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ImageKey {
    /// The last part of its `kbs://` path.
    pub id: String,
    /// What people call the image.
    pub image: String,
    /// What it may open; nothing while it is pending.
    pub manifests: Vec<SealedManifest>,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The master key that it is sealed under.
    #[serde(default)]
    pub master_key: String,
}

/// A lease as the service knows it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
    /// Whether the guest stops when the lease is lost. A stock client does not: its workload runs on, and only gets no key
    /// any more.
    #[serde(default = "stops")]
    pub revocable: bool,
    /// `live`, `ended` or `lapsed`.
    pub state: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ends unless renewed.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Until when the guest may start and run without the service under keys that it keeps sealed; absent where it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub offline_until: Option<Timestamp>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
}

fn stops() -> bool {
    true
}

/// Asks that platforms should get nothing any more.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct NewPlatformDenial {
    /// Which.
    #[schema(value_type = String, example = "Genoa:snp<23")]
    pub rule: PlatformRule,
    /// Why; told to guests that are denied, and kept in the audit log.
    pub reason: String,
    /// Only ask which leases it would end.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a denial did, or would do.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct PlatformDenied {
    /// Which platforms.
    #[schema(value_type = String, example = "Genoa:snp<23")]
    pub rule: PlatformRule,
    /// Whether nothing was denied.
    pub dry_run: bool,
    /// The live leases on them: they end at their next renewal.
    pub leases: Vec<LeaseStatus>,
}

/// Lifts a denial, which must be spelt as it is listed or in another order of components.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct PlatformAllowance {
    /// Which.
    #[schema(value_type = String, example = "Genoa:snp<23")]
    pub rule: PlatformRule,
    /// Why; kept in the audit log.
    pub reason: String,
}

/// A denial of platforms that holds.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct PlatformDenial {
    /// Which.
    #[schema(value_type = String, example = "Genoa:snp<23")]
    pub rule: PlatformRule,
    /// Why.
    pub reason: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub denied_at: Timestamp,
}

/// The answer of `/healthz`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The service's version.
    pub version: String,
    /// Whether evidence of simulated platforms is accepted.
    pub simulated_platforms_allowed: bool,
}
