//! A layer for somebody else's unpacker: decrypted while it passes through. The end is held back until every check was made,
//! so that nobody ever has an archive that is whole and wrong.

use std::io::{self, Read, Write};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use image_store::{Chunk, Digest, Hasher, Pool};
use ocicrypt::cipher::LayerDecryptor;
use sha256_lanes::update_together;

use super::chunk::ChunkReader;
use super::decompress::{LayerCompression, decompress};
use super::error::{UnpackError, What};
use super::limits::{Expansion, Limits};
use super::pipeline::{Found, StageError};

/// Chunks that wait to be digested.
const WAITING: usize = 16;
/// Bytes that are held back.
const TAIL: usize = 64 * 1024;
/// What follows where the end would have been: no tar header, no gzip member and no zstd frame begins like this, so that
/// an archive that was cut between two entries does not look like a shorter one.
const SPOILER: [u8; 512] = [0xff; 512];

/// A sealed layer that passes through.
#[derive(Debug)]
pub struct SealedStream {
    /// What decrypts it.
    pub decryptor: LayerDecryptor,
    /// How the plain layer is compressed; it stays so.
    pub compression: LayerCompression,
    /// The digest of the ciphertext.
    pub digest: Digest,
    /// The size of the ciphertext in bytes.
    pub size: u64,
}

/// Reads a layer's ciphertext to its end and writes the plain layer; gives the number of bytes.
///
/// # Errors
/// [`UnpackError::Check`] and others; what was written is then no archive, and its end was not written.
pub fn relay(layer: SealedStream, input: &mut dyn Read, output: &mut dyn Write) -> Result<u64, UnpackError> {
    let mut held = HeldBack { output, tail: Vec::with_capacity(2 * TAIL) };
    let size = layer.size;
    match pass(layer, input, &mut held) {
        Ok(()) => held.release().map(|()| size).map_err(UnpackError::Write),
        Err(error) => {
            held.spoil();
            Err(error)
        }
    }
}

/// Passes everything on but the end, and makes every check.
fn pass(layer: SealedStream, input: &mut dyn Read, held: &mut HeldBack<'_>) -> Result<(), UnpackError> {
    let SealedStream { decryptor, compression, digest, size } = layer;
    let (mut ctr, mut check) = decryptor.split();
    let (to_digests, to_digest) = sync_channel(WAITING);
    let pool = Pool::default();
    thread::scope(|scope| {
        let digests = scope.spawn(|| digests(to_digest, compression, &pool));
        let mut to_digests = Some(to_digests);
        let mut ciphertext = Hasher::default();
        loop {
            let mut chunk = pool.take();
            if chunk.fill(input).map_err(UnpackError::Read)? == 0 {
                break;
            }
            update_together(&mut [ciphertext.lane(chunk.bytes()), check.lane(chunk.bytes())]);
            if ciphertext.bytes() > size {
                return Err(UnpackError::Check(What::Ciphertext));
            }
            ctr.apply(chunk.bytes_mut()).map_err(UnpackError::Cipher)?;
            held.write(chunk.bytes()).map_err(UnpackError::Write)?;
            // Where the plain layer is already seen to be wrong, it is still said first that the ciphertext was, if it was.
            let goes_on = to_digests.as_ref().is_some_and(|next: &SyncSender<_>| next.send(chunk).is_ok());
            to_digests = to_digests.filter(|_| goes_on);
        }
        drop(to_digests);
        let plain = digests.join().map_err(|_| UnpackError::Stage)?;
        if ciphertext.bytes() != size || ciphertext.finish() != digest {
            return Err(UnpackError::Check(What::Ciphertext));
        }
        let promised = check.finish().map_err(|_| UnpackError::Check(What::Authentication))?;
        match plain {
            // Nobody names the tar's digest here.
            Ok((layer, tar)) => {
                Found { promised: Some(Digest::from_hash(*promised.as_bytes())), layer: Some(layer) }.check(tar, tar)
            }
            Err(StageError::Failed(error)) => Err(error),
            Err(StageError::Stopped) => Err(UnpackError::Stage),
        }
    })
}

/// The digests of the plain layer and of its tar.
fn digests(
    chunks: Receiver<Chunk>,
    compression: LayerCompression,
    pool: &Pool,
) -> Result<(Digest, Digest), StageError> {
    let all_bytes = AtomicU64::new(0);
    let mut expansion = Expansion::new(Limits::default(), &all_bytes);
    let mut layer = ChunkReader::hashing(chunks);
    let mut tar = Hasher::default();
    decompress(&mut layer, compression, &mut expansion, pool, |chunk| {
        if compression != LayerCompression::None {
            tar.update(chunk.bytes());
        }
        Ok(())
    })?;
    let layer = layer.finish().ok_or(StageError::Stopped)?;
    Ok((layer, if compression == LayerCompression::None { layer } else { tar.finish() }))
}

/// Writes all but the last [`TAIL`] bytes.
struct HeldBack<'a> {
    output: &'a mut dyn Write,
    tail: Vec<u8>,
}

impl HeldBack<'_> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        let ready = (self.tail.len() + chunk.len()).saturating_sub(TAIL);
        let of_tail = ready.min(self.tail.len());
        let (of_chunk, later) = chunk.split_at(ready - of_tail);
        self.output.write_all(self.tail.get(..of_tail).unwrap_or_default())?;
        self.output.write_all(of_chunk)?;
        self.tail.drain(..of_tail);
        self.tail.extend_from_slice(later);
        Ok(())
    }

    fn release(self) -> io::Result<()> {
        self.output.write_all(&self.tail)?;
        self.output.flush()
    }

    fn spoil(self) {
        // A reader that is gone has no archive either.
        let _ = self.output.write_all(&SPOILER).and_then(|()| self.output.flush());
    }
}

#[cfg(test)]
mod tests;
