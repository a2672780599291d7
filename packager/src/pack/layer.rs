//! One layer through the pipeline: read and check, encrypt in place, then HMAC and digest beside each other, written once.
//!
//! Three threads and a writer over bounded channels: a chunk is read, checked against the plain digest and encrypted on
//! the first, authenticated on the second, hashed on the third. Memory is a few chunks, whatever the layer's size.

use std::io::Read as _;

use bytes::Bytes;
use command_line::{ByteProgress, ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{BlockingBlob, Descriptor, Digest, Hasher, Store};
use ocicrypt::cipher::{self, AES_256_CTR_HMAC_SHA256, CtrStream, EncryptionSeal};
use ocicrypt::options::{PrivateOptions, PublicOptions};
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

/// Bytes in one chunk.
const CHUNK: usize = 256 * 1024;
/// Chunks that wait between two stages.
const WAITING: usize = 8;

/// A sealed layer in the destination, and what is needed to open it.
pub(super) struct Sealed {
    pub(super) digest: Digest,
    /// Bytes of ciphertext.
    pub(super) size: u64,
    pub(super) public: PublicOptions,
    pub(super) private: PrivateOptions,
}

/// Encrypts `plain` from `source` into `destination`.
pub(super) async fn seal(
    source: &Store,
    destination: &Store,
    plain: &Descriptor,
    progress: &ByteProgress,
) -> Result<Sealed, Failure> {
    let cannot = || format!("cannot encrypt the layer {}", plain.digest);
    let (ctr, seal) = cipher::by_name(AES_256_CTR_HMAC_SHA256)
        .and_then(cipher::LayerCipher::encryptor)
        .or_fail(ExitCode::Other, cannot)?
        .split();
    let blob = source.blob(plain).await.map_err(|error| store_failure(cannot(), &error))?.into_blocking();
    let mut writer = destination.begin_hashed_blob().await.map_err(|error| store_failure(cannot(), &error))?;

    let (to_mac, mac_input) = mpsc::channel(WAITING);
    let (to_hash, hash_input) = mpsc::channel(WAITING);
    let (to_writer, mut writer_input) = mpsc::channel(WAITING);
    let bar = progress.clone();
    let reader = spawn_blocking(move || encrypt(blob, ctr, &to_mac, &to_hash, &bar));
    let mac = spawn_blocking(move || authenticate(mac_input, seal));
    let hash = spawn_blocking(move || digest(hash_input, &to_writer));

    let mut write_error = None;
    while let Some(chunk) = writer_input.recv().await {
        if let Err(error) = writer.write(chunk).await {
            // Closing the channel stops the stages before it.
            write_error = Some(error);
            break;
        }
    }
    drop(writer_input);
    let read = join(reader.await)?;
    let hashed = join(hash.await)?;
    let seal = join(mac.await)?;
    if let Some(error) = write_error {
        return Err(store_failure(format!("cannot write the layer {}", plain.digest), &error));
    }
    read.map_err(|error| read_failure(plain, &error))?;
    let size = hashed.bytes();
    let digest = hashed.finish();
    let (public, private) = seal.finish(ocicrypt::cipher::Digest::from_bytes(*plain.digest.hash()));
    writer.finish(digest, size).await.map_err(|error| store_failure(cannot(), &error))?;
    Ok(Sealed { digest, size, public, private })
}

/// Why the first stage ended early.
enum EncryptError {
    Read(std::io::Error),
    Cipher(cipher::CipherError),
    /// A later stage has ended; it has its own error.
    Stopped,
}

fn encrypt(
    mut blob: BlockingBlob,
    mut ctr: CtrStream,
    to_mac: &mpsc::Sender<Bytes>,
    to_hash: &mpsc::Sender<Bytes>,
    progress: &ByteProgress,
) -> Result<(), EncryptError> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let length = fill(&mut blob, &mut chunk).map_err(EncryptError::Read)?;
        if length == 0 {
            return Ok(());
        }
        chunk.truncate(length);
        ctr.apply(&mut chunk).map_err(EncryptError::Cipher)?;
        progress.add(length as u64);
        let chunk = Bytes::from(chunk);
        to_mac.blocking_send(chunk.clone()).map_err(|_| EncryptError::Stopped)?;
        to_hash.blocking_send(chunk).map_err(|_| EncryptError::Stopped)?;
    }
}

fn fill(blob: &mut BlockingBlob, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < chunk.len() {
        match blob.read(&mut chunk[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

fn authenticate(mut input: mpsc::Receiver<Bytes>, mut seal: EncryptionSeal) -> EncryptionSeal {
    while let Some(chunk) = input.blocking_recv() {
        seal.update(&chunk);
    }
    seal
}

fn digest(mut input: mpsc::Receiver<Bytes>, to_writer: &mpsc::Sender<Bytes>) -> Hasher {
    let mut hasher = Hasher::default();
    while let Some(chunk) = input.blocking_recv() {
        hasher.update(&chunk);
        if to_writer.blocking_send(chunk).is_err() {
            break;
        }
    }
    hasher
}

fn join<T>(joined: Result<T, JoinError>) -> Result<T, Failure> {
    joined.or_fail(ExitCode::Other, || "a stage of the encryption pipeline failed".to_owned())
}

fn read_failure(plain: &Descriptor, error: &EncryptError) -> Failure {
    let message = format!("cannot read the layer {}", plain.digest);
    match error {
        EncryptError::Read(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<image_store::Error>())
        {
            Some(error) => store_failure(message, error),
            None => Failure::new(ExitCode::BadInput, message).caused_by(error),
        },
        EncryptError::Cipher(error) => Failure::other(message).caused_by(error),
        EncryptError::Stopped => Failure::other(message).cause("a later stage ended early"),
    }
}
