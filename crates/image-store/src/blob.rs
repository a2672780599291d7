//! Blobs on their way out of a store: streams whose clean end means that digest and size were right.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncRead;
use tokio::runtime::Handle;

use crate::descriptor::Descriptor;
use crate::digest::Hasher;
use crate::error::{Corruption, Error};

/// A blob as a stream of chunks.
///
/// # Security
///
/// Chunks come before the digest is known. Nothing made of them may count as whole until the stream has ended with
/// `None`: a wrong digest or size is an `Err` in the place of that end. The stream of [`crate::Store::read_range`] is the
/// exception: it checks the length only, as its documentation says.
pub struct BlobStream {
    chunks: BoxStream<'static, Result<Bytes, Error>>,
}

impl BlobStream {
    pub(crate) fn new(chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Self {
        Self { chunks: chunks.fuse().boxed() }
    }

    /// The next chunk; `None` at the verified end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the blob is not what its descriptor says, [`Error::Unavailable`] when a registry stays
    /// silent after all retries, [`Error::Io`].
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        self.chunks.next().await
    }

    /// The blob for async readers. Errors arrive as [`io::Error`] with the [`Error`] inside.
    pub fn into_async_read(self) -> impl AsyncRead + Send + Unpin {
        tokio_util::io::StreamReader::new(self.chunks.map(|chunk| chunk.map_err(io::Error::from)))
    }

    /// The blob for a thread that may block (one of `spawn_blocking`, never an async task).
    ///
    /// # Panics
    ///
    /// When it is called outside a Tokio runtime.
    pub fn into_blocking(self) -> BlockingBlob {
        BlockingBlob { stream: self, runtime: Handle::current(), chunk: Bytes::new() }
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BlobStream").finish_non_exhaustive()
    }
}

/// A [`BlobStream`] as [`io::Read`] and [`io::BufRead`]: end of file means verified.
#[derive(Debug)]
pub struct BlockingBlob {
    stream: BlobStream,
    runtime: Handle,
    chunk: Bytes,
}

impl io::BufRead for BlockingBlob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.stream.chunk()) {
                Some(chunk) => self.chunk = chunk?,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
    }
}

impl io::Read for BlockingBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = io::BufRead::fill_buf(self)?;
        let bytes = chunk.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&chunk[..bytes]);
        self.chunk.advance(bytes);
        Ok(bytes)
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
