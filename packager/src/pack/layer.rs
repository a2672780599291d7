//! One layer through the pipeline: read, hashed, encrypted in place, hashed twice more, written once.
//!
//! One thread does all that needs the bytes in its cache, the destination's thread or connection takes them from there. The
//! three hashes (the plain digest that is checked, HMAC and digest of the ciphertext) go through the processor together: those
//! over a chunk of ciphertext beside the one over the next plain chunk. A layer that has the processor to itself is read and
//! hashed on a thread of its own, which costs more in all and ends sooner. Memory is a few chunks, whatever the layer's size.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread;

use command_line::{ByteProgress, ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{BlobCheck, BlobWriter, BlockingBlob, Chunk, Descriptor, Digest, Hasher, Pool, Store};
use ocicrypt::cipher::{self, AES_256_CTR_HMAC_SHA256, CipherError, EncryptionSeal, LayerEncryptor};
use ocicrypt::options::{PrivateOptions, PublicOptions};
use sha256_lanes::update_together;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

/// A sealed layer in the destination, and what is needed to open it.
pub(super) struct Sealed {
    pub(super) digest: Digest,
    /// Bytes of ciphertext.
    pub(super) size: u64,
    pub(super) public: PublicOptions,
    pub(super) private: PrivateOptions,
}

/// Encrypts `plain` from `source` into `destination`; `alone` says that no other layer is. Dropped before its end, it stops at the next chunk and leaves nothing.
pub(super) async fn seal(
    source: &Store,
    destination: &Store,
    plain: &Descriptor,
    alone: bool,
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
    let sealed = spawn_blocking(move || if alone { layer.run_alone() } else { layer.run() })
        .await
        .or_fail(ExitCode::Other, cannot)?;
    drop(running);
    let (writer, sealed) = sealed.map_err(|error| failure(plain, &error))?;
    writer.finish(sealed.digest, sealed.size).await.map_err(|error| store_failure(cannot(), &error))?;
    Ok(sealed)
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

/// Why it did not arrive.
enum SealError {
    Check(image_store::Error),
    Cipher(CipherError),
    Read(io::Error),
    Write(image_store::Error),
}

impl Layer {
    /// Runs the layer to its end, on a thread that may block. The writer comes back unfinished: only a layer that had the right
    /// digest is put in place.
    fn run(self) -> Result<(BlobWriter, Sealed), SealError> {
        let Self { mut blob, check, encryptor, mut writer, plain, progress } = self;
        let (mut ctr, mut seal) = encryptor.split();
        let (mut found, mut digest) = (Hasher::default(), Hasher::default());
        let (runtime, pool) = (Handle::current(), Pool::default());
        let mut encrypted: Option<Chunk> = None;
        loop {
            let mut next = pool.take();
            next.fill(&mut blob).map_err(SealError::Read)?;
            let ciphertext = encrypted.as_ref().map(Chunk::bytes).unwrap_or_default();
            update_together(&mut [found.lane(next.bytes()), seal.lane(ciphertext), digest.lane(ciphertext)]);
            if let Some(chunk) = encrypted.take() {
                runtime.block_on(writer.write(chunk.into_bytes())).map_err(SealError::Write)?;
            }
            if next.bytes().is_empty() {
                break;
            }
            ctr.apply(next.bytes_mut()).map_err(SealError::Cipher)?;
            progress.add(next.bytes().len() as u64);
            encrypted = Some(next);
        }
        check.finish(found.finish()).map_err(SealError::Check)?;
        Ok((writer, sealed(seal, digest, plain)))
    }

    /// The same on two threads.
    fn run_alone(self) -> Result<(BlobWriter, Sealed), SealError> {
        let Self { mut blob, check, encryptor, mut writer, plain, progress } = self;
        let (mut ctr, mut seal) = encryptor.split();
        let (runtime, pool, mut digest) = (Handle::current(), Pool::default(), Hasher::default());
        let (to_encrypt, read) = sync_channel::<Chunk>(WAITING);
        let found = thread::scope(|threads| {
            let reading = threads.spawn(move || {
                let mut found = Hasher::default();
                loop {
                    let mut next = pool.take();
                    next.fill(&mut blob)?;
                    found.update(next.bytes());
                    // Nobody takes it any more who has failed, and says so.
                    if next.bytes().is_empty() || to_encrypt.send(next).is_err() {
                        return Ok(found);
                    }
                }
            });
            // It ends with what feeds it, and what feeds it with it.
            for mut chunk in read {
                ctr.apply(chunk.bytes_mut()).map_err(SealError::Cipher)?;
                update_together(&mut [seal.lane(chunk.bytes()), digest.lane(chunk.bytes())]);
                progress.add(chunk.bytes().len() as u64);
                runtime.block_on(writer.write(chunk.into_bytes())).map_err(SealError::Write)?;
            }
            let read = reading.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads has failed")));
            read.map_err(SealError::Read)
        })?;
        check.finish(found.finish()).map_err(SealError::Check)?;
        Ok((writer, sealed(seal, digest, plain)))
    }
}

/// Chunks that wait between the two threads.
const WAITING: usize = 8;

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
