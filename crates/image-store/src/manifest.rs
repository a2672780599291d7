//! Manifests and indexes, parsed within limits, always beside the raw bytes that their digest is over.
//!
//! [OCI image-spec, manifest]: <https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md>

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::descriptor::{Descriptor, null_as_default};
use crate::digest::Digest;
use crate::{limits, media_type};

/// A manifest or index as it is stored. Its digest was checked, its content was not looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawManifest {
    /// The bytes that the digest is over.
    pub bytes: Bytes,
    /// The media type that the store gave and the bytes do not contradict.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

impl RawManifest {
    /// Takes bytes with the media type that the store announced, if any.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Size`] over [`limits::MANIFEST_BYTES`]; [`ManifestError::MediaType`] when `mediaType` inside
    /// and the announced type differ, so that no two readers can take the same bytes for different things
    /// (CVE-2021-41190); [`ManifestError::Kind`] when the bytes could be both a manifest and an index.
    pub fn new(bytes: Bytes, announced: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() > limits::MANIFEST_BYTES {
            return Err(ManifestError::Size { found: bytes.len() });
        }
        let outline: Outline = serde_json::from_slice(&bytes)?;
        if outline.schema_version != 2 {
            return Err(ManifestError::SchemaVersion { found: outline.schema_version });
        }
        let media_type = outline.media_type(announced)?;
        Ok(Self { digest: Digest::of(&bytes), media_type, bytes })
    }

    /// Reads the content.
    ///
    /// # Errors
    ///
    /// Any [`ManifestError`] but [`ManifestError::Size`].
    pub fn parse(&self) -> Result<Document, ManifestError> {
        if media_type::is_index(&self.media_type) {
            Index::parse(&self.bytes).map(Document::Index)
        } else if media_type::is_manifest(&self.media_type) {
            Manifest::parse(&self.bytes).map(Document::Manifest)
        } else {
            Err(ManifestError::UnknownMediaType { found: self.media_type.clone() })
        }
    }

    /// A descriptor that points at this manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest, self.bytes.len() as u64)
    }
}

/// What a [`RawManifest`] holds.
#[expect(clippy::large_enum_variant, reason = "one at a time, taken apart at once")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Document {
    /// Several images or other manifests.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// An image manifest: OCI, or Docker version 2 schema 2. Unknown fields are kept and written back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// The manifest's own media type; OCI lets it be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the artifact is, when it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration blob.
    pub config: Descriptor,
    /// The layers, the lowest first; at most [`limits::LAYERS`].
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else, as it was read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// An OCI image manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// Any [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = from_json(bytes)?;
        if manifest.layers.len() > limits::LAYERS {
            return Err(ManifestError::Entries { found: manifest.layers.len(), limit: limits::LAYERS });
        }
        if manifest.other.contains_key("manifests") {
            return Err(ManifestError::Kind);
        }
        refuse_other_spellings(&manifest.other, &Self::FIELDS)?;
        check_schema(manifest.schema_version)?;
        check_descriptors(std::iter::once(&manifest.config).chain(&manifest.layers).chain(&manifest.subject))?;
        Ok(manifest)
    }

    /// The manifest as compact JSON, fields in the order of the specification.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Json`], which a manifest made of these types does not cause.
    pub fn to_bytes(&self) -> Result<Bytes, ManifestError> {
        Ok(serde_json::to_vec(self)?.into())
    }

    const FIELDS: [&str; 8] =
        ["schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations", "manifests"];
}

/// An OCI image index or a Docker manifest list. Unknown fields are kept and written back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// The index's own media type; OCI lets it be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the artifact is, when it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The entries; at most [`limits::ENTRIES`].
    #[serde(deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else, as it was read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Index {
    /// An OCI image index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    ///
    /// Any [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let index: Self = from_json(bytes)?;
        if index.manifests.len() > limits::ENTRIES {
            return Err(ManifestError::Entries { found: index.manifests.len(), limit: limits::ENTRIES });
        }
        if index.other.contains_key("layers") || index.other.contains_key("config") {
            return Err(ManifestError::Kind);
        }
        refuse_other_spellings(&index.other, &Self::FIELDS)?;
        check_schema(index.schema_version)?;
        check_descriptors(index.manifests.iter().chain(&index.subject))?;
        Ok(index)
    }

    /// The index as compact JSON, fields in the order of the specification.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Json`], which an index made of these types does not cause.
    pub fn to_bytes(&self) -> Result<Bytes, ManifestError> {
        Ok(serde_json::to_vec(self)?.into())
    }

    const FIELDS: [&str; 8] =
        ["schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations", "layers", "config"];
}

/// Why bytes are not a manifest or index that this crate accepts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Too many layers or entries.
    #[error("it has {found} entries, the limit is {limit}")]
    Entries {
        /// Entries found.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON of the right shape: a missing or doubled field, a negative size, a wrong digest.
    #[error("it is not a manifest")]
    Json(#[from] serde_json::Error),
    /// It could be taken for a manifest by one reader and for an index by another, or for neither.
    #[error("it is not clearly either a manifest or an index")]
    Kind,
    /// `mediaType` inside and the type that the store gave differ.
    #[error("it calls itself `{inside}`, the store calls it `{announced}`")]
    MediaType {
        /// The type that the store gave.
        announced: String,
        /// The type inside.
        inside: String,
    },
    /// `schemaVersion` is not 2. Docker's schema 1 is not supported.
    #[error("schema version {found} is not supported, only 2 is")]
    SchemaVersion {
        /// The version found; 0 where there was none.
        found: u64,
    },
    /// More than [`limits::MANIFEST_BYTES`].
    #[error("it has {found} bytes, the limit is {}", limits::MANIFEST_BYTES)]
    Size {
        /// Bytes found.
        found: usize,
    },
    /// A field that differs from a known one in upper and lower case only: Go's readers would take it for that one.
    #[error("field `{field}` is spelled unlike the specification")]
    Spelling {
        /// The field as it was read.
        field: String,
    },
    /// A size over [`limits::BLOB_BYTES`], or a sum of sizes over it.
    #[error("its sizes are absurd: {found} bytes")]
    TooLarge {
        /// The size or sum.
        found: u128,
    },
    /// Neither a manifest nor an index by its media type.
    #[error("media type `{found}` is not supported")]
    UnknownMediaType {
        /// The media type.
        found: String,
    },
}

/// As much as is needed to tell manifests, indexes and media types apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    #[serde(default)]
    schema_version: u64,
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

impl Outline {
    fn media_type(self, announced: Option<&str>) -> Result<String, ManifestError> {
        let is_index = match (self.manifests.is_some(), self.layers.is_some() || self.config.is_some()) {
            (true, false) => true,
            (false, true) => false,
            _ => return Err(ManifestError::Kind),
        };
        // Servers that serve files know no better than these two.
        let announced = announced.filter(|name| !matches!(*name, "application/json" | "application/octet-stream"));
        let media_type = match (self.media_type.filter(|inside| !inside.is_empty()), announced) {
            (Some(inside), Some(announced)) if inside != announced => {
                return Err(ManifestError::MediaType { announced: announced.to_owned(), inside });
            }
            (Some(inside), _) => inside,
            (None, Some(announced)) => announced.to_owned(),
            (None, None) if is_index => media_type::OCI_INDEX.to_owned(),
            (None, None) => media_type::OCI_MANIFEST.to_owned(),
        };
        if is_index && media_type::is_manifest(&media_type) || !is_index && media_type::is_index(&media_type) {
            return Err(ManifestError::Kind);
        }
        Ok(media_type)
    }
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ManifestError> {
    if bytes.len() > limits::MANIFEST_BYTES {
        return Err(ManifestError::Size { found: bytes.len() });
    }
    Ok(serde_json::from_slice(bytes)?)
}

fn check_schema(found: u64) -> Result<(), ManifestError> {
    if found == 2 { Ok(()) } else { Err(ManifestError::SchemaVersion { found }) }
}

fn check_descriptors<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Result<(), ManifestError> {
    const FIELDS: [&str; 7] = ["mediaType", "digest", "size", "urls", "annotations", "artifactType", "platform"];
    let mut sum: u128 = 0;
    for descriptor in descriptors {
        refuse_other_spellings(&descriptor.other, &FIELDS)?;
        sum += u128::from(descriptor.size);
        if sum > u128::from(limits::BLOB_BYTES) {
            return Err(ManifestError::TooLarge { found: sum });
        }
    }
    Ok(())
}

fn refuse_other_spellings(other: &Map<String, Value>, known: &[&str]) -> Result<(), ManifestError> {
    match other.keys().find(|field| known.iter().any(|name| field.eq_ignore_ascii_case(name))) {
        Some(field) => Err(ManifestError::Spelling { field: field.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
