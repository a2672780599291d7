//! Blobs that lie in a local file, whole or as a part of an archive.
//!
//! Whoever may block reads and hashes by itself; for async tasks a blocking thread does, and a bounded channel carries the
//! chunks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::task;

use crate::blob::{BlobStream, Verifier};
use crate::descriptor::Descriptor;
use crate::error::{Corruption, Error};

/// Where the bytes of a blob lie.
#[derive(Clone, Debug)]
pub(crate) enum Extent {
    /// In a file.
    File { file: Arc<File>, path: PathBuf, offset: u64, bytes: u64 },
    /// Made by this crate, such as the manifest of an archive that has none.
    Memory(Bytes),
}

impl Extent {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::File { bytes, .. } => *bytes,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Reads from the blob's own `offset` on; fewer bytes than asked only at its end.
    pub(crate) fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        let length = usize::try_from(self.bytes().saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
        if let Self::Memory(bytes) = self {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            return Ok(bytes.slice(start..start + length));
        }
        let mut buffer = vec![0; length];
        let filled = self.read_into(offset, &mut buffer)?;
        buffer.truncate(filled);
        Ok(buffer.into())
    }

    /// The same into a buffer; gives the number of bytes.
    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let length = usize::try_from(self.bytes().saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..length];
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                buffer.copy_from_slice(&bytes[start..start + length]);
                Ok(length)
            }
            Self::File { file, path, offset: start, .. } => {
                let mut filled = 0;
                while let Some(rest) = buffer.get_mut(filled..)
                    && !rest.is_empty()
                {
                    match file.read_at(rest, start + offset + filled as u64) {
                        Ok(0) => break,
                        Ok(bytes) => filled += bytes,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(Error::io("read", path)(error)),
                    }
                }
                Ok(filled)
            }
        }
    }
}

/// A blob that is read from start to end, with what has to hold at its end.
pub(crate) struct LocalBlob {
    extent: Extent,
    range: Range<u64>,
    verifier: Verifier,
    check: Check,
}

enum Check {
    /// That all of the range is there.
    Length,
    /// Size and digest.
    Whole,
}

/// Streams a blob and checks it against its descriptor.
pub(crate) fn stream(extent: Extent, descriptor: &Descriptor, store: &str) -> Result<BlobStream, Error> {
    LocalBlob::open(extent, descriptor, 0..descriptor.size, store, Check::Whole)
}

/// Streams a part of a blob, checking only that it is all there.
pub(crate) fn stream_range(
    extent: Extent,
    descriptor: &Descriptor,
    range: Range<u64>,
    store: &str,
) -> Result<BlobStream, Error> {
    LocalBlob::open(extent, descriptor, range, store, Check::Length)
}

impl LocalBlob {
    fn open(
        extent: Extent,
        descriptor: &Descriptor,
        range: Range<u64>,
        store: &str,
        check: Check,
    ) -> Result<BlobStream, Error> {
        let verifier = Verifier::new(descriptor, store);
        if extent.bytes() != descriptor.size {
            return Err(verifier.corrupt(Corruption::Size { found: extent.bytes(), wanted: descriptor.size }));
        }
        Ok(BlobStream::local(Self { extent, range, verifier, check }))
    }

    /// Reads on into a buffer that is not empty; no bytes mean that the end was reached and everything holds.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let wanted = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX).min(buffer.len());
        let bytes = self.extent.read_into(self.range.start, &mut buffer[..wanted])?;
        self.accept(&buffer[..bytes])?;
        Ok(bytes)
    }

    /// Takes note of the next bytes; of none, the end.
    fn accept(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.range.start += bytes.len() as u64;
        match self.check {
            Check::Whole if bytes.is_empty() => self.verifier.finish(),
            Check::Whole => self.verifier.update(bytes),
            Check::Length if bytes.is_empty() && !self.range.is_empty() => {
                let problem = "the file shrank while it was read".to_owned();
                Err(self.verifier.corrupt(Corruption::Protocol { problem }))
            }
            Check::Length => Ok(()),
        }
    }

    /// The blob as chunks that a thread reads.
    pub(crate) fn into_chunks(mut self) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        task::spawn_blocking(move || {
            loop {
                let wanted = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX).min(CHUNK);
                let chunk = self.extent.read_at(self.range.start, wanted);
                let chunk = chunk.and_then(|chunk| self.accept(&chunk).map(|()| chunk));
                let is_last = chunk.as_ref().map_or(true, Bytes::is_empty);
                // A dropped stream is no error: nobody wants the rest.
                if chunk.as_ref().is_ok_and(Bytes::is_empty) || sender.blocking_send(chunk).is_err() || is_last {
                    return;
                }
            }
        });
        receive(receiver)
    }
}

/// Runs work that blocks. A panic in it goes on in the caller.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(stopped(error)),
    }
}

/// What a failed join means: a panic goes on here, a cancelled task means that the runtime shuts down.
pub(crate) fn stopped(error: task::JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Error::io("finish work on", "")(io::Error::other(error)),
    }
}

/// Turns the receiving end of a channel into a stream.
pub(crate) fn receive<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

/// Bytes of one chunk: large enough to make the channel cheap, small enough for the second-level cache.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Chunks that wait in the channel: 1 MiB per blob.
const CHUNKS_AHEAD: usize = 4;
