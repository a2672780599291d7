//! What `docker save` writes, seen as OCI images.
//!
//! `manifest.json` lists config and layer files. [Docker image specification v1.2], "Combined Image JSON + Filesystem
//! Changeset Format": <https://github.com/moby/docker-image-spec/blob/v1.2.0/v1.2.md>. A manifest is made for each image:
//! the config as it is (Docker's is an OCI config), a plain layer under its `diff_id`, which is the digest of the plain tar.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Members, archive_problem, digest_of_path, shortened};
use crate::descriptor::{Descriptor, REF_NAME};
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::local::Extent;
use crate::manifest::{Index, Manifest, ManifestError};
use crate::reference::RegistryReference;
use crate::{limits, media_type};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// Makes an index of the images in the archive, and says where the blobs are.
pub(super) fn read(members: &Members) -> Result<(Index, HashMap<Digest, Extent>), Error> {
    let list = members.small("manifest.json")?;
    let images: Vec<SavedImage> = serde_json::from_slice(&list)
        .map_err(|error| Error::corrupt("manifest.json", &*members.name, ManifestError::Json(error)))?;
    if images.len() > limits::LAYERS {
        return Err(archive_problem(&members.name, format!("it has more than {} images", limits::LAYERS)));
    }
    let mut blobs = HashMap::new();
    let mut entries = Vec::new();
    for image in &images {
        let manifest = read_image(members, image, &mut blobs)?;
        let bytes = manifest.to_bytes().map_err(|error| Error::corrupt("manifest.json", &*members.name, error))?;
        let entry = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        blobs.insert(entry.digest, Extent::Memory(bytes));
        for tag in image.repo_tags.iter().flatten() {
            let mut entry = entry.clone();
            entry.annotations.insert(REF_NAME.to_owned(), normalized_name(tag));
            entries.push(entry);
        }
        if image.repo_tags.as_ref().is_none_or(Vec::is_empty) {
            entries.push(entry);
        }
    }
    Ok((Index::new(entries), blobs))
}

/// The full form of an image name, so that `app` finds `docker.io/library/app:latest`.
pub(crate) fn normalized_name(name: &str) -> String {
    name.parse::<RegistryReference>().map_or_else(|_| name.to_owned(), |reference| reference.to_string())
}

fn read_image(members: &Members, image: &SavedImage, blobs: &mut HashMap<Digest, Extent>) -> Result<Manifest, Error> {
    let config_bytes = members.small(&image.config)?;
    let config: Config = serde_json::from_slice(&config_bytes)
        .map_err(|error| Error::corrupt(shortened(&image.config), &*members.name, ManifestError::Json(error)))?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() || diff_ids.len() > limits::LAYERS {
        let problem = format!("an image has {} layers and {} diff_ids", image.layers.len(), diff_ids.len());
        return Err(archive_problem(&members.name, problem));
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (file, diff_id) in image.layers.iter().zip(diff_ids) {
        let extent = members
            .extent(file)
            .ok_or_else(|| archive_problem(&members.name, format!("layer `{}` is missing", shortened(file))))?;
        let media_type = match &*extent.read_at(0, 4)? {
            [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        };
        let digest = match digest_of_path(file) {
            _ if media_type == media_type::OCI_LAYER => diff_id,
            Some(digest) => digest,
            None => hash(&extent)?,
        };
        layers.push(Descriptor::new(media_type, digest, extent.bytes()));
        blobs.insert(digest, extent);
    }
    let config = Descriptor::of(media_type::OCI_CONFIG, &config_bytes);
    blobs.insert(config.digest, Extent::Memory(config_bytes));
    Ok(Manifest::new(config, layers))
}

fn hash(extent: &Extent) -> Result<Digest, Error> {
    let mut hasher = Hasher::default();
    loop {
        let chunk = extent.read_at(hasher.bytes(), Hasher::STEP)?;
        if chunk.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.update(&chunk);
    }
}
