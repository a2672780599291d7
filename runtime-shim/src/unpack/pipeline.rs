//! One layer's pipeline: a thread reads, authenticates and decrypts; a second decompresses and digests; the caller's
//! thread takes the plain tar. Channels are bounded, so memory is a few chunks whatever the layer's size.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};
use std::thread;

use image_store::{Digest, Hasher};
use ocicrypt::cipher::{CtrStream, DecryptionCheck, LayerDecryptor};

use super::error::{UnpackError, What};
use super::limits::{Expansion, Limits, Usage};

/// Bytes in one chunk.
const CHUNK: usize = 256 * 1024;
/// Chunks that wait between two stages.
const WAITING: usize = 4;
/// The largest window of a zstd stream that is accepted, as a power of two: 128 MiB, what `zstd --long` makes.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a plain layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerCompression {
    /// RFC 1952, one member or several.
    Gzip,
    /// A plain tar.
    None,
    /// RFC 8878, one frame or several.
    Zstd,
}

/// Whether and how a layer is sealed.
#[derive(Debug)]
pub enum Sealing {
    /// Not at all: the blob's own digest, which its reader checks, is all there is beside the `diff_id`.
    Plain,
    /// Encrypted.
    Sealed(Box<LayerDecryptor>),
}

/// One layer to apply.
pub struct LayerInput<'a> {
    /// The blob. Its clean end means that the digest and size of its descriptor were right.
    pub blob: Box<dyn Read + Send + 'a>,
    /// Whether it is encrypted.
    pub sealing: Sealing,
    /// How it is compressed.
    pub compression: LayerCompression,
    /// The digest of its plain tar, from the image's config.
    pub diff_id: Digest,
}

/// Runs the pipeline; `apply` reads the plain tar on this thread.
pub(super) fn run(
    layer: LayerInput<'_>,
    limits: &Limits,
    usage: &mut Usage,
    apply: impl FnOnce(&mut dyn Read, &mut Usage) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let (to_decompressor, decompressor_input) = sync_channel(WAITING);
    let (to_tar, tar_input) = sync_channel(WAITING);
    let expansion = Expansion::new(*limits, usage.plain_bytes());
    let LayerInput { blob, sealing, compression, diff_id } = layer;
    thread::scope(|scope| {
        let reader = scope.spawn(move || read(blob, sealing, &to_decompressor));
        let decompressor = scope.spawn(move || {
            let pass_on = |chunk| to_tar.send(chunk).map_err(|_| StageError::Stopped);
            decompress(decompressor_input, compression, expansion, pass_on)
        });
        let mut stream = ChunkReader::new(tar_input);
        let applied = apply(&mut stream, usage)
            // The archive may end before its stream does; the digests are over all of it.
            .and_then(|()| {
                io::copy(&mut stream, &mut io::sink())
                    .map(drop)
                    .map_err(|error| UnpackError::Archive(error.to_string()))
            });
        // Hanging up stops the other stages.
        drop(stream);
        let read = reader.join().map_err(|_| UnpackError::Stage)?;
        let plain = decompressor.join().map_err(|_| UnpackError::Stage)?;
        // What came first is what is to blame: later stages fail of it.
        let promised = match read {
            Err(StageError::Stopped) => None,
            Err(StageError::Failed(error)) => return Err(error),
            Ok(promised) => Some(promised),
        };
        let plain = match plain {
            Err(StageError::Stopped) => None,
            Err(StageError::Failed(error)) => return Err(error),
            Ok(plain) => Some(plain),
        };
        applied?;
        let (Some(promised), Some(plain)) = (promised, plain) else { return Err(UnpackError::Stage) };
        usage.set_plain_bytes(plain.total_bytes);
        if plain.diff_id != diff_id {
            return Err(UnpackError::Check(What::DiffId));
        }
        match promised {
            Some(digest) => plain.check(digest),
            None => Ok(()),
        }
    })
}

pub(super) enum StageError {
    Failed(UnpackError),
    /// The next stage hung up.
    Stopped,
}

impl From<UnpackError> for StageError {
    fn from(error: UnpackError) -> Self {
        Self::Failed(error)
    }
}

/// Reads and decrypts; gives the digest that the plain layer must have, once the HMAC was right.
fn read(
    mut blob: Box<dyn Read + Send + '_>,
    sealing: Sealing,
    next: &SyncSender<Vec<u8>>,
) -> Result<Option<Digest>, StageError> {
    let mut halves: Option<(CtrStream, DecryptionCheck)> = match sealing {
        Sealing::Plain => None,
        Sealing::Sealed(decryptor) => Some((*decryptor).split()),
    };
    loop {
        let mut chunk = vec![0; CHUNK];
        let length = fill(&mut blob, &mut chunk).map_err(UnpackError::Read)?;
        if length == 0 {
            break;
        }
        chunk.truncate(length);
        if let Some((ctr, check)) = &mut halves {
            check.update(&chunk);
            ctr.apply(&mut chunk).map_err(UnpackError::Cipher)?;
        }
        next.send(chunk).map_err(|_| StageError::Stopped)?;
    }
    let Some((_, check)) = halves else { return Ok(None) };
    let digest = check.finish().map_err(|_| UnpackError::Check(What::Authentication))?;
    Ok(Some(Digest::from_hash(*digest.as_bytes())))
}

pub(super) fn fill(blob: &mut dyn Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = chunk.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match blob.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// What the second stage found out.
pub(super) struct Plain {
    /// The digest of the layer as it was sealed: compressed, where it is.
    pub(super) layer: Digest,
    /// The digest of the tar.
    pub(super) diff_id: Digest,
    total_bytes: u64,
}

impl Plain {
    /// Whether the layer is the one that was sealed.
    pub(super) fn check(&self, promised: Digest) -> Result<(), UnpackError> {
        // skopeo seals the digest of what it read, which is the tar's where it compressed the layer itself.
        if promised == self.layer || promised == self.diff_id {
            Ok(())
        } else {
            Err(UnpackError::Check(What::PlainDigest))
        }
    }
}

pub(super) fn decompress(
    input: Receiver<Vec<u8>>,
    compression: LayerCompression,
    mut expansion: Expansion,
    mut pass_on: impl FnMut(Vec<u8>) -> Result<(), StageError>,
) -> Result<Plain, StageError> {
    let compressed_bytes = Arc::new(AtomicU64::new(0));
    let mut input =
        DigestReader { chunks: ChunkReader::new(input), hasher: Hasher::default(), bytes: compressed_bytes.clone() };
    let mut diff_id = Hasher::default();
    let damaged = |_| UnpackError::Check(What::Compression);
    {
        let mut plain: Box<dyn Read + '_> = match compression {
            LayerCompression::None => Box::new(&mut input),
            LayerCompression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(&mut input)),
            LayerCompression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut input).map_err(damaged)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(damaged)?;
                Box::new(decoder)
            }
        };
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = fill(&mut plain, &mut chunk).map_err(damaged)?;
            if length == 0 {
                break;
            }
            chunk.truncate(length);
            expansion.add(length as u64, compressed_bytes.load(Ordering::Relaxed))?;
            if compression != LayerCompression::None {
                diff_id.update(&chunk);
            }
            pass_on(chunk)?;
        }
    }
    // A decoder may stop before its input does: what is behind it belongs to nobody.
    if !input.fill_buf().map_err(damaged)?.is_empty() {
        return Err(UnpackError::Check(What::Compression).into());
    }
    let layer = input.hasher.finish();
    let diff_id = if compression == LayerCompression::None { layer } else { diff_id.finish() };
    Ok(Plain { layer, diff_id, total_bytes: expansion.total_bytes() })
}

/// The chunks of a channel as a reader; its end is the sender's.
struct ChunkReader {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
}

impl ChunkReader {
    fn new(chunks: Receiver<Vec<u8>>) -> Self {
        Self { chunks, chunk: Vec::new(), position: 0 }
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.chunk.len() {
            // A sender that failed hangs up as well: the stage's own result says which it was.
            self.chunk = self.chunks.recv().unwrap_or_default();
            self.position = 0;
        }
        Ok(self.chunk.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

/// Digests what is consumed.
struct DigestReader {
    chunks: ChunkReader,
    hasher: Hasher,
    bytes: Arc<AtomicU64>,
}

impl BufRead for DigestReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.chunks.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        let start = self.chunks.position;
        if let Some(consumed) = self.chunks.chunk.get(start..start + bytes) {
            self.hasher.update(consumed);
        }
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.chunks.consume(bytes);
    }
}

impl Read for DigestReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
