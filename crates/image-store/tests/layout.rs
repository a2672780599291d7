//! OCI layout directories: round trips with skopeo, and what is refused or left behind.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]

mod support;

use std::fs;
use std::io::Read;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use image_store::{
    Corruption, Descriptor, Digest, Error, ErrorKind, Index, ManifestError, Place, Store, UsageError, media_type,
};
use proptest::prelude::*;
use support::{TestImage, create, files_below, flip_byte, noise, open, options, read_all, skopeo};

fn layout() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("oci:{}/image", directory.path().display());
    (directory, reference)
}

#[tokio::test]
async fn image_written_here_is_read_by_skopeo_and_back() {
    let (directory, reference) = layout();
    let image = TestImage::new(1);
    let tagged = format!("{reference}:v1");
    assert_eq!(image.write_to(&create(&tagged).await).await, image.digest());
    assert_eq!(skopeo(&["inspect", "--raw", &tagged]).stdout, image.bytes());
    let copy = format!("oci:{}/copy:v2", directory.path().display());
    skopeo(&["copy", &tagged, &copy]);
    // skopeo compresses the plain layer on the way, and keeps the others.
    let (_, manifest, blobs) = read_all(&open(&copy).await).await;
    assert_eq!((&manifest.config, &manifest.layers[1]), (&image.manifest.config, &image.manifest.layers[1]));
    assert_eq!((&blobs[1], &blobs[2]), (&image.layers[1].1, &image.config));
}

#[tokio::test]
async fn image_is_found_by_tag_by_digest_and_as_the_only_one() {
    let (_directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&format!("{reference}:v1")).await).await;
    for text in [reference.clone(), format!("{reference}:v1"), format!("{reference}@{}", image.digest())] {
        assert_eq!(open(&text).await.resolve().await.unwrap().bytes, image.bytes(), "{text}");
    }
    let error = open(&format!("{reference}:v2")).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::NotFound { object, .. } if object == "tag v2"));
    let absent = format!("{reference}@{}", Digest::of(b"absent"));
    assert!(matches!(open(&absent).await.resolve().await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn signature_beside_an_image_does_not_make_it_ambiguous() {
    let (_directory, reference) = layout();
    let image = TestImage::new(1);
    let store = create(&format!("{reference}:v1")).await;
    image.write_to(&store).await;
    let tag = format!("sha256-{}.sig", image.digest().hex());
    let signature = TestImage::new(2);
    signature.write_to(&create(&format!("{reference}:other")).await).await;
    store.put_manifest(signature.bytes(), media_type::OCI_MANIFEST, Place::Tag(tag.clone())).await.unwrap();
    assert_eq!(store.manifest_by_tag(&tag).await.unwrap().digest, signature.digest());
    let error = open(&reference).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Usage(UsageError::Ambiguous { tags, .. }) if tags == ["v1", "other"]));
    let (_directory, reference) = layout();
    let store = create(&format!("{reference}:v1")).await;
    image.write_to(&store).await;
    for (_, layer) in &signature.layers {
        store.put_blob(media_type::OCI_LAYER, layer.clone()).await.unwrap();
    }
    store.put_blob(media_type::OCI_CONFIG, signature.config.clone()).await.unwrap();
    store.put_manifest(signature.bytes(), media_type::OCI_MANIFEST, Place::Tag(tag)).await.unwrap();
    assert_eq!(open(&reference).await.resolve().await.unwrap().digest, image.digest());
}

#[tokio::test]
async fn nested_manifests_stay_out_of_the_index_file() {
    let (_directory, reference) = layout();
    let store = create(&format!("{reference}:v1")).await;
    let image = TestImage::new(1);
    for (_, layer) in &image.layers {
        store.put_blob(media_type::OCI_LAYER, layer.clone()).await.unwrap();
    }
    store.put_blob(media_type::OCI_CONFIG, image.config.clone()).await.unwrap();
    let digest = store.put_manifest(image.bytes(), media_type::OCI_MANIFEST, Place::Nested).await.unwrap();
    let index = Index::new(vec![Descriptor::of(media_type::OCI_MANIFEST, &image.bytes())]).to_bytes().unwrap();
    store.put_image(index.clone(), media_type::OCI_INDEX).await.unwrap();
    let store = open(&reference).await;
    let raw = store.resolve().await.unwrap();
    assert_eq!((raw.bytes, raw.media_type.as_str()), (index, media_type::OCI_INDEX));
    assert_eq!(store.manifest(&digest).await.unwrap().media_type, media_type::OCI_MANIFEST);
}

#[tokio::test]
async fn moved_tag_leaves_one_entry() {
    let (directory, reference) = layout();
    let reference = format!("{reference}:v1");
    let (first, second) = (TestImage::new(1), TestImage::new(2));
    first.write_to(&create(&reference).await).await;
    second.write_to(&create(&reference).await).await;
    second.write_to(&create(&reference).await).await;
    let index = Index::parse(&fs::read(directory.path().join("image/index.json")).unwrap()).unwrap();
    let [entry] = index.manifests.as_slice() else { panic!("{index:?}") };
    assert_eq!((entry.digest, entry.ref_name()), (second.digest(), Some("v1")));
}

#[tokio::test]
async fn writers_at_once_lose_no_tag() {
    let (_directory, reference) = layout();
    let image = TestImage::new(1);
    let store = create(&format!("{reference}:first")).await;
    image.write_to(&store).await;
    let writers = (0..20).map(|number| {
        let (reference, bytes) = (format!("{reference}:tag-{number}"), image.bytes());
        tokio::spawn(async move { create(&reference).await.put_image(bytes, media_type::OCI_MANIFEST).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }
    for number in 0..20 {
        store.manifest_by_tag(&format!("tag-{number}")).await.unwrap();
    }
}

#[tokio::test]
async fn manifest_before_its_blobs_is_refused() {
    let (_directory, reference) = layout();
    let store = create(&format!("{reference}:v1")).await;
    let image = TestImage::new(1);
    let error = store.put_image(image.bytes(), media_type::OCI_MANIFEST).await.unwrap_err();
    let missing = Digest::of(&image.layers[0].1);
    assert!(matches!(error, Error::Usage(UsageError::Incomplete { missing: found, .. }) if found == missing));
    assert!(matches!(store.resolve().await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn dropped_writer_leaves_nothing() {
    let (directory, reference) = layout();
    let store = create(&reference).await;
    let before = files_below(directory.path());
    let mut writer = store.begin_blob().await.unwrap();
    writer.write(noise(1 << 20, 1)).await.unwrap();
    assert_ne!(files_below(directory.path()), before);
    drop(writer);
    // The writing thread removes the file when it sees the end of its channel.
    while files_below(directory.path()) != before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn blob_that_is_not_what_was_announced_is_not_kept() {
    let (directory, reference) = layout();
    let store = create(&reference).await;
    let before = files_below(directory.path());
    let bytes = Bytes::from_static(b"content");
    for (digest, size) in [(Digest::of(b"other"), 7), (Digest::of(&bytes), 8)] {
        let mut writer = store.begin_blob().await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        let error = writer.finish(digest, size).await.unwrap_err();
        assert!(matches!(error, Error::Usage(UsageError::Written { found_bytes: 7, .. })));
    }
    let mut writer = store.begin_hashed_blob().await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    assert!(matches!(writer.complete().await, Err(Error::Usage(UsageError::Unhashed))));
    assert_eq!(files_below(directory.path()), before);
    let mut writer = store.begin_blob().await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    assert_eq!(writer.complete().await.unwrap(), (Digest::of(&bytes), 7));
}

#[tokio::test]
async fn leavings_of_interrupted_writers_are_removed_and_live_ones_kept() {
    let (directory, reference) = layout();
    let store = create(&reference).await;
    let blobs = directory.path().join("image/blobs/sha256");
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    let stale = blobs.join(".sealift-gone.partial");
    let fresh = blobs.join(".sealift-new.partial");
    let foreign = blobs.join("foreign.partial");
    for path in [&stale, &fresh, &foreign] {
        let file = fs::File::create(path).unwrap();
        if path != &fresh {
            file.set_modified(long_ago).unwrap();
        }
    }
    let mut writer = store.begin_blob().await.unwrap();
    writer.write(noise(1_000, 1)).await.unwrap();
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        if path != fresh {
            fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
    create(&reference).await;
    assert!(!stale.exists());
    assert!(fresh.exists() && foreign.exists());
    writer.complete().await.unwrap();
}

#[tokio::test]
async fn flipped_byte_is_an_error_in_the_place_of_the_end() {
    let (directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    let descriptor = &image.manifest.layers[0];
    flip_byte(&directory.path().join("image/blobs/sha256").join(descriptor.digest.hex()), 200_000);
    let mut stream = open(&reference).await.blob(descriptor).await.unwrap();
    let mut bytes = 0;
    let error = loop {
        match stream.chunk().await.unwrap() {
            Ok(chunk) => bytes += chunk.len() as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(bytes, descriptor.size);
    assert!(error.is_mismatch());
    assert!(
        matches!(error, Error::Corrupt { source: Corruption::Digest { wanted, .. }, .. } if wanted == descriptor.digest)
    );
    assert!(stream.chunk().await.is_none());
}

#[tokio::test]
async fn truncated_and_absurd_blobs_are_refused() {
    let (directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    let mut descriptor = image.manifest.layers[0].clone();
    let file = directory.path().join("image/blobs/sha256").join(descriptor.digest.hex());
    fs::File::options().write(true).open(&file).unwrap().set_len(1_000).unwrap();
    let store = open(&reference).await;
    let wanted = descriptor.size;
    assert!(matches!(
        store.blob(&descriptor).await,
        Err(Error::Corrupt { source: Corruption::Size { found: 1_000, wanted: size }, .. }) if size == wanted
    ));
    assert!(!store.has_blob(&descriptor).await.unwrap());
    descriptor.size = 1 << 50;
    let error = store.small_blob(&descriptor, 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Manifest(ManifestError::TooLarge { .. }), .. }));
}

#[tokio::test]
async fn manifest_with_a_flipped_byte_is_refused() {
    let (directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&format!("{reference}:v1")).await).await;
    flip_byte(&directory.path().join("image/blobs/sha256").join(image.digest().hex()), 40);
    let error = open(&reference).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Digest { .. }, .. }));
}

#[tokio::test]
async fn index_that_names_a_missing_manifest_is_corrupt() {
    let (directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&format!("{reference}:v1")).await).await;
    fs::remove_file(directory.path().join("image/blobs/sha256").join(image.digest().hex())).unwrap();
    let error = open(&format!("{reference}:v1")).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn ranges_are_read_and_checked() {
    let (_directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    let store = open(&reference).await;
    let descriptor = &image.manifest.layers[0];
    let mut stream = store.read_range(descriptor, 1_000..280_000).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.chunk().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(bytes, image.layers[0].1[1_000..280_000]);
    for range in [5..5, 0..descriptor.size + 1, descriptor.size..descriptor.size + 1] {
        let result = store.read_range(descriptor, range).await;
        assert!(matches!(result, Err(Error::Usage(UsageError::Range { .. }))));
    }
}

#[tokio::test]
async fn thread_reads_a_blob_like_a_file() {
    let (_directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    let stream = open(&reference).await.blob(&image.manifest.layers[0]).await.unwrap();
    let mut reader = stream.into_blocking();
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    assert_eq!(bytes.await.unwrap().unwrap(), image.layers[0].1);
}

#[tokio::test]
async fn what_is_no_layout_is_refused() {
    let (directory, reference) = layout();
    let parsed = reference.parse().unwrap();
    assert!(matches!(Store::open(&parsed, &options()).await, Err(Error::NotFound { .. })));
    create(&reference).await;
    fs::write(directory.path().join("image/oci-layout"), r#"{"imageLayoutVersion": "2.0.0"}"#).unwrap();
    assert!(matches!(Store::open(&parsed, &options()).await, Err(Error::Corrupt { .. })));
}

#[tokio::test]
async fn store_opened_for_reading_refuses_writes() {
    let (_directory, reference) = layout();
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    let store = open(&reference).await;
    assert!(matches!(store.begin_blob().await, Err(Error::Usage(UsageError::ReadOnly { .. }))));
    let put = store.put_image(image.bytes(), media_type::OCI_MANIFEST).await;
    assert!(matches!(put, Err(Error::Usage(UsageError::ReadOnly { .. }))));
}

#[tokio::test]
async fn reference_with_a_digest_takes_only_that_image() {
    let (_directory, reference) = layout();
    let image = TestImage::new(1);
    let store = create(&format!("{reference}@{}", Digest::of(b"other"))).await;
    let put = store.put_image(image.bytes(), media_type::OCI_MANIFEST).await;
    assert!(matches!(put, Err(Error::Usage(UsageError::Pinned { found, .. })) if found == image.digest()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn blobs_survive_any_chunking(chunks in prop::collection::vec(0..400_000_usize, 0..6), seed: u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let (_directory, reference) = layout();
            let store = create(&reference).await;
            let bytes = noise(chunks.iter().sum(), seed);
            let mut writer = store.begin_blob().await.unwrap();
            let mut rest = bytes.clone();
            for chunk in chunks {
                writer.write(rest.split_to(chunk)).await.unwrap();
            }
            let (digest, size) = writer.complete().await.unwrap();
            assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
            let descriptor = Descriptor::new(media_type::OCI_LAYER, digest, size);
            assert_eq!(store.small_blob(&descriptor, usize::MAX).await.unwrap(), bytes);
        });
    }
}
