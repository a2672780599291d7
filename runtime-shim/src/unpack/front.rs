//! The stages of one layer up to its plain tar, a thread each: one reads and decrypts, one hashes what was read and what came
//! of it; where the layer is compressed, a third one decompresses. Channels are bounded, so memory is a few chunks whatever
//! the layer's size.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use image_store::{BlobCheck, Chunk, Digest, Hasher};
use ocicrypt::cipher::{CtrStream, DecryptionCheck};
use sha256_lanes::update_together;

use super::chunk::ChunkReader;
use super::decompress::{LayerCompression, decompress};
use super::error::{UnpackError, What};
use super::limits::Expansion;
use super::pipeline::{Blob, Found, LayerInput, OpenBlob, Sealing, Shared, StageError};

/// Chunks, with what came of them, that wait to be checked.
pub(super) const READ_WAITING: usize = 2;
/// Chunks that wait to be decompressed.
const COMPRESSED_WAITING: usize = 4;
/// Chunks of the tar that wait to be taken.
pub(super) const TAR_WAITING: usize = 6;

/// One layer under way.
pub(super) struct Front<'scope> {
    /// Its place in the image.
    pub(super) number: usize,
    /// The plain tar; taken by whoever reads it.
    pub(super) tar: Option<Receiver<Chunk>>,
    diff_id: Digest,
    reader: ScopedJoinHandle<'scope, Result<(), StageError>>,
    checker: ScopedJoinHandle<'scope, Result<Found, StageError>>,
    decompressor: Option<ScopedJoinHandle<'scope, Result<(), StageError>>>,
    turn: SyncSender<()>,
}

impl<'scope> Front<'scope> {
    /// Starts the layer's threads.
    pub(super) fn start(
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        layer: LayerInput,
        shared: &'scope Shared<'_>,
    ) -> Self {
        let (to_tar, tar) = sync_channel(TAR_WAITING);
        let (turn, turn_of_layer) = sync_channel(1);
        let (compression, diff_id) = (layer.compression, layer.diff_id);
        let (check_half, read_half) = halves(layer);
        let (to_check, to_be_checked) = sync_channel(READ_WAITING);
        let reader = scope.spawn(move || failing(shared, number, read(read_half, number, shared, &to_check)));
        let mut expansion = Expansion::new(shared.limits, &shared.plain_bytes);
        if compression == LayerCompression::None {
            let checker = scope.spawn(move || {
                let mut bytes = 0;
                let pass_on = |chunk: Chunk| {
                    bytes += chunk.bytes().len() as u64;
                    expansion.add(chunk.bytes().len() as u64, bytes)?;
                    to_tar.send(chunk).map_err(|_| StageError::Stopped)
                };
                failing(shared, number, check(check_half, &to_be_checked, pass_on))
            });
            return Self { number, tar: Some(tar), diff_id, reader, checker, decompressor: None, turn };
        }
        let (to_decompressor, compressed) = sync_channel(COMPRESSED_WAITING);
        let checker = scope.spawn(move || {
            let pass_on = |chunk| to_decompressor.send(chunk).map_err(|_| StageError::Stopped);
            failing(shared, number, check(check_half, &to_be_checked, pass_on))
        });
        let decompressor = scope.spawn(move || {
            // Windows of zstd are large; there is one at a time.
            if compression == LayerCompression::Zstd {
                turn_of_layer.recv().map_err(|_| StageError::Stopped)?;
            }
            let mut compressed = ChunkReader::new(compressed);
            let pass_on = |chunk| to_tar.send(chunk).map_err(|_| StageError::Stopped);
            failing(shared, number, decompress(&mut compressed, compression, &mut expansion, &shared.pool, pass_on))
        });
        Self { number, tar: Some(tar), diff_id, reader, checker, decompressor: Some(decompressor), turn }
    }

    /// Says that the layers before this one are done.
    pub(super) fn take_turn(&self) {
        // A layer that does not wait for it has ended already, or needs none.
        let _ = self.turn.try_send(());
    }

    /// Waits for the threads, stopping them where they are not at their end, and judges the layer: `taken` is how the tar
    /// was taken, `diff_id` its digest.
    pub(super) fn join(self, taken: Result<(), UnpackError>, diff_id: Option<Digest>) -> Result<(), UnpackError> {
        // Hanging up stops them.
        drop((self.tar, self.turn));
        let read = self.reader.join().map_err(|_| UnpackError::Stage)?;
        let checked = self.checker.join().map_err(|_| UnpackError::Stage)?;
        let decompressed =
            self.decompressor.map_or(Ok(Ok(())), ScopedJoinHandle::join).map_err(|_| UnpackError::Stage)?;
        // What came first is what is to blame: later stages fail of it.
        let read = stopped_or_failed(read)?;
        let found = stopped_or_failed(checked)?;
        let decompressed = stopped_or_failed(decompressed)?;
        taken?;
        let (Some(()), Some(found), Some(()), Some(diff_id)) = (read, found, decompressed, diff_id) else {
            return Err(UnpackError::Stage);
        };
        found.check(diff_id, self.diff_id)
    }
}

/// What a stage found; none where it was stopped.
fn stopped_or_failed<T>(ended: Result<T, StageError>) -> Result<Option<T>, UnpackError> {
    match ended {
        Ok(found) => Ok(Some(found)),
        Err(StageError::Stopped) => Ok(None),
        Err(StageError::Failed(error)) => Err(error),
    }
}

/// Notes that a stage failed, before the next one sees that nothing comes any more, and fails of it.
fn failing<T>(shared: &Shared<'_>, number: usize, ended: Result<T, StageError>) -> Result<T, StageError> {
    if let Err(StageError::Failed(_)) = ended {
        shared.fail(number);
    }
    ended
}

/// What the first stage needs of a layer.
struct ReadHalf {
    open: OpenBlob,
    ctr: Option<CtrStream>,
}

/// What the second one needs.
struct CheckHalf {
    sealed: Option<DecryptionCheck>,
    compression: LayerCompression,
}

fn halves(layer: LayerInput) -> (CheckHalf, ReadHalf) {
    let LayerInput { open, sealing, compression, .. } = layer;
    let (ctr, sealed) = match sealing {
        Sealing::Plain => (None, None),
        Sealing::Sealed(decryptor) => {
            let (ctr, check) = (*decryptor).split();
            (Some(ctr), Some(check))
        }
    };
    (CheckHalf { sealed, compression }, ReadHalf { open, ctr })
}

/// What goes from the first stage to the second.
enum Step {
    /// Once, before all else: what the blob has to be, where that is to be checked.
    Opened(Option<Box<BlobCheck>>),
    /// A chunk of the blob; decrypted, where the layer is sealed.
    Chunk { blob: Chunk, decrypted: Option<Chunk> },
}

/// Reads and decrypts.
fn read(half: ReadHalf, number: usize, shared: &Shared<'_>, to_check: &SyncSender<Step>) -> Result<(), StageError> {
    let ReadHalf { open, mut ctr } = half;
    let pass_on = |step| to_check.send(step).map_err(|_| StageError::Stopped);
    let Blob { mut reader, check } = open().map_err(UnpackError::Read)?;
    pass_on(Step::Opened(check.map(Box::new)))?;
    loop {
        if shared.is_over_for(number) {
            return Err(StageError::Stopped);
        }
        let mut blob = shared.pool.take();
        if blob.fill(&mut reader).map_err(UnpackError::Read)? == 0 {
            return Ok(());
        }
        let decrypt = |ctr: &mut CtrStream| {
            let mut decrypted = shared.pool.take();
            decrypted.lengthen_to(&blob);
            ctr.apply_to(blob.bytes(), decrypted.bytes_mut()).map(|()| decrypted)
        };
        let decrypted = ctr.as_mut().map(decrypt).transpose().map_err(UnpackError::Cipher)?;
        pass_on(Step::Chunk { blob, decrypted })?;
    }
}

/// Authenticates: the digest and HMAC of what was read, and where that is compressed the digest of what came of it.
fn check(
    half: CheckHalf,
    steps: &Receiver<Step>,
    mut pass_on: impl FnMut(Chunk) -> Result<(), StageError>,
) -> Result<Found, StageError> {
    let CheckHalf { mut sealed, compression } = half;
    let mut ciphertext = None;
    // Of a tar that is not compressed it is the `diff_id`, and of a layer that is not sealed nobody asks for it.
    let mut plain = (sealed.is_some() && compression != LayerCompression::None).then(Hasher::default);
    for step in steps {
        let (blob, decrypted) = match step {
            Step::Opened(check) => {
                ciphertext = check.map(|check| (check, Hasher::default()));
                continue;
            }
            Step::Chunk { blob, decrypted } => (blob, decrypted),
        };
        let mut lanes = Vec::with_capacity(3);
        lanes.extend(ciphertext.as_mut().map(|(_, hasher)| hasher.lane(blob.bytes())));
        lanes.extend(sealed.as_mut().map(|check| check.lane(blob.bytes())));
        lanes.extend(plain.as_mut().map(|hasher| hasher.lane(decrypted.as_ref().unwrap_or(&blob).bytes())));
        update_together(&mut lanes);
        match pass_on(decrypted.unwrap_or(blob)) {
            // Where all of the blob was read, it is said whether it is right even where nobody wants the rest.
            Err(StageError::Stopped) if steps.recv().is_err() => break,
            ended => ended?,
        }
    }
    if let Some((check, hasher)) = ciphertext {
        check.finish(hasher.finish()).map_err(|error| UnpackError::Read(error.into()))?;
    }
    let promised = match sealed {
        None => None,
        Some(check) => {
            let digest = check.finish().map_err(|_| UnpackError::Check(What::Authentication))?;
            Some(Digest::from_hash(*digest.as_bytes()))
        }
    };
    Ok(Found { promised, layer: plain.map(Hasher::finish) })
}
