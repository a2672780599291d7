//! Against Debian's registry: push, pull, resume, late digests, credentials, interop with skopeo.
#![allow(unreachable_pub, reason = "a test is a crate of its own")]

mod support;

use std::fs;

use image_store::{
    CopyOutcome, Corruption, Descriptor, Digest, Error, ErrorKind, Place, Store, StoreOptions, UsageError, media_type,
};
use support::{
    Cut, CuttingProxy, DebianRegistry, TestImage, create, files_below, flip_byte, free_address, noise, open, options,
    read_all, skopeo,
};

#[tokio::test]
async fn image_is_pushed_and_pulled() {
    let registry = DebianRegistry::start();
    let reference = registry.reference("team/app:v1");
    let image = TestImage::new(1);
    assert_eq!(image.write_to(&create(&reference).await).await, image.digest());
    let (raw, manifest, blobs) = read_all(&open(&reference).await).await;
    assert_eq!((raw.bytes, manifest), (image.bytes(), image.manifest));
    assert_eq!(blobs[0], image.layers[0].1);
    let by_digest = registry.reference(&format!("team/app@{}", raw.digest));
    assert_eq!(open(&by_digest).await.resolve().await.unwrap().digest, raw.digest);
}

#[tokio::test]
async fn loopback_registry_without_tls_is_found_out() {
    let registry = DebianRegistry::start();
    let reference = registry.reference("app:v1");
    TestImage::new(1).write_to(&create(&reference).await).await;
    let options = StoreOptions { plain_http: false, ..options() };
    let store = Store::open(&reference.parse().unwrap(), &options).await.unwrap();
    store.resolve().await.unwrap();
}

#[tokio::test]
async fn skopeo_reads_what_was_pushed_and_the_other_way_round() {
    let registry = DebianRegistry::start();
    let directory = tempfile::tempdir().unwrap();
    let image = TestImage::new(1);
    let pushed = registry.reference("app:v1");
    image.write_to(&create(&pushed).await).await;
    let layout = format!("oci:{}/image:v1", directory.path().display());
    skopeo(&["copy", "--src-tls-verify=false", &pushed, &layout]);
    // skopeo compresses the plain layer on its way into a layout.
    let (_, manifest, blobs) = read_all(&open(&layout).await).await;
    assert_eq!((&manifest.config, &blobs[1]), (&image.manifest.config, &image.layers[1].1));
    let again = registry.reference("again:v1");
    skopeo(&["copy", "--dest-tls-verify=false", &layout, &again]);
    assert_eq!(read_all(&open(&again).await).await.1.config, manifest.config);
    let docker = registry.reference("docker:v1");
    skopeo(&["copy", "--format=v2s2", "--dest-tls-verify=false", &layout, &docker]);
    let (raw, _, blobs) = read_all(&open(&docker).await).await;
    assert_eq!((raw.media_type.as_str(), &blobs[1]), (media_type::DOCKER_MANIFEST, &image.layers[1].1));
}

#[tokio::test]
async fn signature_tag_is_pushed_and_found() {
    let registry = DebianRegistry::start();
    let store = create(&registry.reference("app:v1")).await;
    let image = TestImage::new(1);
    image.write_to(&store).await;
    let tag = format!("sha256-{}.sig", image.digest().hex());
    assert!(matches!(store.manifest_by_tag(&tag).await, Err(Error::NotFound { .. })));
    store.put_manifest(image.bytes(), media_type::OCI_MANIFEST, Place::Tag(tag.clone())).await.unwrap();
    assert_eq!(store.manifest_by_tag(&tag).await.unwrap().digest, image.digest());
}

#[tokio::test]
async fn digest_is_named_only_at_the_end_of_an_upload() {
    let registry = DebianRegistry::start();
    let store = create(&registry.reference("app:v1")).await;
    let bytes = noise(5 << 20, 3);
    let mut writer = store.begin_blob().await.unwrap();
    for chunk in bytes.chunks(300_000) {
        writer.write(bytes.slice_ref(chunk)).await.unwrap();
    }
    let (digest, size) = writer.complete().await.unwrap();
    assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
    assert_eq!(fs::read(registry.blob_file(&digest)).unwrap(), bytes);
    let descriptor = Descriptor::new(media_type::OCI_LAYER, digest, size);
    assert!(store.has_blob(&descriptor).await.unwrap());
    assert!(!store.has_blob(&Descriptor::of(media_type::OCI_LAYER, b"absent")).await.unwrap());
}

#[tokio::test]
async fn upload_under_a_wrong_digest_is_refused() {
    let registry = DebianRegistry::start();
    let store = create(&registry.reference("app:v1")).await;
    let mut writer = store.begin_blob().await.unwrap();
    writer.write(noise(1_000, 1)).await.unwrap();
    let error = writer.finish(Digest::of(b"other"), 1_000).await.unwrap_err();
    assert!(matches!(error, Error::Usage(UsageError::Written { .. })));
    // Where the caller hashes, the registry notices.
    let mut writer = store.begin_hashed_blob().await.unwrap();
    writer.write(noise(1_000, 1)).await.unwrap();
    let error = writer.finish(Digest::of(b"other"), 1_000).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 400, .. }), "{error:?}");
}

#[tokio::test]
async fn dropped_upload_is_cancelled() {
    let registry = DebianRegistry::start();
    let store = create(&registry.reference("app:v1")).await;
    let mut writer = store.begin_blob().await.unwrap();
    // The registry itself leaves an empty hash state behind a cancelled session.
    let sessions = || files_below(&registry.uploads("app")).iter().filter(|file| file.ends_with("/data")).count();
    writer.write(noise(3 << 20, 1)).await.unwrap();
    assert_eq!(sessions(), 1);
    drop(writer);
    while sessions() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn broken_download_goes_on_where_it_broke() {
    let registry = DebianRegistry::start();
    let image = TestImage::with_layer_bytes(1, 3 << 20);
    image.write_to(&create(&registry.reference("app:v1")).await).await;
    let proxy = CuttingProxy::start(registry.address(), Cut::Download, vec![200_000, 1_000_000, 100, 500_000]).await;
    let store = open(&format!("docker://{}/app:v1", proxy.address)).await;
    let descriptor = &image.manifest.layers[0];
    assert_eq!(store.small_blob(descriptor, 1 << 30).await.unwrap(), image.layers[0].1);
    assert_eq!(proxy.connections(), 5);
    let mut stream = store.read_range(descriptor, 10..2_000_000).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.chunk().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(bytes, image.layers[0].1[10..2_000_000]);
}

#[tokio::test]
async fn download_that_always_breaks_is_unavailable() {
    let registry = DebianRegistry::start();
    let image = TestImage::new(1);
    image.write_to(&create(&registry.reference("app:v1")).await).await;
    let proxy = CuttingProxy::start(registry.address(), Cut::Download, vec![50; 100]).await;
    let store = open(&format!("docker://{}/app:v1", proxy.address)).await;
    let error = store.small_blob(&image.manifest.layers[0], 1 << 30).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(proxy.connections(), 4);
}

#[tokio::test]
async fn broken_upload_is_unavailable_and_its_rerun_succeeds() {
    let registry = DebianRegistry::start();
    let proxy = CuttingProxy::start(registry.address(), Cut::Upload, vec![1 << 20]).await;
    let store = create(&format!("docker://{}/app:v1", proxy.address)).await;
    let bytes = noise(8 << 20, 1);
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let upload = async || {
        let mut writer = store.begin_blob().await?;
        writer.write(bytes.clone()).await?;
        writer.finish(descriptor.digest, descriptor.size).await
    };
    let error = upload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!store.has_blob(&descriptor).await.unwrap());
    upload().await.unwrap();
    assert_eq!(fs::read(registry.blob_file(&descriptor.digest)).unwrap(), bytes);
}

#[tokio::test]
async fn blob_changed_in_the_registry_is_found() {
    let registry = DebianRegistry::start();
    let reference = registry.reference("app:v1");
    let image = TestImage::new(1);
    image.write_to(&create(&reference).await).await;
    let descriptor = &image.manifest.layers[0];
    let file = registry.blob_file(&descriptor.digest);
    flip_byte(&file, 100_000);
    let store = open(&reference).await;
    let error = store.small_blob(descriptor, 1 << 30).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Digest { .. }, .. }), "{error:?}");
    fs::File::options().write(true).open(&file).unwrap().set_len(1_000).unwrap();
    let error = store.small_blob(descriptor, 1 << 30).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Size { found: 1_000, .. }, .. }), "{error:?}");
}

#[tokio::test]
async fn blob_is_mounted_from_another_repository() {
    let registry = DebianRegistry::start();
    let source = create(&registry.reference("first:v1")).await;
    let image = TestImage::new(1);
    image.write_to(&source).await;
    let destination = create(&registry.reference("second:v1")).await;
    let layer = &image.manifest.layers[0];
    assert_eq!(destination.copy_blob(&source, layer).await.unwrap(), CopyOutcome::Mounted);
    assert_eq!(destination.copy_blob(&source, layer).await.unwrap(), CopyOutcome::Present);
    let other = DebianRegistry::start();
    let destination = create(&other.reference("second:v1")).await;
    assert_eq!(destination.copy_blob(&source, layer).await.unwrap(), CopyOutcome::Copied);
    assert_eq!(destination.small_blob(layer, 1 << 30).await.unwrap(), image.layers[0].1);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let registry = DebianRegistry::start();
    let store = open(&registry.reference("app:v1")).await;
    assert!(matches!(store.resolve().await, Err(Error::NotFound { object, .. }) if object == "tag v1"));
    let blob = Descriptor::of(media_type::OCI_LAYER, b"absent");
    assert!(matches!(store.blob(&blob).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.manifest(&blob.digest).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn silent_address_is_unavailable() {
    let store = open(&format!("docker://{}/app:v1", free_address())).await;
    let error = store.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn manifest_without_its_blobs_is_refused_by_the_registry() {
    let registry = DebianRegistry::start();
    let store = create(&registry.reference("app:v1")).await;
    let put = store.put_image(TestImage::new(1).bytes(), media_type::OCI_MANIFEST).await;
    assert!(matches!(put, Err(Error::Refused { status: 400, .. } | Error::NotFound { .. })), "{put:?}");
}

#[tokio::test]
async fn password_opens_a_registry_and_a_wrong_one_is_denied() {
    let registry = DebianRegistry::start_with_password();
    let directory = tempfile::tempdir().unwrap();
    let reference = registry.reference("team/app:v1").parse().unwrap();
    let with = |name: &str, key: &str, auth: &str| {
        let path = directory.path().join(name);
        fs::write(&path, serde_json::json!({ "auths": { key: { "auth": auth } } }).to_string()).unwrap();
        StoreOptions { auth_file: Some(path), ..options() }
    };
    let address = registry.address().to_string();
    // base64 of `user:open sesame`, for the repository's own key; of `user:wrong word`, for the registry.
    let right = with("right.json", &format!("{address}/team"), "dXNlcjpvcGVuIHNlc2FtZQ==");
    let wrong = with("wrong.json", &address, "dXNlcjp3cm9uZyB3b3Jk");
    let image = TestImage::new(1);
    image.write_to(&Store::create(&reference, &right).await.unwrap()).await;
    let store = Store::open(&reference, &right).await.unwrap();
    assert_eq!(read_all(&store).await.0.digest, image.digest());
    for options in [wrong, options()] {
        let store = Store::open(&reference, &options).await.unwrap();
        let error = store.resolve().await.unwrap_err();
        assert!(matches!(error, Error::Denied { status: 401, .. }), "{error:?}");
        assert!(!format!("{error} {error:?} {store:?}").contains("wrong word"));
        let error = Store::create(&reference, &options).await.unwrap().begin_blob().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
    assert!(!format!("{store:?}").contains("sesame"));
}
