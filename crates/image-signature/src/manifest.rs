//! The manifest of a signature: an OCI image manifest whose layers are payloads. Members that are
//! not known are kept, so that appending loses nothing of another tool's.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{CONFIG_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, PAYLOAD_MEDIA_TYPE, SIGNATURE_ANNOTATION, digest};

/// The longest manifest that is read, in bytes.
const MANIFEST_MAX: usize = 1024 * 1024;
/// The most layers, that is signatures, of one manifest.
const LAYERS_MAX: usize = 128;

/// Why bytes are no signature manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the JSON of an OCI image manifest, or with a member twice.
    #[error("the signature's manifest is not what it should be")]
    Json(#[source] serde_json::Error),
    /// Another kind of manifest.
    #[error("the signature's manifest is no OCI image manifest")]
    MediaType,
    /// More than 1 MiB, or more than 128 layers.
    #[error("the signature's manifest is too long")]
    TooLong,
}

/// A payload that the caller has to fetch for [`crate::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadDescriptor {
    /// The digest of the blob.
    pub digest: String,
    /// The length of the blob in bytes, as the manifest claims it.
    pub size: u64,
}

/// The payloads that a signature manifest names, without attestations and whatever else is there.
pub fn payload_descriptors(manifest: &[u8]) -> Result<Vec<PayloadDescriptor>, ManifestError> {
    let manifest = Manifest::from_json(manifest)?;
    let payloads = manifest.layers.iter().filter(|layer| layer.is_payload());
    Ok(payloads.map(|layer| PayloadDescriptor { digest: layer.digest.clone(), size: layer.size }).collect())
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Manifest {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType", skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    size: u64,
    pub(crate) digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<Map<String, Value>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Manifest {
    pub(crate) fn empty() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST_MEDIA_TYPE.to_owned()),
            config: Descriptor::new(CONFIG_MEDIA_TYPE, &[]),
            layers: Vec::new(),
            other: Map::new(),
        }
    }

    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_MAX {
            return Err(ManifestError::TooLong);
        }
        let manifest: Self = jose::strict_json::from_slice(bytes).map_err(ManifestError::Json)?;
        let known = manifest.media_type.as_ref().is_none_or(|found| found == MANIFEST_MEDIA_TYPE);
        if !known || manifest.schema_version != 2 {
            return Err(ManifestError::MediaType);
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(ManifestError::TooLong);
        }
        Ok(manifest)
    }

    pub(crate) fn push(&mut self, payload: &[u8], signature: &[u8]) {
        let mut layer = Descriptor::new(PAYLOAD_MEDIA_TYPE, payload);
        let mut annotations = Map::new();
        annotations.insert(SIGNATURE_ANNOTATION.to_owned(), BASE64_STANDARD.encode(signature).into());
        layer.annotations = Some(annotations);
        self.layers.push(layer);
    }

    /// Makes the config for the layers as they are now, and the manifest with it.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, Vec<u8>), ManifestError> {
        if self.layers.len() > LAYERS_MAX {
            return Err(ManifestError::TooLong);
        }
        // Payloads are not compressed: a layer's diff id is its digest. The rest is what cosign
        // has in the config of an image without anything.
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| &layer.digest).collect();
        let history = vec![json!({ "created": NO_TIME }); diff_ids.len()];
        let config = json!({
            "architecture": "",
            "config": {},
            "created": NO_TIME,
            "history": history,
            "os": "",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = serde_json::to_vec(&config).map_err(ManifestError::Json)?;
        self.config = Descriptor::new(CONFIG_MEDIA_TYPE, &config);
        let manifest = serde_json::to_vec(&self).map_err(ManifestError::Json)?;
        Ok((manifest, config))
    }
}

impl Descriptor {
    fn new(media_type: &str, blob: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            size: blob.len() as u64,
            digest: digest::of(blob),
            annotations: None,
            other: Map::new(),
        }
    }

    pub(crate) fn is_payload(&self) -> bool {
        self.media_type == PAYLOAD_MEDIA_TYPE
    }

    /// The DER signature; `None` when the annotation is missing or is no base64.
    pub(crate) fn signature(&self) -> Option<Vec<u8>> {
        let text = self.annotations.as_ref()?.get(SIGNATURE_ANNOTATION)?.as_str()?;
        BASE64_STANDARD.decode(text).ok()
    }
}

/// Go's zero time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
