//! The layers of an image through their checks, several at once: each has threads of its own up to its plain tar (`front`),
//! which the caller's thread takes, one layer after the other.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use image_store::{BlobCheck, Digest, Pool};
use ocicrypt::cipher::LayerDecryptor;
use release_protocol::Confinement;

use super::chunk::ChunkReader;
use super::decompress::LayerCompression;
use super::error::{LayerError, UnpackError, What};
use super::front::Front;
use super::limits::Limits;

/// Layers that are fetched, verified and decompressed while an earlier one is still taken.
const AHEAD: usize = 2;

/// Whether and how a layer is sealed.
#[derive(Debug)]
pub enum Sealing {
    /// Not at all: the blob's own digest is all there is beside the `diff_id`.
    Plain,
    /// Encrypted.
    Sealed(Box<LayerDecryptor>),
}

/// A layer's blob, opened.
pub struct Blob {
    /// Its bytes.
    pub reader: Box<dyn Read + Send>,
    /// What they have to be; none where the reader's clean end says already that they are.
    pub check: Option<BlobCheck>,
}

/// Opens a blob, on the thread that will read it. It may block.
pub type OpenBlob = Box<dyn FnOnce() -> io::Result<Blob> + Send>;

/// One layer.
pub struct LayerInput {
    /// Its blob.
    pub open: OpenBlob,
    /// Whether it is encrypted.
    pub sealing: Sealing,
    /// How it is compressed.
    pub compression: LayerCompression,
    /// The digest of its plain tar, from the image's config.
    pub diff_id: Digest,
    /// The directory that everything in it has to be in, where it is confined to one.
    pub confinement: Option<Confinement>,
}

/// What all layers of an image share.
pub(super) struct Shared<'a> {
    pub(super) limits: Limits,
    /// Plain bytes of all layers so far.
    pub(super) plain_bytes: AtomicU64,
    pub(super) pool: Pool,
    /// The layer that failed first; [`NONE`] while there is none.
    failing: AtomicUsize,
    /// Called with the first layer that fails, so that no other one's blob is waited for.
    on_failure: &'a (dyn Fn(usize) + Sync),
}

const NONE: usize = usize::MAX;

impl<'a> Shared<'a> {
    pub(super) fn new(limits: Limits, on_failure: &'a (dyn Fn(usize) + Sync)) -> Self {
        Self {
            limits,
            plain_bytes: AtomicU64::new(0),
            pool: Pool::default(),
            failing: AtomicUsize::new(NONE),
            on_failure,
        }
    }

    /// Notes that a layer failed. The first one is to blame: others end because of it.
    pub(super) fn fail(&self, layer: usize) {
        if self.failing.compare_exchange(NONE, layer, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            (self.on_failure)(layer);
        }
    }

    /// Whether `layer` need not go on, since another one failed.
    pub(super) fn is_over_for(&self, layer: usize) -> bool {
        ![NONE, layer].contains(&self.failing.load(Ordering::Acquire))
    }

    fn failing(&self) -> Option<usize> {
        Some(self.failing.load(Ordering::Acquire)).filter(|layer| *layer != NONE)
    }
}

/// Why a stage ended early.
pub(super) enum StageError {
    Failed(UnpackError),
    /// The next stage hung up, or another layer failed.
    Stopped,
}

impl From<UnpackError> for StageError {
    fn from(error: UnpackError) -> Self {
        Self::Failed(error)
    }
}

/// Runs the layers; `take` reads the plain tar of each, in their order, on this thread.
///
/// # Errors
/// The first layer that failed. Without one, every layer was checked.
pub(super) fn run(
    layers: impl IntoIterator<Item = LayerInput>,
    shared: &Shared<'_>,
    mut take: impl FnMut(usize, &mut ChunkReader) -> Result<(), UnpackError>,
) -> Result<(), LayerError> {
    let mut waiting = layers.into_iter().enumerate();
    thread::scope(|scope| {
        let mut started = VecDeque::with_capacity(AHEAD + 1);
        let mut error_of_failing = None;
        while shared.failing().is_none() {
            while started.len() <= AHEAD
                && let Some((number, layer)) = waiting.next()
            {
                started.push_back(Front::start(scope, number, layer, shared));
            }
            let Some(front) = started.pop_front() else { return Ok(()) };
            let number = front.number;
            if let Err(error) = finish(front, &mut take) {
                shared.fail(number);
                error_of_failing = (shared.failing() == Some(number)).then_some(error);
            }
        }
        // The others end because of the one that failed; of that one the error is wanted.
        let Some(failing) = shared.failing() else { return Ok(()) };
        for front in started {
            let number = front.number;
            let ended = front.join(Ok(()), None);
            if number == failing && error_of_failing.is_none() {
                error_of_failing = ended.err();
            }
        }
        Err(LayerError { layer: failing, error: error_of_failing.unwrap_or(UnpackError::Stage) })
    })
}

/// Takes one layer's tar to its end.
fn finish(
    mut front: Front<'_>,
    take: &mut impl FnMut(usize, &mut ChunkReader) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let Some(tar) = front.tar.take() else { return Err(UnpackError::Stage) };
    front.take_turn();
    let mut tar = ChunkReader::hashing(tar);
    let taken = take(front.number, &mut tar);
    if taken.is_ok() {
        // The archive may end before its stream does; the digests are over all of it.
        tar.drain();
    }
    let diff_id = tar.finish();
    front.join(taken, diff_id)
}

/// What the stages found out about a layer.
pub(super) struct Found {
    /// The digest that was sealed with its key, once the HMAC was right; none for a layer that is not sealed.
    pub(super) promised: Option<Digest>,
    /// The digest of the layer as it was sealed: compressed, where it is.
    pub(super) layer: Option<Digest>,
}

impl Found {
    /// Whether the plain layer is the one that was sealed, and that the config names.
    pub(super) fn check(&self, diff_id: Digest, wanted: Digest) -> Result<(), UnpackError> {
        if diff_id != wanted {
            return Err(UnpackError::Check(What::DiffId));
        }
        // skopeo seals the digest of what it read, which is the tar's where it compressed the layer itself.
        match self.promised {
            Some(promised) if Some(promised) != self.layer && promised != diff_id => {
                Err(UnpackError::Check(What::PlainDigest))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::front::{READ_WAITING, TAR_WAITING};
    use super::*;

    /// A tar of zeros that tells how many reads there were.
    fn zeros(bytes: u64, read: std::sync::mpsc::Sender<()>) -> LayerInput {
        struct Telling(io::Take<io::Repeat>, std::sync::mpsc::Sender<()>);
        impl Read for Telling {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                // Whoever counts may have counted enough.
                let _ = self.1.send(());
                self.0.read(buffer)
            }
        }
        let digest = {
            let mut hasher = image_store::Hasher::default();
            let megabyte = vec![0; 1 << 20];
            (0..bytes >> 20).for_each(|_| hasher.update(&megabyte));
            hasher.finish()
        };
        let reader = Telling(io::repeat(0).take(bytes), read);
        LayerInput {
            open: Box::new(|| Ok(Blob { reader: Box::new(reader), check: None })),
            sealing: Sealing::Plain,
            compression: LayerCompression::None,
            diff_id: digest,
            confinement: None,
        }
    }

    #[test]
    fn layers_that_wait_for_their_turn_take_no_more_buffers_than_their_channels_hold() {
        let (sender, reads) = channel();
        let (unheard, _) = channel();
        let layers: Vec<_> =
            (0..6).map(|number| zeros(16 << 20, if number == 2 { &sender } else { &unheard }.clone())).collect();
        let shared = Shared::new(Limits::default(), &|_| {});
        let mut order = Vec::new();
        run(layers, &shared, |number, tar| {
            order.push(number);
            if number == 0 {
                // The third layer comes as far as it may while the first one is not taken.
                (0..=READ_WAITING + TAR_WAITING).for_each(|_| reads.recv().unwrap());
            }
            tar.drain();
            Ok(())
        })
        .unwrap();
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
        assert_eq!(shared.plain_bytes.into_inner(), 6 * (16 << 20));
        let made = shared.pool.free();
        assert!(made > TAR_WAITING, "the third layer was read ahead");
        // In each channel what it holds, and one chunk in the hands of each of the three who give or take.
        assert!(made <= (AHEAD + 1) * (READ_WAITING + TAR_WAITING + 3), "{made} buffers were made");
    }
}
