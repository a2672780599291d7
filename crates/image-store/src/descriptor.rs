//! Descriptors: what a blob is, how large, and by which digest it is named.
//!
//! [OCI image-spec, descriptor]: <https://github.com/opencontainers/image-spec/blob/v1.1.0/descriptor.md>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;

/// A content descriptor as the OCI image specification defines it. Fields it does not know are kept and written back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the blob.
    pub media_type: String,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes, at most [`crate::limits::BLOB_BYTES`] in a parsed manifest.
    pub size: u64,
    /// Places outside the store where the blob may be had (foreign layers). Never followed by this crate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// What the artifact is when the descriptor points at one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The platform of an image, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Everything else (`data` among it), as it was read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Descriptor {
    /// A descriptor with nothing but what must be there.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            artifact_type: None,
            platform: None,
            other: Map::new(),
        }
    }

    /// The descriptor of bytes in memory.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The tag that an `index.json` gives this entry, if any.
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// The platform an image is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Platform {
    /// Go's name of the architecture (`amd64`).
    pub architecture: String,
    /// Go's name of the system (`linux`).
    pub os: String,
    /// The variant of the architecture (`v8`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Everything else (`os.version`, `os.features`), as it was read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The annotation by which an OCI layout tags an entry of its index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Go's encoder writes `null` for an empty map.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
