//! What the agent knows of sealed images, kept on disk: also after a restart, and for the OCI runtime while there is no agent,
//! a container of their layers is known. Holds no key.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use command_line::{ExitCode, Failure, FailureContext as _, whole_file};
use image_store::Digest;
use serde::{Deserialize, Serialize};

use super::protocol::ContainerImage;
use crate::image::SignedImage;

/// Where the record is unless the agent is told otherwise.
pub(crate) const DEFAULT_STATE: &str = "/var/lib/sealift/agent";

/// The longest record that is read, in bytes; an image takes about one KiB.
const RECORD_MAX: u64 = 64 << 20;

/// The record of images in a state directory.
pub(crate) fn images_in(state: &Path) -> PathBuf {
    state.join("images.json")
}

/// Where the record is found from the agent's socket: a link to it.
pub(crate) fn images_beside(socket: &Path) -> PathBuf {
    socket.with_extension("images")
}

/// A sealed image whose manifest was seen to be signed by a signer of this node's licences.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct KnownImage {
    /// As it was opened.
    pub(crate) reference: String,
    /// `sha256:…` of the platform's manifest.
    pub(crate) manifest_digest: String,
    /// Thumbprints of the keys that signed it.
    pub(crate) signers: Vec<String>,
    /// The products whose keys open it.
    pub(crate) products: Vec<String>,
    /// The digests of all plain layers, lowest first.
    pub(crate) diff_ids: Vec<String>,
    /// Those of the sealed ones.
    pub(crate) sealed_diff_ids: Vec<String>,
}

impl KnownImage {
    /// What is worth knowing of an image.
    ///
    /// # Errors
    /// Where several partners have sealed it: the agent holds a lease of one for each container.
    pub(crate) fn of(reference: String, image: &SignedImage) -> Result<Self, Failure> {
        image.demand_one_service()?;
        let mut products: Vec<String> = image.key_paths()?.iter().map(|path| path.product.to_string()).collect();
        products.dedup();
        let sealed = image.layers.iter().filter(|layer| layer.sealed.is_some());
        Ok(Self {
            reference,
            manifest_digest: image.manifest_digest.clone(),
            signers: image.signers.clone(),
            products,
            diff_ids: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            sealed_diff_ids: sealed.map(|layer| layer.diff_id.clone()).collect(),
        })
    }

    /// How many of its layers a container begins with; `None` where none of its sealed layers is in the container.
    fn in_common(&self, image: &ContainerImage) -> Option<usize> {
        let is_sealed = |diff_id: &String| self.sealed_diff_ids.contains(diff_id);
        let by_layers = || {
            let common = self.diff_ids.iter().zip(&image.diff_ids).take_while(|(own, other)| own == other).count();
            image.diff_ids.iter().any(is_sealed).then_some(common)
        };
        // A chain id stands for a layer and all below it.
        let by_chain = || {
            let common = chain_ids(&self.diff_ids).iter().rposition(|chain| image.chain_ids.contains(chain))? + 1;
            self.diff_ids.iter().take(common).any(is_sealed).then_some(common)
        };
        by_layers().max(by_chain())
    }
}

/// All sealed images that this node knows.
#[derive(Debug)]
pub(crate) struct KnownImages {
    file: PathBuf,
    images: Mutex<BTreeMap<String, Arc<KnownImage>>>,
}

impl KnownImages {
    /// Reads a record; an empty one where there is none.
    pub(crate) fn load(file: PathBuf) -> Result<Self, Failure> {
        let images: Vec<KnownImage> = read(&file)?.unwrap_or_default();
        let images = images.into_iter().map(|image| (image.manifest_digest.clone(), Arc::new(image))).collect();
        Ok(Self { file, images: Mutex::new(images) })
    }

    /// Adds an image, on disk as well.
    pub(crate) fn remember(&self, image: KnownImage) -> Result<Arc<KnownImage>, Failure> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = images.get(&image.manifest_digest).filter(|known| ***known == image) {
            return Ok(Arc::clone(known));
        }
        let image = Arc::new(image);
        images.insert(image.manifest_digest.clone(), Arc::clone(&image));
        let all: Vec<&KnownImage> = images.values().map(AsRef::as_ref).collect();
        write(&self.file, &all)?;
        Ok(image)
    }

    /// The sealed image with this manifest.
    pub(crate) fn with_manifest(&self, digest: &str) -> Option<Arc<KnownImage>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// The sealed image that a container's is, or is made from. Engines that decrypt write manifests of their own: it is the
    /// plain layers that tell.
    pub(crate) fn of_container(&self, image: &ContainerImage) -> Option<Arc<KnownImage>> {
        if let Some(known) = image.manifest_digest.as_deref().and_then(|digest| self.with_manifest(digest)) {
            return Some(known);
        }
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let rated = images.values().filter_map(|known| Some((known.in_common(image)?, known)));
        // The most layers in common; among those the one that has no more than them.
        let best = rated.max_by_key(|(common, known)| (*common, std::cmp::Reverse(known.diff_ids.len())));
        best.map(|(_, known)| Arc::clone(known))
    }
}

/// The chain ids of layers, lowest first: the [OCI image specification]'s name for a layer with all below it.
///
/// [OCI image specification]: https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md#layer-chainid
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()).to_string(),
        });
    }
    chain
}

/// Reads a file of the state directory; `None` where there is none.
pub(super) fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<Option<T>, Failure> {
    let cannot = || format!("cannot read the agent's record `{}`", file.display());
    let opened = match fs::File::open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.or_fail(ExitCode::Other, cannot)?,
    };
    let mut bytes = Vec::new();
    opened.take(RECORD_MAX).read_to_end(&mut bytes).or_fail(ExitCode::Other, cannot)?;
    serde_json::from_slice(&bytes).map(Some).or_fail(ExitCode::BadInput, cannot)
}

/// Writes a file of the state directory.
pub(super) fn write(file: &Path, value: &impl Serialize) -> Result<(), Failure> {
    whole_file::write(file, &serde_json::to_vec(value).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(digest: &str, layers: &[(&str, bool)]) -> KnownImage {
        let names = |only_sealed: bool| {
            layers.iter().filter(|(_, sealed)| *sealed || !only_sealed).map(|(name, _)| (*name).to_owned()).collect()
        };
        KnownImage {
            reference: format!("docker://registry.example/{digest}"),
            manifest_digest: digest.to_owned(),
            signers: Vec::new(),
            products: Vec::new(),
            diff_ids: names(false),
            sealed_diff_ids: names(true),
        }
    }

    fn container(digest: Option<&str>, layers: &[&str]) -> ContainerImage {
        ContainerImage {
            reference: String::new(),
            manifest_digest: digest.map(ToOwned::to_owned),
            is_sealed: false,
            diff_ids: layers.iter().map(|name| (*name).to_owned()).collect(),
            chain_ids: Vec::new(),
        }
    }

    #[test]
    fn a_container_whose_image_is_gone_is_known_by_its_snapshots() {
        let state = tempfile::tempdir().unwrap();
        let images = KnownImages::load(images_in(state.path())).unwrap();
        images.remember(known("one", &[("base", false), ("app", true)])).unwrap();
        images.remember(known("two", &[("base", false), ("app", true), ("more", true)])).unwrap();
        let found = |layers: &[&str]| {
            let layers: Vec<String> = layers.iter().map(|name| (*name).to_owned()).collect();
            let chain_ids = chain_ids(&layers).into_iter().rev().collect();
            let image = ContainerImage { chain_ids, ..container(None, &[]) };
            images.of_container(&image).map(|known| known.manifest_digest.clone())
        };
        assert_eq!(found(&["base", "app"]).as_deref(), Some("one"));
        assert_eq!(found(&["base", "app", "more"]).as_deref(), Some("two"));
        assert_eq!(found(&["base", "app", "derived"]).as_deref(), Some("one"));
        assert_eq!(found(&["base", "own"]), None);
        assert_eq!(found(&["other", "app"]), None, "the name of a chain says nothing of a layer moved elsewhere");
    }

    #[test]
    fn chains_are_named_as_the_specification_has_it() {
        let layers = ["sha256:aa", "sha256:bb"].map(ToOwned::to_owned);
        let expected = "sha256:b68ad689d6d1ec110ea1c13617437ad6f3766d4b3b309f6a603a222e07a0164f".to_owned();
        assert_eq!(chain_ids(&layers), ["sha256:aa".to_owned(), expected]);
    }

    #[test]
    fn a_container_is_known_by_its_manifest_or_by_a_sealed_layer_also_after_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let images = KnownImages::load(images_in(state.path())).unwrap();
        images.remember(known("one", &[("base", false), ("app", true)])).unwrap();
        images.remember(known("two", &[("base", false), ("app", true), ("more", true)])).unwrap();
        for images in [images, KnownImages::load(images_in(state.path())).unwrap()] {
            let found = |digest, layers: &[&str]| {
                images.of_container(&container(digest, layers)).map(|known| known.manifest_digest.clone())
            };
            assert_eq!(found(Some("two"), &[]).as_deref(), Some("two"));
            assert_eq!(found(Some("other"), &["base", "app"]).as_deref(), Some("one"));
            assert_eq!(found(None, &["base", "app", "more"]).as_deref(), Some("two"));
            assert_eq!(found(None, &["base", "app", "derived"]).as_deref(), Some("one"));
            assert_eq!(found(None, &["moved", "app"]).as_deref(), Some("one"), "wherever the sealed layer lies");
            assert_eq!(found(None, &["base", "own"]), None, "a plain layer in common is nothing");
            assert_eq!(found(None, &[]), None);
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_no_empty_record() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("images.json"), "[{").unwrap();
        assert!(KnownImages::load(images_in(state.path())).is_err());
    }
}
