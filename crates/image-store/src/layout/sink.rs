//! Writing one blob into a layout: hashed and written into a temporary file beside the blobs, by the caller's thread where it
//! may block, else by one of its own.

use std::io::Write;

use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::task::{self, JoinHandle};

use super::Layout;
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::local::{blocking, stopped};
use crate::writer::{Hashing, settle};

/// A blob on its way into a layout. Dropped, its thread ends and the temporary file goes.
#[derive(Debug)]
pub(crate) struct LayoutSink {
    layout: Layout,
    /// Gone once writing has failed.
    way: Option<Way>,
}

/// Who writes.
#[derive(Debug)]
enum Way {
    Caller(Partial),
    Thread { chunks: mpsc::Sender<Bytes>, thread: JoinHandle<Result<Partial, Error>> },
}

/// The temporary file, and the digest of what is in it if that is asked of us.
#[derive(Debug)]
struct Partial {
    file: NamedTempFile,
    hasher: Option<Hasher>,
}

impl Partial {
    fn write(&mut self, chunk: &[u8]) -> Result<(), Error> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(chunk);
        }
        self.file.as_file_mut().write_all(chunk).map_err(|error| Error::io("write", self.file.path())(error))
    }
}

impl LayoutSink {
    pub(crate) async fn begin(layout: &Layout, hashing: Hashing) -> Result<Self, Error> {
        let target = layout.clone();
        let file = blocking(move || target.temporary()).await?;
        let hasher = (hashing == Hashing::Store).then(Hasher::default);
        Ok(Self { layout: layout.clone(), way: Some(Way::Caller(Partial { file, hasher })) })
    }

    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        let (chunks, thread) = match self.way.take() {
            Some(Way::Thread { chunks, thread }) => (chunks, thread),
            Some(Way::Caller(partial)) => start(partial),
            None => return Err(self.broken()),
        };
        if chunks.send(chunk).await.is_ok() {
            self.way = Some(Way::Thread { chunks, thread });
            return Ok(());
        }
        // The thread closes the channel early only when it failed.
        match thread.await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) => Err(self.broken()),
            Err(error) => Err(stopped(error)),
        }
    }

    /// Whether the caller's thread writes.
    pub(crate) const fn is_direct(&self) -> bool {
        matches!(self.way, Some(Way::Caller(_)))
    }

    /// Writes on the caller's thread.
    pub(crate) fn write_direct(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let Some(Way::Caller(partial)) = &mut self.way else { return Err(self.broken()) };
        let written = partial.write(chunk);
        if written.is_err() {
            self.way = None;
        }
        written
    }

    pub(crate) async fn place(mut self, announced: Option<(Digest, u64)>, bytes: u64) -> Result<Digest, Error> {
        let Partial { file, hasher } = match self.way.take() {
            Some(Way::Caller(partial)) => partial,
            Some(Way::Thread { chunks, thread }) => {
                drop(chunks);
                thread.await.map_err(stopped)??
            }
            None => return Err(self.broken()),
        };
        let digest = settle(announced, hasher.map(Hasher::finish), bytes)?;
        let layout = self.layout;
        blocking(move || layout.keep(file, &digest)).await?;
        Ok(digest)
    }

    fn broken(&self) -> Error {
        Error::io("write", self.layout.directory())(std::io::ErrorKind::BrokenPipe.into())
    }
}

/// A thread that writes what comes, to the end of the channel.
fn start(mut partial: Partial) -> (mpsc::Sender<Bytes>, JoinHandle<Result<Partial, Error>>) {
    let (chunks, mut receiver) = mpsc::channel::<Bytes>(CHUNKS_WAITING);
    let thread = task::spawn_blocking(move || {
        while let Some(chunk) = receiver.blocking_recv() {
            partial.write(&chunk)?;
        }
        Ok(partial)
    });
    (chunks, thread)
}

/// Chunks that wait for the thread.
const CHUNKS_WAITING: usize = 4;
