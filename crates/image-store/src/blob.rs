//! Blobs on their way out of a store: streams whose clean end means that digest and size were right.

mod blocking;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncRead;

pub use self::blocking::BlockingBlob;
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};
use crate::error::{Corruption, Error};
use crate::local::LocalBlob;

/// A blob as a stream of chunks.
///
/// # Security
///
/// Chunks come before the digest is known. Nothing made of them may count as whole until the stream has ended with
/// `None`: a wrong digest or size is an `Err` in the place of that end. The streams of [`crate::Store::read_range`] and
/// [`crate::Store::unverified_blob`] are the exceptions: they check the length only, as their documentation says.
pub struct BlobStream {
    source: Source,
}

enum Source {
    Chunks(BoxStream<'static, Result<Bytes, Error>>),
    /// A file's, until somebody reads it as a stream.
    Local(Option<Box<LocalBlob>>),
}

impl BlobStream {
    pub(crate) fn new(chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Self {
        Self { source: Source::Chunks(chunks.fuse().boxed()) }
    }

    pub(crate) fn local(blob: LocalBlob) -> Self {
        Self { source: Source::Local(Some(Box::new(blob))) }
    }

    /// The next chunk; `None` at the verified end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the blob is not what its descriptor says, [`Error::Unavailable`] when a registry stays
    /// silent after all retries, [`Error::Io`].
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        self.next().await
    }

    /// The blob for async readers. Errors arrive as [`io::Error`] with the [`Error`] inside.
    pub fn into_async_read(self) -> impl AsyncRead + Send + Unpin {
        tokio_util::io::StreamReader::new(self.map(|chunk| chunk.map_err(io::Error::from)))
    }

    /// The blob for a thread that may block (one of `spawn_blocking`, never an async task). A local blob is read by that
    /// very thread.
    ///
    /// # Panics
    ///
    /// When it is called outside a Tokio runtime.
    pub fn into_blocking(self) -> BlockingBlob {
        BlockingBlob::new(self)
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.source {
                Source::Chunks(chunks) => return chunks.poll_next_unpin(context),
                Source::Local(blob) => {
                    let Some(blob) = blob.take() else { return Poll::Ready(None) };
                    self.source = Source::Chunks(blob.into_chunks().fuse().boxed());
                }
            }
        }
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BlobStream").finish_non_exhaustive()
    }
}

/// What a blob of [`crate::Store::unverified_blob`] has to be.
#[derive(Debug)]
#[must_use = "the blob is not verified before its digest was compared"]
pub struct BlobCheck {
    descriptor: Descriptor,
    store: String,
}

impl BlobCheck {
    pub(crate) fn new(descriptor: &Descriptor, store: &str) -> Self {
        Self { descriptor: descriptor.clone(), store: store.to_owned() }
    }

    /// Compares the digest that was found of all bytes; the stream itself has checked how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] with [`Corruption::Digest`].
    pub fn finish(self, found: Digest) -> Result<(), Error> {
        if found == self.descriptor.digest {
            return Ok(());
        }
        let source = Corruption::Digest { found, wanted: self.descriptor.digest };
        Err(Error::corrupt(format!("blob {}", self.descriptor.digest), self.store, source))
    }
}

/// Checks bytes against a descriptor as they pass.
pub(crate) struct Verifier {
    hasher: Hasher,
    descriptor: Descriptor,
    store: String,
}

impl Verifier {
    pub(crate) fn new(descriptor: &Descriptor, store: &str) -> Self {
        Self { hasher: Hasher::default(), descriptor: descriptor.clone(), store: store.to_owned() }
    }

    /// Takes the next bytes; fails at the first one too many.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let found = self.hasher.bytes() + bytes.len() as u64;
        if found > self.descriptor.size {
            return Err(self.corrupt(Corruption::Size { found, wanted: self.descriptor.size }));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// The verdict at the end of the stream.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        if self.hasher.bytes() != self.descriptor.size {
            let source = Corruption::Size { found: self.hasher.bytes(), wanted: self.descriptor.size };
            return Err(self.corrupt(source));
        }
        let found = self.hasher.clone().finish();
        if found != self.descriptor.digest {
            return Err(self.corrupt(Corruption::Digest { found, wanted: self.descriptor.digest }));
        }
        Ok(())
    }

    pub(crate) fn corrupt(&self, source: Corruption) -> Error {
        Error::corrupt(format!("blob {}", self.descriptor.digest), self.store.as_str(), source)
    }
}
