//! Layers' keys from one service to another, as the admin API speaks of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A key that another service encrypts the layers' keys of one image to.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ImportKey {
    /// Its name: the thumbprint (RFC 7638) of the public key.
    pub id: String,
    /// The public key (SPKI PEM).
    pub public_key: String,
    /// Until when it is good, for one import.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// Asks for layers' keys, encrypted to another service's import key. For administrators.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct KeyExport {
    /// What people call the image.
    pub image: String,
    /// A packet of each layer, as its annotation has it; at least one. The keys that they name are the product's.
    pub packets: Vec<String>,
    /// The public key (PEM).
    pub recipient: String,
}

/// Layers' keys, encrypted.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ExportedKeys {
    /// A JWE (base64 of its JSON) for each packet, in their order.
    pub messages: Vec<String>,
}

/// Brings layers' keys that another service encrypted to an import key. They are wrapped under a fresh image key that the
/// service makes, keeps and never shows; it is pending until [`KeyManifests`](crate::api::KeyManifests) binds it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct KeyImport {
    /// The last part of the new key's `kbs://` path.
    pub id: String,
    /// What people call the image.
    pub image: String,
    /// The import key's name; it is used up.
    pub import_key: String,
    /// A JWE for each layer, as the other service gave it; at least one.
    pub messages: Vec<String>,
}
