use std::fs;
use std::path::{Path, PathBuf};

use command_line::{CommonArgs, Console};
use image_store::{CHUNK, StoreOptions, media_type};

use super::*;

/// Bytes that differ from chunk to chunk, so that no two can change places unseen.
fn layer(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

async fn layout(path: &Path) -> Store {
    let reference = format!("oci:{}:latest", path.display()).parse().unwrap();
    Store::create(&reference, &StoreOptions::default()).await.unwrap()
}

fn blob(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.to_string().trim_start_matches("sha256:"))
}

fn silent() -> ByteProgress {
    Console::new(&CommonArgs { no_progress: true, ..CommonArgs::default() }).byte_progress("", 0)
}

/// A layer in a layout of its own, and an empty one beside it.
async fn source_and_destination(folder: &Path, plain: &[u8]) -> (Store, Store, Descriptor) {
    let source = layout(&folder.join("source")).await;
    source.put_blob(media_type::OCI_LAYER, plain.to_vec().into()).await.unwrap();
    let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(plain), plain.len() as u64);
    (source, layout(&folder.join("destination")).await, descriptor)
}

/// Nothing, less than a chunk, whole ones, and one more byte than those; more threads than there are stages, too.
#[tokio::test]
async fn a_layer_comes_back_whole_however_many_threads_sealed_it() {
    for length in [0, 1, CHUNK, 3 * CHUNK, 40 * CHUNK + 1] {
        let plain = layer(length);
        for threads in 1..=4 {
            let folder = tempfile::tempdir().unwrap();
            let (source, destination, descriptor) = source_and_destination(folder.path(), &plain).await;
            let sealed = seal_by(threads, &source, &destination, &descriptor, &silent()).await.unwrap();
            let mut bytes = fs::read(blob(&folder.path().join("destination"), &sealed.digest)).unwrap();
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (sealed.digest, sealed.size));
            let cipher = cipher::by_name(AES_256_CTR_HMAC_SHA256).unwrap();
            let mut decryptor = cipher.decryptor(&sealed.public, sealed.private).unwrap();
            decryptor.apply(&mut bytes).unwrap();
            assert_eq!(decryptor.finish().unwrap().to_string(), descriptor.digest.to_string());
            assert!(bytes == plain, "{length} bytes by {threads} threads");
        }
    }
}

/// Found out at the end by the digest, and in the middle by the length.
#[tokio::test]
async fn a_layer_that_was_changed_or_cut_leaves_nothing_however_many_threads_sealed_it() {
    let plain = layer(20 * CHUNK);
    for cut in [plain.len(), plain.len() / 2] {
        for threads in 1..=4 {
            let folder = tempfile::tempdir().unwrap();
            let (source, destination, descriptor) = source_and_destination(folder.path(), &plain).await;
            let mut changed = plain[..cut].to_vec();
            changed[100] ^= 1;
            fs::write(blob(&folder.path().join("source"), &descriptor.digest), changed).unwrap();
            let failure = seal_by(threads, &source, &destination, &descriptor, &silent()).await.err().unwrap();
            assert_eq!(failure.code, ExitCode::VerificationFailed, "{failure:?}");
            drop(destination);
            let blobs = fs::read_dir(folder.path().join("destination/blobs/sha256")).unwrap();
            assert_eq!(blobs.count(), 0, "something was left behind");
        }
    }
}
