//! Which image a container is of. The places of bundle and root file system tell which engine made it; the engine's own storage
//! tells the rest.

use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};
use ocicrypt::layer::SealedLayer;
use serde::Deserialize;

use super::{containerd, docker, storage};
use crate::agent::protocol::ContainerImage;

/// The image; `None` for a container of none, or of an engine that is not known.
pub(super) async fn of(bundle: &Path, id: &str, root: &Path) -> Result<Option<ContainerImage>, Failure> {
    let found = storage::image_of(bundle, root)?;
    if found.is_some() {
        return Ok(found);
    }
    let found = containerd::image_of(bundle).await?;
    if found.is_some() {
        return Ok(found);
    }
    docker::image_of(bundle, id, root).await
}

/// What counts of a manifest, and of a config.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFilesystem,
}

#[derive(Deserialize)]
struct RootFilesystem {
    #[serde(default)]
    diff_ids: Vec<String>,
}

fn parse(manifest: &[u8]) -> Result<Manifest, Failure> {
    let cannot = || "the manifest of the container's image cannot be read".to_owned();
    serde_json::from_slice(manifest).or_fail(ExitCode::BadInput, cannot)
}

/// The digest of the config that a manifest names.
pub(super) fn config_digest(manifest: &[u8]) -> Result<String, Failure> {
    let config = parse(manifest)?.config.map(|config| config.digest);
    config.ok_or_else(|| Failure::bad_input("the manifest of the container's image names no config"))
}

/// Whether a layer of the manifest is sealed to a service.
pub(super) fn is_sealed(manifest: &[u8]) -> Result<bool, Failure> {
    let manifest = parse(manifest)?;
    let mut encrypted = manifest.layers.iter().filter(|layer| ocicrypt::media_type::is_encrypted(&layer.media_type));
    // One whose annotations cannot be read is nobody else's either.
    Ok(encrypted.any(|layer| SealedLayer::parse(&layer.annotations).is_ok_and(|sealed| sealed.kids().next().is_some())))
}

/// The digests of the plain layers that a config names.
pub(super) fn diff_ids(config: &[u8]) -> Result<Vec<String>, Failure> {
    let cannot = || "the config of the container's image cannot be read".to_owned();
    let config: Config = serde_json::from_slice(config).or_fail(ExitCode::BadInput, cannot)?;
    Ok(config.rootfs.diff_ids)
}
