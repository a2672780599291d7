//! The stages of one layer up to its plain tar: a thread reads, authenticates and decrypts; where the layer is compressed, a
//! second one decompresses. The digest of the tar is its taker's. Channels are bounded, so memory is a few chunks whatever
//! the layer's size.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use image_store::{Chunk, Digest, Hasher};
use ocicrypt::cipher::{CtrStream, DecryptionCheck};
use sha256_lanes::update_together;

use super::chunk::ChunkReader;
use super::decompress::{LayerCompression, decompress};
use super::error::{UnpackError, What};
use super::limits::Expansion;
use super::pipeline::{Blob, Found, LayerInput, Sealing, Shared, StageError};

/// Chunks that wait to be decompressed.
const COMPRESSED_WAITING: usize = 4;
/// Chunks of the tar that wait to be taken.
pub(super) const TAR_WAITING: usize = 8;

/// One layer under way.
pub(super) struct Front<'scope> {
    /// Its place in the image.
    pub(super) number: usize,
    /// The plain tar; taken by whoever reads it.
    pub(super) tar: Option<Receiver<Chunk>>,
    diff_id: Digest,
    reader: ScopedJoinHandle<'scope, Result<Found, StageError>>,
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
        let mut expansion = Expansion::new(shared.limits, &shared.plain_bytes);
        let (compression, diff_id) = (layer.compression, layer.diff_id);
        let failed = move |ended: &Result<(), &StageError>| {
            // Before the next stage sees that nothing comes any more, and fails of it.
            if let Err(StageError::Failed(_)) = ended {
                shared.fail(number);
            }
        };
        if compression == LayerCompression::None {
            let reader = scope.spawn(move || {
                let mut bytes = 0;
                let found = read(layer, number, shared, |chunk| {
                    bytes += chunk.bytes().len() as u64;
                    expansion.add(chunk.bytes().len() as u64, bytes)?;
                    to_tar.send(chunk).map_err(|_| StageError::Stopped)
                });
                failed(&found.as_ref().map(drop));
                found
            });
            return Self { number, tar: Some(tar), diff_id, reader, decompressor: None, turn };
        }
        let (to_decompressor, compressed) = sync_channel(COMPRESSED_WAITING);
        let reader = scope.spawn(move || {
            let pass_on = |chunk| to_decompressor.send(chunk).map_err(|_| StageError::Stopped);
            let found = read(layer, number, shared, pass_on);
            failed(&found.as_ref().map(drop));
            found
        });
        let decompressor = scope.spawn(move || {
            // Windows of zstd are large; there is one at a time.
            if compression == LayerCompression::Zstd {
                turn_of_layer.recv().map_err(|_| StageError::Stopped)?;
            }
            let mut compressed = ChunkReader::new(compressed);
            let pass_on = |chunk| to_tar.send(chunk).map_err(|_| StageError::Stopped);
            let ended = decompress(&mut compressed, compression, &mut expansion, &shared.pool, pass_on);
            failed(&ended.as_ref().map(drop));
            ended
        });
        Self { number, tar: Some(tar), diff_id, reader, decompressor: Some(decompressor), turn }
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
        let decompressed = match self.decompressor {
            Some(decompressor) => decompressor.join().map_err(|_| UnpackError::Stage)?,
            None => Ok(()),
        };
        // What came first is what is to blame: later stages fail of it.
        let found = match read {
            Err(StageError::Failed(error)) => return Err(error),
            Err(StageError::Stopped) => None,
            Ok(found) => Some(found),
        };
        if let Err(StageError::Failed(error)) = decompressed {
            return Err(error);
        }
        taken?;
        let (Some(found), Ok(()), Some(diff_id)) = (found, decompressed, diff_id) else {
            return Err(UnpackError::Stage);
        };
        found.check(diff_id, self.diff_id)
    }
}

/// Reads, authenticates and decrypts.
fn read(
    layer: LayerInput,
    number: usize,
    shared: &Shared<'_>,
    mut pass_on: impl FnMut(Chunk) -> Result<(), StageError>,
) -> Result<Found, StageError> {
    let LayerInput { open, sealing, compression, .. } = layer;
    let Blob { mut reader, check } = open().map_err(UnpackError::Read)?;
    let mut halves: Option<(CtrStream, DecryptionCheck)> = match sealing {
        Sealing::Plain => None,
        Sealing::Sealed(decryptor) => Some((*decryptor).split()),
    };
    let mut ciphertext = check.map(|check| (check, Hasher::default()));
    // Of a tar that is not compressed it is the `diff_id`, and of a layer that is not sealed nobody asks for it.
    let mut plain = (halves.is_some() && compression != LayerCompression::None).then(Hasher::default);
    // Decrypted, to be hashed together with the next chunk's ciphertext.
    let mut decrypted: Option<Chunk> = None;
    loop {
        if shared.is_over_for(number) {
            return Err(StageError::Stopped);
        }
        let mut chunk = shared.pool.take();
        if chunk.fill(&mut reader).map_err(UnpackError::Read)? == 0 {
            break;
        }
        let mut lanes = Vec::with_capacity(3);
        lanes.extend(ciphertext.as_mut().map(|(_, hasher)| hasher.lane(chunk.bytes())));
        lanes.extend(halves.as_mut().map(|(_, check)| check.lane(chunk.bytes())));
        if let (Some(hasher), Some(chunk)) = (&mut plain, &decrypted) {
            lanes.push(hasher.lane(chunk.bytes()));
        }
        update_together(&mut lanes);
        if let Some((ctr, _)) = &mut halves {
            ctr.apply(chunk.bytes_mut()).map_err(UnpackError::Cipher)?;
        }
        if let Some(ready) = decrypted.replace(chunk) {
            pass_on(ready)?;
        }
    }
    if let Some(last) = decrypted {
        if let Some(hasher) = &mut plain {
            hasher.update(last.bytes());
        }
        // All of the ciphertext was read: whether it is right is said even where nobody wants the rest.
        if let Err(StageError::Failed(error)) = pass_on(last) {
            return Err(error.into());
        }
    }
    if let Some((check, hasher)) = ciphertext {
        check.finish(hasher.finish()).map_err(|error| UnpackError::Read(error.into()))?;
    }
    let promised = match halves {
        None => None,
        Some((_, check)) => {
            let digest = check.finish().map_err(|_| UnpackError::Check(What::Authentication))?;
            Some(Digest::from_hash(*digest.as_bytes()))
        }
    };
    Ok(Found { promised, layer: plain.map(Hasher::finish) })
}
