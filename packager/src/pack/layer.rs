//! One layer through the pipeline: read, encrypted into a second buffer, hashed three times, written once.
//!
//! The three hashes (the plain digest that is checked, HMAC and digest of the ciphertext) go through the processor together.
//! A layer that has the processor to itself is sealed by several threads. Memory is a few chunks, whatever the layer's size.

use std::thread;

use command_line::{ByteProgress, ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{BlobCheck, BlobWriter, BlockingBlob, Descriptor, Digest, Hasher, Pool, Store};
use ocicrypt::cipher::{self, AES_256_CTR_HMAC_SHA256, EncryptionSeal, LayerEncryptor};
use ocicrypt::options::{PrivateOptions, PublicOptions};
use sha256_lanes::update_together;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::stages::{Hashing, Reading, STAGES, SealError, Stages, Writing};

/// A sealed layer in the destination, and what is needed to open it.
pub(super) struct Sealed {
    pub(super) digest: Digest,
    /// Bytes of ciphertext.
    pub(super) size: u64,
    pub(super) public: PublicOptions,
    pub(super) private: PrivateOptions,
}

/// Encrypts `plain` from `source` into `destination`; `alone` says that no other layer is. Dropped before its end, it stops at
/// the next chunk and leaves nothing.
pub(super) async fn seal(
    source: &Store,
    destination: &Store,
    plain: &Descriptor,
    alone: bool,
    progress: &ByteProgress,
) -> Result<Sealed, Failure> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = if alone { cores.min(STAGES) } else { 1 };
    seal_by(threads, source, destination, plain, progress).await
}

async fn seal_by(
    threads: usize,
    source: &Store,
    destination: &Store,
    plain: &Descriptor,
    progress: &ByteProgress,
) -> Result<Sealed, Failure> {
    let cannot = || format!("cannot encrypt the layer {}", plain.digest);
    let encryptor = cipher::by_name(AES_256_CTR_HMAC_SHA256)
        .and_then(cipher::LayerCipher::encryptor)
        .or_fail(ExitCode::Other, cannot)?;
    let (blob, check) = source.unverified_blob(plain).await.map_err(|error| store_failure(cannot(), &error))?;
    let writer = destination.begin_hashed_blob().await.map_err(|error| store_failure(cannot(), &error))?;

    let (running, stopped) = oneshot::channel::<()>();
    let blob = blob.into_blocking().stopped_by(async {
        // Nothing is ever sent: the other end goes with this function.
        let _ = stopped.await;
    });
    let layer = Layer { blob, check, encryptor, writer, plain: plain.digest, progress: progress.clone() };
    let sealed = spawn_blocking(move || layer.run(threads)).await.or_fail(ExitCode::Other, cannot)?;
    drop(running);
    let (writer, sealed) = sealed.map_err(|error| failure(plain, &error))?;
    writer.finish(sealed.digest, sealed.size).await.map_err(|error| store_failure(cannot(), &error))?;
    Ok(sealed)
}

/// Encrypts a layer that is at hand whole, and small.
pub(super) async fn seal_small(mut layer: Vec<u8>, plain: Digest, destination: &Store) -> Result<Sealed, Failure> {
    let cannot = || format!("cannot encrypt the layer {plain}");
    let (mut ctr, mut seal) = cipher::by_name(AES_256_CTR_HMAC_SHA256)
        .and_then(cipher::LayerCipher::encryptor)
        .or_fail(ExitCode::Other, cannot)?
        .split();
    ctr.apply(&mut layer).or_fail(ExitCode::Other, cannot)?;
    let mut digest = Hasher::default();
    update_together(&mut [seal.lane(&layer), digest.lane(&layer)]);
    let sealed = sealed(seal, digest, plain);
    let media_type = image_store::media_type::OCI_LAYER;
    let written = destination.put_blob(media_type, layer.into()).await;
    written.map(|_| sealed).map_err(|error| store_failure(cannot(), &error))
}

/// One layer on its way.
struct Layer {
    blob: BlockingBlob,
    check: BlobCheck,
    encryptor: LayerEncryptor,
    writer: BlobWriter,
    /// The digest that the layer must have.
    plain: Digest,
    progress: ByteProgress,
}

impl Layer {
    /// Runs the layer to its end, on a thread that may block. The writer comes back unfinished: only a layer that had the right
    /// digest is put in place.
    fn run(self, threads: usize) -> Result<(BlobWriter, Sealed), SealError> {
        let Self { blob, check, encryptor, writer, plain, progress } = self;
        let (ctr, seal) = encryptor.split();
        let reading = Reading { blob, ctr, pool: Pool::default() };
        let hashing = Hashing { found: Hasher::default(), seal, digest: Hasher::default() };
        let writing = Writing { writer, runtime: Handle::current() };
        let (hashing, writer) = Stages::new(reading, hashing, writing, progress).run(threads)?;
        let Hashing { found, seal, digest } = hashing;
        check.finish(found.finish()).map_err(SealError::Check)?;
        Ok((writer, sealed(seal, digest, plain)))
    }
}

fn sealed(seal: EncryptionSeal, digest: Hasher, plain: Digest) -> Sealed {
    let size = digest.bytes();
    let (public, private) = seal.finish(ocicrypt::cipher::Digest::from_bytes(*plain.hash()));
    Sealed { digest: digest.finish(), size, public, private }
}

fn failure(plain: &Descriptor, error: &SealError) -> Failure {
    let cannot_read = format!("cannot read the layer {}", plain.digest);
    match error {
        SealError::Check(error) => store_failure(cannot_read, error),
        SealError::Cipher(error) => {
            Failure::other(format!("cannot encrypt the layer {}", plain.digest)).caused_by(error)
        }
        SealError::Read(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<image_store::Error>()) {
            Some(error) => store_failure(cannot_read, error),
            None => Failure::new(ExitCode::BadInput, cannot_read).caused_by(error),
        },
        SealError::Write(error) => store_failure(format!("cannot write the layer {}", plain.digest), error),
    }
}

#[cfg(test)]
mod tests;
