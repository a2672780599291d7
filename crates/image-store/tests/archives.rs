//! Archives: `oci-archive:` both ways with skopeo, `docker-archive:` as skopeo and old `docker save` lay it out.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use image_store::{Corruption, Digest, Error, ErrorKind, Store, UsageError, media_type};
use support::{TestImage, create, files_below, flip_byte, open, options, read_all, skopeo};

#[tokio::test]
async fn oci_archive_written_here_is_read_by_skopeo_and_here() {
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("oci-archive:{}/image.tar:v1", directory.path().display());
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    assert_eq!(files_below(directory.path()), ["image.tar"]);
    assert_eq!(skopeo(&["inspect", "--raw", &reference]).stdout, image.bytes());
    let (raw, _, blobs) = read_all(&open(&reference).await).await;
    assert_eq!(raw.digest, image.digest());
    assert_eq!(blobs[0], image.layers[0].1);
}

#[tokio::test]
async fn oci_archive_of_skopeo_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}/image:v1", directory.path().display());
    let archive = format!("oci-archive:{}/image.tar:v1", directory.path().display());
    let image = TestImage::new(1);
    image.write_to(&create(&layout).await).await;
    skopeo(&["copy", &layout, &archive]);
    // skopeo compresses the plain layer on the way.
    let (_, manifest, blobs) = read_all(&open(&archive).await).await;
    assert_eq!((&manifest.config, &manifest.layers[1]), (&image.manifest.config, &image.manifest.layers[1]));
    assert_eq!(blobs[1], image.layers[1].1);
}

#[tokio::test]
async fn archive_that_is_not_committed_never_appears() {
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("oci-archive:{}/image.tar", directory.path().display());
    let store = create(&reference).await;
    store.put_blob(media_type::OCI_LAYER, TestImage::new(1).config).await.unwrap();
    drop(store);
    assert!(files_below(directory.path()).is_empty());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn staging_of_an_interrupted_writer_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let stale = directory.path().join(".sealift-gone.staging");
    fs::create_dir_all(stale.join("blobs")).unwrap();
    fs::File::open(&stale).unwrap().set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
    let reference = format!("oci-archive:{}/image.tar", directory.path().display());
    TestImage::new(1).write_to(&create(&reference).await).await;
    assert_eq!(files_below(directory.path()), ["image.tar"]);
    assert!(!stale.exists());
}

#[tokio::test]
async fn flipped_byte_in_an_archive_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("oci-archive:{}/image.tar", directory.path().display());
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    let file = directory.path().join("image.tar");
    let layer = &image.layers[0].1;
    let bytes = fs::read(&file).unwrap();
    let at = bytes.windows(64).position(|window| window == &layer[2_000..2_064]).unwrap();
    flip_byte(&file, at);
    let error = open(&reference).await.small_blob(&image.manifest.layers[0], 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Digest { .. }, .. }));
}

#[tokio::test]
async fn docker_archive_of_skopeo_is_seen_as_an_oci_image() {
    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}/image:v1", directory.path().display());
    let archive = format!("docker-archive:{}/image.tar", directory.path().display());
    let image = TestImage::new(1);
    image.write_to(&create(&layout).await).await;
    skopeo(&["copy", &layout, &format!("{archive}:app:v1")]);
    for reference in [archive.clone(), format!("{archive}:app:v1"), format!("{archive}:docker.io/library/app:v1")] {
        let (raw, manifest, blobs) = read_all(&open(&reference).await).await;
        assert_eq!(raw.media_type, media_type::OCI_MANIFEST);
        assert_eq!(manifest.layers[0].media_type, media_type::OCI_LAYER);
        assert_eq!(manifest.layers[0].digest, Digest::of(&image.layers[0].1));
        assert_eq!(blobs[0], image.layers[0].1);
        let config: serde_json::Value = serde_json::from_slice(&blobs[2]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][1], manifest.layers[1].digest.to_string());
    }
    let absent = open(&format!("{archive}:app:v2")).await.resolve().await;
    assert!(matches!(absent, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn image_from_a_docker_archive_is_whole_for_skopeo() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let image = TestImage::new(1);
    image.write_to(&create(&format!("oci:{path}/image:v1")).await).await;
    skopeo(&["copy", &format!("oci:{path}/image:v1"), &format!("docker-archive:{path}/image.tar:app:v1")]);
    let source = open(&format!("docker-archive:{path}/image.tar")).await;
    let destination = create(&format!("oci:{path}/copy:v1")).await;
    let (raw, manifest, _) = read_all(&source).await;
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        destination.copy_blob(&source, descriptor).await.unwrap();
    }
    destination.put_image(raw.bytes, &raw.media_type).await.unwrap();
    skopeo(&["copy", &format!("oci:{path}/copy:v1"), &format!("docker-archive:{path}/again.tar:app:v1")]);
}

/// Old `docker save` links a layer that it has written before, and names directories after layer ids.
#[tokio::test]
async fn docker_archive_with_linked_and_compressed_layers_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    let image = TestImage::new(1);
    let (plain, gzip) = (&image.layers[0].1, &image.layers[1].1);
    let config = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": [
        Digest::of(plain), Digest::of(b"the plain form of the second"), Digest::of(plain),
    ]}});
    let list = serde_json::json!([{
        "Config": "config.json",
        "RepoTags": null,
        "Layers": ["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"],
    }]);
    let mut builder = tar::Builder::new(fs::File::create(&file).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("aa/layer.tar", plain);
    add("bb/layer.tar", gzip);
    add("config.json", config.to_string().as_bytes());
    add("manifest.json", list.to_string().as_bytes());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "cc/layer.tar", "../aa/layer.tar").unwrap();
    builder.finish().unwrap();
    let (_, manifest, blobs) = read_all(&open(&format!("docker-archive:{}", file.display())).await).await;
    assert_eq!(manifest.layers[1].media_type, media_type::OCI_LAYER_GZIP);
    assert_eq!(blobs[..3], [plain.clone(), gzip.clone(), plain.clone()]);
}

#[tokio::test]
async fn docker_archive_with_a_changed_layer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    let plain = &TestImage::new(1).layers[0].1;
    write_docker_archive(&file, &[Digest::of(b"another layer")], &[plain]);
    let store = open(&format!("docker-archive:{}", file.display())).await;
    let image_store::Document::Manifest(manifest) = store.resolve().await.unwrap().parse().unwrap() else { panic!() };
    let error = store.small_blob(&manifest.layers[0], 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Digest { .. }, .. }));
}

#[tokio::test]
async fn docker_archive_whose_layers_and_diff_ids_differ_in_number_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    write_docker_archive(&file, &[], &[b"layer"]);
    let reference = format!("docker-archive:{}", file.display()).parse().unwrap();
    let error = Store::open(&reference, &options()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Archive { .. }, .. }));
}

#[tokio::test]
async fn what_is_no_archive_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    for transport in ["oci-archive", "docker-archive"] {
        let reference = format!("{transport}:{}", file.display()).parse().unwrap();
        assert!(matches!(Store::open(&reference, &options()).await, Err(Error::NotFound { .. })));
        for content in [support::gzip(b"compressed").to_vec(), vec![7; 2_048], vec![0; 1_024]] {
            fs::write(&file, content).unwrap();
            assert_eq!(Store::open(&reference, &options()).await.unwrap_err().kind(), ErrorKind::Corrupt);
        }
        fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn docker_archive_cannot_be_written() {
    let reference = "docker-archive:out.tar:app:v1".parse().unwrap();
    let error = Store::create(&reference, &options()).await.unwrap_err();
    assert!(matches!(&error, Error::Usage(UsageError::ReadOnly { .. })));
    assert!(error.to_string().contains("oci-archive:"));
}

fn write_docker_archive(file: &Path, diff_ids: &[Digest], layers: &[&[u8]]) {
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}.tar")).collect();
    let config = serde_json::json!({ "rootfs": { "diff_ids": diff_ids } }).to_string();
    let list = serde_json::json!([{ "Config": "c.json", "RepoTags": ["app:v1"], "Layers": names }]).to_string();
    let mut builder = tar::Builder::new(fs::File::create(file).unwrap());
    let files = names.iter().map(String::as_str).zip(layers.iter().copied());
    for (name, bytes) in files.chain([("c.json", config.as_bytes()), ("manifest.json", list.as_bytes())]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    builder.finish().unwrap();
}
