//! Packing that cannot be or was broken off, one test each: the message, the exit code, and nothing half written.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use end_to_end::image::{create, flip, manifest, open};
use end_to_end::registry::Registry;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::vendor::Vendor;
use image_store::{Manifest, media_type};

#[tokio::test]
async fn an_interrupted_pack_leaves_no_image_and_its_rerun_succeeds() {
    let scratch = tempfile::tempdir().unwrap();
    let big = BigImage::make(scratch.path()).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let registry = Registry::start(&scratch.path().join("registry"));
    let layout = scratch.path().join("sealed");
    let targets = [format!("oci:{}:v1", layout.display()), registry.reference("recipe:v1")];
    for target in &targets {
        let mut packing =
            vendor.command(["pack", &big.0, target, "--product", PRODUCT]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        packing.kill().unwrap();
        assert!(!packing.wait().unwrap().success(), "it was interrupted in time");
        vendor.sealift(["inspect", target]).failed(3, "cannot");
        age_temporary_files(&layout);
        vendor.pack(&big.0, target, PRODUCT);
        vendor.sealift(["verify", "--deep", target]).succeeded();
    }
    let blobs = std::fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let names: Vec<_> = blobs.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.len() == 64), "temporary files stayed: {names:?}");
}

#[tokio::test]
async fn one_layer_that_is_not_what_its_digest_says_ends_the_packing_of_all_and_nothing_half_written_stays() {
    let scene = Scene::set().await;
    let plain = open(&scene.plain.reference("mixed")).await;
    let layers = manifest(&plain).await.layers;
    flip(&scene.plain.directory().join("blobs/sha256").join(layers[2].digest.hex()), 100);
    let target = scene.scratch.path().join("broken");
    let reference = format!("oci:{}:v1", target.display());
    let said = scene.vendor.sealift(["pack", &scene.plain.reference("mixed"), &reference, "--product", PRODUCT]);
    said.failed(4, &layers[2].digest.to_string());
    let index = std::fs::read_to_string(target.join("index.json")).unwrap();
    assert!(!index.contains("digest"), "an image is named: {index}");
    for blob in std::fs::read_dir(target.join("blobs/sha256")).unwrap() {
        let (name, bytes) = (blob.as_ref().unwrap().file_name(), std::fs::read(blob.unwrap().path()).unwrap());
        assert_eq!(name.to_str().unwrap(), image_store::Digest::of(&bytes).hex(), "a blob that is not whole");
    }
}

/// Files of a writer that may still be at work are left alone for a minute: it has passed.
fn age_temporary_files(layout: &Path) {
    let minutes = std::time::SystemTime::now() - Duration::from_mins(2);
    for entry in std::fs::read_dir(layout.join("blobs/sha256")).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "partial") {
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(minutes).unwrap();
        }
    }
}

/// An image with one layer that takes a while to pack.
struct BigImage(String);

impl BigImage {
    async fn make(directory: &Path) -> Self {
        let reference = format!("oci:{}:v1", directory.join("big").display());
        let store = create(&reference).await;
        let mut writer = store.begin_blob().await.unwrap();
        let mut block = vec![0_u8; 1 << 20];
        for megabyte in 0_u32..1536 {
            block[..4].copy_from_slice(&megabyte.to_le_bytes());
            writer.write(block.clone().into()).await.unwrap();
        }
        let (digest, size) = writer.complete().await.unwrap();
        let layer = image_store::Descriptor::new(media_type::OCI_LAYER, digest, size);
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest.to_string()]},
        });
        let config = store.put_blob(media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await.unwrap();
        let bytes = Manifest::new(config, vec![layer]).to_bytes().unwrap();
        store.put_image(bytes, media_type::OCI_MANIFEST).await.unwrap();
        Self(reference)
    }
}

#[tokio::test]
async fn a_selection_that_does_not_fit_is_refused_before_there_is_a_destination() {
    let scene = Scene::set().await;
    let layout = scene.scratch.path().join("never");
    let target = format!("oci:{}:v1", layout.display());
    let source = scene.plain.reference("mixed");
    let pack = |more: &[&str]| {
        let mut args = vec!["pack", &source, &target, "--product", PRODUCT];
        args.extend(more);
        scene.vendor.sealift(args)
    };
    pack(&["--layers=17"]).failed(2, "there is no layer 17");
    pack(&["--platform", "linux/riscv64"]).failed(3, "no manifest for linux/riscv64");
    assert!(!layout.exists());
}

#[tokio::test]
async fn an_image_that_is_sealed_already_is_not_packed_again() {
    let scene = Scene::set().await;
    let target = format!("oci:{}:v1", scene.scratch.path().join("twice").display());
    let said = scene.vendor.sealift(["pack", &scene.sealed, &target, "--product", PRODUCT]);
    said.failed(3, "no layer to encrypt");
    let keys = scene.vendor.sealift(["product", "show", PRODUCT]).succeeded().stdout;
    assert_eq!(keys.matches("key ").count(), 1, "no second key: {keys}");
}

#[tokio::test]
async fn a_sealed_image_is_not_put_beside_the_plain_one() {
    let scene = Scene::set().await;
    let target = format!("oci:{}:sealed", scene.plain.directory().display());
    let said = scene.vendor.sealift(["pack", &scene.plain.reference("mixed"), &target, "--product", PRODUCT]);
    said.failed(2, "would hold the plain image and the sealed one");
}
