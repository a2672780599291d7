//! containerd's containers: which image a name stands for can change, and an image can go while its containers stay; the chain
//! of snapshots below a container is what it is made of. Both are asked for.

mod api;

use std::path::{Path, PathBuf};

use command_line::Failure;
use serde::Deserialize;

use self::api::Containerd;
use super::container_image::{config_digest, diff_ids, is_sealed};
use crate::agent::protocol::ContainerImage;
use crate::agent::record::chain_ids;
use crate::image::this_platform;

/// The directory of bundles in containerd's state directory.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// The namespace of Docker's containers.
const DOCKER: &str = "moby";

/// The most layers that are followed down.
const LAYERS_MAX: usize = 1024;

/// The image of the container whose bundle this is; `None` where it is no bundle of containerd's, or a container of no image.
pub(super) async fn image_of(bundle: &Path) -> Result<Option<ContainerImage>, Failure> {
    let Some(place) = Place::of(bundle) else { return Ok(None) };
    let containerd = Containerd::connect(&place.socket(), &place.namespace).await?;
    let container = containerd.container(&place.id).await?;
    let chain = chain(&containerd, &container.snapshotter, &container.snapshot_key).await?;
    if container.image.is_empty() && chain.is_empty() {
        return Ok(None);
    }
    let mut image = ContainerImage {
        reference: container.image.clone(),
        manifest_digest: None,
        is_sealed: false,
        diff_ids: Vec::new(),
        chain_ids: chain,
    };
    if let Some(named) = named(&containerd, &container.image).await? {
        // A name that stands for something else now says nothing of this container.
        let is_it = image.chain_ids.is_empty() || chain_ids(&named.diff_ids).last() == image.chain_ids.first();
        if is_it {
            image.manifest_digest = Some(named.manifest_digest);
            image.is_sealed = named.is_sealed;
            image.diff_ids = named.diff_ids;
        }
    }
    Ok(Some(image))
}

/// A container's snapshot, where containerd's record of the container says nothing of it.
pub(super) struct Snapshot<'a> {
    pub(super) snapshotter: &'a str,
    pub(super) key: &'a str,
    /// The digest of the image's manifest or index.
    pub(super) target: &'a str,
}

/// Whether this is the bundle of a container of Docker's.
pub(super) fn is_dockers(bundle: &Path) -> bool {
    Place::of(bundle).is_some_and(|place| place.namespace == DOCKER)
}

/// The image that a snapshot is of, without its name; `None` where there is no containerd, or no such snapshot.
pub(super) async fn image_of_snapshot(bundle: &Path, of: &Snapshot<'_>) -> Result<Option<ContainerImage>, Failure> {
    let Some(place) = Place::of(bundle) else { return Ok(None) };
    let containerd = Containerd::connect(&place.socket(), &place.namespace).await?;
    let chain = chain(&containerd, of.snapshotter, of.key).await?;
    if chain.is_empty() {
        return Ok(None);
    }
    let named = documents(&containerd, of.target.to_owned()).await?;
    Ok(Some(ContainerImage {
        reference: String::new(),
        manifest_digest: named.as_ref().map(|named| named.manifest_digest.clone()),
        is_sealed: named.as_ref().is_some_and(|named| named.is_sealed),
        diff_ids: named.map(|named| named.diff_ids).unwrap_or_default(),
        chain_ids: chain,
    }))
}

/// The names of the snapshots below a container, uppermost first: containerd calls them after the layers in them.
async fn chain(containerd: &Containerd, snapshotter: &str, key: &str) -> Result<Vec<String>, Failure> {
    let mut chain = Vec::new();
    let mut next = key.to_owned();
    while !next.is_empty() {
        let Some(parent) = containerd.parent(snapshotter, &next).await? else { break };
        if chain.len() == LAYERS_MAX {
            return Err(Failure::bad_input(format!("the container has more than {LAYERS_MAX} layers")));
        }
        if !parent.is_empty() {
            chain.push(parent.clone());
        }
        next = parent;
    }
    Ok(chain)
}

struct Named {
    manifest_digest: String,
    is_sealed: bool,
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// The image that a name stands for, as far as its documents are here.
async fn named(containerd: &Containerd, name: &str) -> Result<Option<Named>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    match containerd.target(name).await? {
        None => Ok(None),
        Some(target) => documents(containerd, target).await,
    }
}

/// The image whose manifest, or index of manifests, has this digest.
async fn documents(containerd: &Containerd, target: String) -> Result<Option<Named>, Failure> {
    let Some(document) = containerd.content(&target).await? else { return Ok(None) };
    let index: Option<Index> = serde_json::from_slice(&document).ok();
    let Some(index) = index else { return manifest(containerd, target, &document).await };
    let is_this_machines = |entry: &Entry| {
        let name = entry.platform.as_ref().map(|platform| format!("{}/{}", platform.os, platform.architecture));
        name.is_none_or(|name| name == this_platform())
    };
    for entry in index.manifests.into_iter().filter(is_this_machines) {
        if let Some(document) = containerd.content(&entry.digest).await? {
            return manifest(containerd, entry.digest, &document).await;
        }
    }
    Ok(None)
}

async fn manifest(containerd: &Containerd, digest: String, document: &[u8]) -> Result<Option<Named>, Failure> {
    let Some(config) = containerd.content(&config_digest(document)?).await? else { return Ok(None) };
    Ok(Some(Named { manifest_digest: digest, is_sealed: is_sealed(document)?, diff_ids: diff_ids(&config)? }))
}

#[derive(Debug, Eq, PartialEq)]
struct Place {
    state: PathBuf,
    namespace: String,
    id: String,
}

impl Place {
    /// From `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`.
    fn of(bundle: &Path) -> Option<Self> {
        let namespace = bundle.parent()?;
        let tasks = namespace.parent().filter(|tasks| tasks.file_name().is_some_and(|name| name == TASKS))?;
        Some(Self {
            state: tasks.parent()?.to_owned(),
            namespace: namespace.file_name()?.to_str()?.to_owned(),
            id: bundle.file_name()?.to_str()?.to_owned(),
        })
    }

    /// The shim that calls was told containerd's address; else it is in the state directory, its usual place.
    fn socket(&self) -> PathBuf {
        let told = std::env::var_os("GRPC_ADDRESS").map(PathBuf::from);
        told.or_else(address_of_parent).unwrap_or_else(|| self.state.join("containerd.sock"))
    }
}

/// `-address PATH` on the command line of the calling process.
fn address_of_parent() -> Option<PathBuf> {
    let parent = rustix::process::getppid()?;
    let line = std::fs::read(format!("/proc/{}/cmdline", parent.as_raw_nonzero())).ok()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let place = words.iter().position(|word| *word == b"-address" || *word == b"--address")?;
    std::str::from_utf8(words.get(place + 1)?).ok().filter(|address| !address.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_tells_its_namespace() {
        let place = Place::of(Path::new("/run/containerd/io.containerd.runtime.v2.task/k8s.io/abc")).unwrap();
        let expected = Place { state: "/run/containerd".into(), namespace: "k8s.io".to_owned(), id: "abc".to_owned() };
        assert_eq!(place, expected);
        assert_eq!(Place::of(Path::new("/var/lib/storage/overlay-containers/abc/userdata")), None);
    }
}
