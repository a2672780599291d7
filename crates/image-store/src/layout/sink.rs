//! Writing one blob into a layout: a blocking thread hashes and writes into a temporary file beside the blobs.

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
    chunks: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<(NamedTempFile, Option<Digest>), Error>>,
}

impl LayoutSink {
    pub(crate) async fn begin(layout: &Layout, hashing: Hashing) -> Result<Self, Error> {
        let target = layout.clone();
        let mut file = blocking(move || target.temporary()).await?;
        let (chunks, mut receiver) = mpsc::channel::<Bytes>(CHUNKS_WAITING);
        let thread = task::spawn_blocking(move || {
            let mut hasher = (hashing == Hashing::Store).then(Hasher::default);
            while let Some(chunk) = receiver.blocking_recv() {
                if let Some(hasher) = &mut hasher {
                    hasher.update(&chunk);
                }
                if let Err(error) = file.as_file_mut().write_all(&chunk) {
                    return Err(Error::io("write", file.path())(error));
                }
            }
            Ok((file, hasher.map(Hasher::finish)))
        });
        Ok(Self { layout: layout.clone(), chunks, thread })
    }

    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        // The thread closes the channel early only when it failed.
        match (&mut self.thread).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) => Err(Error::io("write", self.layout.directory())(std::io::ErrorKind::BrokenPipe.into())),
            Err(error) => Err(stopped(error)),
        }
    }

    pub(crate) async fn place(self, announced: Option<(Digest, u64)>, bytes: u64) -> Result<Digest, Error> {
        drop(self.chunks);
        let (file, found) = self.thread.await.map_err(stopped)??;
        let digest = settle(announced, found, bytes)?;
        let layout = self.layout;
        blocking(move || layout.keep(file, &digest)).await?;
        Ok(digest)
    }
}

/// Chunks that wait for the thread.
const CHUNKS_WAITING: usize = 4;
