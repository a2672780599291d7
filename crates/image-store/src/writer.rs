//! Blobs on their way into a store, under a digest that is known only at their end.

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::digest::Digest;
use crate::error::{Error, UsageError};
use crate::layout::LayoutSink;
use crate::registry::UploadSink;

/// A blob that is being written. Dropping it before [`BlobWriter::finish`] leaves nothing behind: a temporary file is
/// removed, an upload session is cancelled as far as the registry lets us.
#[derive(Debug)]
pub struct BlobWriter {
    sink: Sink,
    bytes: u64,
}

/// Who computes the digest of a blob that is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hashing {
    Caller,
    Store,
}

#[derive(Debug)]
pub(crate) enum Sink {
    Layout(LayoutSink),
    Upload(UploadSink),
}

impl BlobWriter {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink, bytes: 0 }
    }

    /// Writes the next bytes; waits while the store is slower than the caller (at most 1 MiB is buffered when chunks
    /// have 256 KiB).
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Unavailable`], [`Error::Denied`], [`Error::Refused`]. After an error the writer can only
    /// be dropped; the blob has to be written anew.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.bytes += chunk.len() as u64;
        match &mut self.sink {
            Sink::Layout(sink) => sink.write(chunk).await,
            Sink::Upload(sink) => sink.write(chunk).await,
        }
    }

    /// The same for a thread that may block (one of `spawn_blocking`, never an async task). Into a layout it is that very
    /// thread that writes, unless [`BlobWriter::write`] was called before.
    ///
    /// # Errors
    ///
    /// As [`BlobWriter::write`].
    pub fn write_blocking(&mut self, chunk: Bytes, runtime: &Handle) -> Result<(), Error> {
        match &mut self.sink {
            Sink::Layout(sink) if sink.is_direct() => {
                self.bytes += chunk.len() as u64;
                sink.write_direct(&chunk)
            }
            Sink::Layout(_) | Sink::Upload(_) => runtime.block_on(self.write(chunk)),
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts the blob in place under its digest.
    ///
    /// # Errors
    ///
    /// [`UsageError::Written`] when what was written is not what is announced; else as [`BlobWriter::write`].
    pub async fn finish(self, digest: Digest, size: u64) -> Result<(), Error> {
        self.place(Some((digest, size))).await.map(|_| ())
    }

    /// Puts the blob in place under the digest that the store computed, and returns it with the size in bytes.
    ///
    /// # Errors
    ///
    /// [`UsageError::Unhashed`] for a writer of [`crate::Store::begin_hashed_blob`]; else as [`BlobWriter::write`].
    pub async fn complete(self) -> Result<(Digest, u64), Error> {
        let bytes = self.bytes;
        Ok((self.place(None).await?, bytes))
    }

    async fn place(self, announced: Option<(Digest, u64)>) -> Result<Digest, Error> {
        match self.sink {
            Sink::Layout(sink) => sink.place(announced, self.bytes).await,
            Sink::Upload(sink) => sink.place(announced, self.bytes).await,
        }
    }
}

/// The digest to file a blob under: the announced one, the computed one, or a refusal when both exist and differ.
pub(crate) fn settle(
    announced: Option<(Digest, u64)>,
    found: Option<Digest>,
    found_bytes: u64,
) -> Result<Digest, UsageError> {
    match (announced, found) {
        (Some((wanted, wanted_bytes)), found) => {
            let found = found.unwrap_or(wanted);
            if found == wanted && found_bytes == wanted_bytes {
                Ok(wanted)
            } else {
                Err(UsageError::Written { found, found_bytes, wanted, wanted_bytes })
            }
        }
        (None, Some(found)) => Ok(found),
        (None, None) => Err(UsageError::Unhashed),
    }
}
