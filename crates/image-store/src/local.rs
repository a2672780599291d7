//! Blobs that lie in a local file, whole or as a part of an archive.
//!
//! A blocking thread reads and hashes, a bounded channel carries the chunks: no async task does either.

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
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..start + length))
            }
            Self::File { file, path, offset: start, .. } => {
                let mut buffer = vec![0; length];
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
                buffer.truncate(filled);
                Ok(buffer.into())
            }
        }
    }
}

/// Streams a blob and checks it against its descriptor.
pub(crate) fn stream(extent: Extent, descriptor: &Descriptor, store: &str) -> Result<BlobStream, Error> {
    let mut verifier = Verifier::new(descriptor, store);
    if extent.bytes() != descriptor.size {
        return Err(verifier.corrupt(Corruption::Size { found: extent.bytes(), wanted: descriptor.size }));
    }
    let end = descriptor.size;
    Ok(read_in_thread(extent, 0..end, move |chunk| match chunk {
        Some(chunk) => verifier.update(chunk),
        None => verifier.finish(),
    }))
}

/// Streams a part of a blob, checking only that it is all there.
pub(crate) fn stream_range(
    extent: Extent,
    descriptor: &Descriptor,
    range: Range<u64>,
    store: &str,
) -> Result<BlobStream, Error> {
    let verifier = Verifier::new(descriptor, store);
    if extent.bytes() != descriptor.size {
        return Err(verifier.corrupt(Corruption::Size { found: extent.bytes(), wanted: descriptor.size }));
    }
    let mut missing = range.end - range.start;
    Ok(read_in_thread(extent, range, move |chunk| match chunk {
        Some(chunk) => {
            missing = missing.saturating_sub(chunk.len() as u64);
            Ok(())
        }
        None if missing == 0 => Ok(()),
        None => Err(verifier.corrupt(Corruption::Protocol { problem: "the file shrank while it was read".to_owned() })),
    }))
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

fn read_in_thread(
    extent: Extent,
    range: Range<u64>,
    mut check: impl FnMut(Option<&[u8]>) -> Result<(), Error> + Send + 'static,
) -> BlobStream {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    task::spawn_blocking(move || {
        let mut offset = range.start;
        while offset < range.end {
            let wanted = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(CHUNK);
            let chunk = extent.read_at(offset, wanted).and_then(|chunk| check(Some(&chunk)).map(|()| chunk));
            let bytes = chunk.as_ref().map_or(0, Bytes::len);
            let failed = chunk.is_err();
            if bytes == 0 && !failed {
                break;
            }
            // A dropped stream is no error: nobody wants the rest.
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
            offset += bytes as u64;
        }
        if let Err(error) = check(None) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    BlobStream::new(receive(receiver))
}

/// Bytes of one chunk: large enough to make the channel cheap, small enough for the second-level cache.
const CHUNK: usize = 256 * 1024;
/// Chunks that wait in the channel: 1 MiB per blob.
const CHUNKS_AHEAD: usize = 4;
