//! Manifests that refer to another one: listed by the registry, or at a tag where it lists none.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]

mod support;

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use image_store::{Descriptor, Digest, Document, ErrorKind, Index, Manifest, Place, Store, UsageError, media_type};
use support::server::{Seen, Server};
use support::{DebianRegistry, TestImage, create, open, options};

const KIND: &str = "application/spdx+json";

fn about(subject: Descriptor, text: &str) -> Manifest {
    let config = Descriptor::of(media_type::OCI_EMPTY, b"{}");
    let mut manifest = Manifest::new(config, vec![Descriptor::of(KIND, text.as_bytes())]);
    manifest.artifact_type = Some(KIND.to_owned());
    manifest.subject = Some(subject);
    manifest
}

/// The same, with its blobs in place.
async fn referrer(store: &Store, subject: Descriptor, text: &str) -> Manifest {
    store.put_blob(media_type::OCI_EMPTY, "{}".into()).await.unwrap();
    store.put_blob(KIND, text.to_owned().into()).await.unwrap();
    about(subject, text)
}

/// Writes two referrers of an image, one of them twice, and finds both.
async fn two_are_found(reference: &str) {
    let image = TestImage::new(1);
    let store = create(reference).await;
    assert!(store.referrers(&image.digest()).await.unwrap().is_empty());
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image.bytes());
    let mut written = Vec::new();
    // The subject comes last: it need not be there.
    for text in ["one", "two", "two"] {
        written.push(store.put_referrer(&referrer(&store, subject.clone(), text).await).await.unwrap());
    }
    image.write_to(&store).await;
    assert_eq!(written[1], written[2]);
    let store = open(reference).await;
    let found = store.referrers(&image.digest()).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.digest).collect::<Vec<_>>(), written[..2]);
    assert!(found.iter().all(|entry| entry.artifact_type.as_deref() == Some(KIND)));
    let Document::Manifest(read) = store.manifest(&written[0]).await.unwrap().parse().unwrap() else { panic!() };
    assert_eq!(read.subject, Some(subject));
    assert_eq!(store.resolve().await.unwrap().digest, image.digest(), "the image keeps its name");
}

#[tokio::test]
async fn referrers_stand_beside_an_image_in_a_layout_and_in_an_archive() {
    let directory = tempfile::tempdir().unwrap();
    two_are_found(&format!("oci:{}/layout:v1", directory.path().display())).await;
    two_are_found(&format!("oci-archive:{}/archive.tar:v1", directory.path().display())).await;
}

#[tokio::test]
async fn a_registry_that_lists_no_referrers_has_them_at_a_tag() {
    let registry = DebianRegistry::start();
    two_are_found(&registry.reference("team/app:v1")).await;
}

#[tokio::test]
async fn a_registry_that_lists_referrers_is_asked_for_its_list() {
    let subject = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"subject"), 7);
    let mut entry = Descriptor::of(media_type::OCI_MANIFEST, b"referrer");
    entry.artifact_type = Some(KIND.to_owned());
    let list = Index::new(vec![entry.clone()]).to_bytes().unwrap();
    let answer = move |seen: &Seen, _: &_, _| -> Response {
        match &seen.method {
            &Method::PUT => (StatusCode::CREATED, [("OCI-Subject", "noted")]).into_response(),
            _ if seen.path.contains("/referrers/") => list.clone().into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let server = Server::start(answer).await;
    let store = server.create(&options()).await;
    let digest = store.put_referrer(&about(subject.clone(), "one")).await.unwrap();
    assert_eq!(store.referrers(&subject.digest).await.unwrap(), [entry]);
    let puts: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == Method::PUT).collect();
    assert_eq!(puts.len(), 1, "no list of ours: {puts:?}");
    assert!(puts[0].path.ends_with(&digest.to_string()));
}

#[tokio::test]
async fn a_list_that_is_none_is_refused() {
    let server = Server::start(|seen, _, _| {
        if seen.path.contains("/referrers/") {
            "no index".into_response()
        } else {
            StatusCode::NOT_FOUND.into_response()
        }
    })
    .await;
    let error = server.open(&options()).await.referrers(&Digest::of(b"subject")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_manifest_without_a_subject_is_no_referrer_and_an_image_is_no_list() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&format!("oci:{}/layout:v1", directory.path().display())).await;
    let image = TestImage::new(1);
    image.write_to(&store).await;
    let error = store.put_referrer(&image.manifest).await.unwrap_err();
    assert!(matches!(error, image_store::Error::Usage(UsageError::NoSubject)));
    // Somebody's image has the tag that the list would have.
    let subject = Descriptor::of(media_type::OCI_MANIFEST, &image.bytes());
    let tag = Place::Tag(format!("sha256-{}", subject.digest.hex()));
    store.put_manifest(image.bytes(), media_type::OCI_MANIFEST, tag).await.unwrap();
    let error = store.put_referrer(&referrer(&store, subject, "one").await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
