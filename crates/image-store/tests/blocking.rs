//! Blobs as threads read them: with and without the verdict on their digest, and until they are told to stop.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]
#![allow(dead_code, reason = "not all of the support is used here")]

mod support;

use std::fs;
use std::io::{BufRead as _, Read as _};

use axum::body::Body;
use axum::http::header;
use axum::response::IntoResponse as _;
use futures_util::{StreamExt as _, stream};
use image_store::{BlockingBlob, Corruption, Descriptor, Digest, Error, Store, media_type};
use support::server::Server;
use support::{create, noise, open, options};
use tokio::task::spawn_blocking;

/// A layout with one blob of that many bytes.
async fn layout_with_blob(length: usize) -> (tempfile::TempDir, Store, Descriptor) {
    let directory = tempfile::tempdir().unwrap();
    let reference = format!("oci:{}:v1", directory.path().join("image").display());
    let store = create(&reference).await;
    let blob = store.put_blob(media_type::OCI_LAYER, noise(length, 1)).await.unwrap();
    let store = open(&reference).await;
    (directory, store, blob)
}

async fn read_to_end(mut blob: BlockingBlob) -> std::io::Result<Vec<u8>> {
    let read = spawn_blocking(move || {
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map(|_| bytes)
    });
    read.await.unwrap()
}

fn corruption(error: &std::io::Error) -> &Corruption {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::Corrupt { source, .. }) => source,
        _ => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_local_blob_is_the_same_however_large_the_pieces_are() {
    let (_directory, store, blob) = layout_with_blob(700_000).await;
    for piece in [1000, 256 * 1024, 1 << 20] {
        let mut reader = store.blob(&blob).await.unwrap().into_blocking();
        let read = spawn_blocking(move || {
            let (mut bytes, mut buffer) = (Vec::new(), vec![0; piece]);
            // What stands in the reader's own buffer comes before what is read past it.
            bytes.extend_from_slice(&reader.fill_buf().unwrap()[..10]);
            reader.consume(10);
            loop {
                match reader.read(&mut buffer).unwrap() {
                    0 => return bytes,
                    length => bytes.extend_from_slice(&buffer[..length]),
                }
            }
        });
        assert_eq!(read.await.unwrap(), noise(700_000, 1));
    }
}

#[tokio::test]
async fn a_changed_local_blob_ends_with_an_error_for_threads_too() {
    let (directory, store, blob) = layout_with_blob(700_000).await;
    let file = directory.path().join("image/blobs/sha256").join(blob.digest.hex());
    support::flip_byte(&file, 650_000);
    let error = read_to_end(store.blob(&blob).await.unwrap().into_blocking()).await.unwrap_err();
    assert!(matches!(corruption(&error), Corruption::Digest { .. }));
}

#[tokio::test]
async fn an_unverified_blob_is_judged_by_the_digest_that_its_reader_found() {
    let (_directory, store, blob) = layout_with_blob(300_000).await;
    let (stream, check) = store.unverified_blob(&blob).await.unwrap();
    let bytes = read_to_end(stream.into_blocking()).await.unwrap();
    check.finish(Digest::of(&bytes)).unwrap();
    let (_, check) = store.unverified_blob(&blob).await.unwrap();
    let other = check.finish(Digest::of(b"other"));
    assert!(matches!(other, Err(Error::Corrupt { source: Corruption::Digest { .. }, .. })));
}

#[tokio::test]
async fn an_unverified_blob_that_shrinks_while_it_is_read_ends_with_an_error() {
    let (directory, store, blob) = layout_with_blob(300_000).await;
    let (stream, _check) = store.unverified_blob(&blob).await.unwrap();
    let file = directory.path().join("image/blobs/sha256").join(blob.digest.hex());
    fs::File::options().write(true).open(file).unwrap().set_len(200_000).unwrap();
    let error = read_to_end(stream.into_blocking()).await.unwrap_err();
    assert!(matches!(corruption(&error), Corruption::Protocol { .. }));
}

#[tokio::test]
async fn an_unverified_blob_of_another_length_is_refused_by_a_registry_too() {
    let bytes = noise(10_000, 1);
    let blob = Descriptor::of(media_type::OCI_LAYER, &bytes);
    for length in [9_999, 10_001] {
        let server = Server::start(move |_, _, _| Body::from(noise(length, 1)).into_response()).await;
        let error = server.open(&options()).await.unverified_blob(&blob).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { source: Corruption::Size { .. }, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn reading_ends_when_it_is_stopped_while_the_registry_is_silent() {
    let bytes = noise(10_000, 1);
    let blob = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let server = Server::start(move |_, _, _| {
        let first = Ok::<_, std::io::Error>(noise(10_000, 1).slice(..1000));
        let body = Body::from_stream(stream::iter([first]).chain(stream::pending()));
        ([(header::CONTENT_LENGTH, "10000")], body).into_response()
    })
    .await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stream = server.open(&options()).await.blob(&blob).await.unwrap();
    let mut reader = stream.into_blocking().stopped_by(async move { drop(stopped.await) });
    let read = spawn_blocking(move || {
        let mut first = [0; 1000];
        reader.read_exact(&mut first).unwrap();
        stop.send(()).unwrap();
        (reader.read(&mut first).unwrap_err(), reader.read(&mut first).unwrap_err())
    });
    let (error, again) = read.await.unwrap();
    assert_eq!(error.to_string(), "reading was stopped");
    assert_eq!(again.to_string(), "reading was stopped");
}

#[tokio::test]
async fn reading_a_file_ends_when_it_is_stopped() {
    let (_directory, store, blob) = layout_with_blob(300_000).await;
    let reader = store.blob(&blob).await.unwrap().into_blocking().stopped_by(std::future::ready(()));
    assert_eq!(read_to_end(reader).await.unwrap_err().to_string(), "reading was stopped");
}
