//! The plain images that tests pack: made by umoci from files of this machine, then given further compressions.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use image_store::{
    Descriptor, Document, ImageReference, Index, Manifest, Place, Platform, Store, StoreOptions, media_type,
};
use serde_json::Value;

use crate::peer::{self, peer, run};

/// An OCI layout with the tags `gzip` (as umoci wrote it), `mixed` (gzip, plain tar, zstd, gzip) and `multi` (an index of
/// `mixed` for linux/amd64 and linux/arm64).
#[derive(Debug)]
pub struct PlainImage {
    directory: PathBuf,
}

impl PlainImage {
    /// Makes the image in `directory`.
    ///
    /// # Panics
    /// When a peer is absent or fails.
    pub async fn make(directory: &Path) -> Self {
        for name in ["umoci", "busybox", "setfattr"] {
            drop(peer(name));
        }
        run(&mut peer::command(peer::fixture("make-image"), [directory])).succeeded();
        let image = Self { directory: directory.join("image") };
        image.add_variants().await;
        image
    }

    /// Adds the tag `simple`: without the layer of odd things, since containers/storage (podman, buildah) cannot give back
    /// sparse files as it got them. Gives the tag.
    ///
    /// # Panics
    /// When umoci fails.
    pub fn add_simple(&self) -> &'static str {
        let image = format!("{}:simple", self.directory.display());
        let tar = |number: u32| self.directory.with_file_name(format!("{number}.tar")).display().to_string();
        let umoci = |args: &[&str]| run(peer("umoci").args(args)).succeeded();
        umoci(&["new", "--image", &image]);
        for number in [1, 3, 4] {
            umoci(&["raw", "add-layer", "--image", &image, &tar(number)]);
        }
        let start = ["--config.workingdir", "/opt", "--config.entrypoint", "/opt/run.sh"];
        let environment = ["--config.env", "GREETING=world", "--config.env", "PATH=/bin"];
        umoci(
            &[&["config", "--image", &image, "--architecture", "amd64", "--os", "linux"], &start[..], &environment[..]]
                .concat(),
        );
        "simple"
    }

    /// `oci:DIR:TAG`.
    pub fn reference(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.directory.display())
    }

    /// The layout.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    async fn add_variants(&self) {
        let store = create(&self.reference("mixed")).await;
        let gzip = manifest(&open(&self.reference("gzip")).await).await;
        let mut mixed = gzip.clone();
        for (position, layer) in mixed.layers.iter_mut().enumerate() {
            let tar = unzip(&store, layer).await;
            let (bytes, kind) = match position {
                1 => (tar, media_type::OCI_LAYER),
                2 => (zstd::encode_all(tar.as_slice(), 3).expect("zstd"), media_type::OCI_LAYER_ZSTD),
                _ => continue,
            };
            *layer = store.put_blob(kind, bytes.into()).await.expect("layer");
        }
        let bytes = mixed.to_bytes().expect("manifest");
        store.put_image(bytes.clone(), media_type::OCI_MANIFEST).await.expect("manifest");
        self.add_index(&store, &mixed).await;
        store.commit().await.expect("commit");
    }

    async fn add_index(&self, store: &Store, amd64: &Manifest) {
        let config = store.small_blob(&amd64.config, 1 << 20).await.expect("config");
        let mut config: Value = serde_json::from_slice(&config).expect("config");
        config["architecture"] = "arm64".into();
        let mut arm64 = amd64.clone();
        let config = config.to_string().into_bytes();
        arm64.config = store.put_blob(media_type::OCI_CONFIG, config.into()).await.expect("config");
        let mut entries = Vec::new();
        for (architecture, manifest) in [("amd64", amd64), ("arm64", &arm64)] {
            let bytes = manifest.to_bytes().expect("manifest");
            store.put_manifest(bytes.clone(), media_type::OCI_MANIFEST, Place::Nested).await.expect("manifest");
            let mut entry = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
            let platform = serde_json::json!({"architecture": architecture, "os": "linux"});
            entry.platform = Some(serde_json::from_value::<Platform>(platform).expect("platform"));
            entries.push(entry);
        }
        let index = Index::new(entries).to_bytes().expect("index");
        let place = Place::Tag("multi".to_owned());
        store.put_manifest(index, media_type::OCI_INDEX, place).await.expect("index");
    }
}

/// Opens an image for reading.
///
/// # Panics
/// When it cannot.
pub async fn open(reference: &str) -> Store {
    Store::open(&parse(reference), &StoreOptions::default()).await.expect("image")
}

/// Opens an image for writing.
///
/// # Panics
/// When it cannot.
pub async fn create(reference: &str) -> Store {
    Store::create(&parse(reference), &StoreOptions::default()).await.expect("image")
}

/// The store's one manifest.
///
/// # Panics
/// When it is an index, or none.
pub async fn manifest(store: &Store) -> Manifest {
    match store.resolve().await.expect("manifest").parse().expect("manifest") {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => panic!("an index where a manifest was expected"),
    }
}

/// An image's config.
///
/// # Panics
/// When there is none.
pub async fn config_of(store: &Store, image: &Manifest) -> Value {
    serde_json::from_slice(&store.small_blob(&image.config, 1 << 20).await.expect("image")).expect("image")
}

/// Puts an image with this config in its place.
///
/// # Panics
/// When it cannot be written.
pub async fn put_image(store: &Store, mut image: Manifest, config: &Value) {
    image.config = store.put_blob(media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await.expect("image");
    store.put_image(image.to_bytes().expect("image"), media_type::OCI_MANIFEST).await.expect("image");
    store.commit().await.expect("image");
}

/// A layer's gzip stream, unpacked.
///
/// # Panics
/// When it is none.
pub async fn unzip(store: &Store, layer: &Descriptor) -> Vec<u8> {
    let blob = store.small_blob(layer, 64 << 20).await.expect("layer");
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(blob.as_ref()).read_to_end(&mut tar).expect("gzip");
    tar
}

/// The digests of a plain image's tars, whatever compresses them.
///
/// # Panics
/// When a layer cannot be read.
pub async fn plain_digests(store: &Store, manifest: &Manifest) -> Vec<String> {
    let mut digests = Vec::new();
    for layer in &manifest.layers {
        let blob = store.small_blob(layer, 64 << 20).await.expect("layer");
        let mut tar = Vec::new();
        match layer.media_type.rsplit('+').next() {
            Some("gzip") => flate2::read::GzDecoder::new(blob.as_ref()).read_to_end(&mut tar).map(drop).expect("gzip"),
            Some("zstd") => tar = zstd::decode_all(blob.as_ref()).expect("zstd"),
            _ => tar = blob.to_vec(),
        }
        digests.push(image_store::Digest::of(&tar).to_string());
    }
    digests
}

/// Flips one byte of a file.
///
/// # Panics
/// When the file has no such byte.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("file");
    bytes[at] ^= 0x40;
    std::fs::File::create(path).and_then(|mut file| file.write_all(&bytes)).expect("file");
}

fn parse(reference: &str) -> ImageReference {
    reference.parse().expect("reference")
}
