//! Blobs for threads that may block. What lies in a file is read where it is wanted, without a thread and a copy between.

use std::future::Future;
use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, select};
use tokio::runtime::Handle;

use super::{BlobStream, Source};
use crate::local::{CHUNK, LocalBlob};

/// A [`BlobStream`] as [`io::Read`] and [`io::BufRead`]: end of file means verified, where the stream is.
pub struct BlockingBlob {
    source: Blocking,
    runtime: Handle,
    stop: Option<BoxFuture<'static, ()>>,
}

enum Blocking {
    Local(LocalReader),
    Stream { stream: BlobStream, chunk: Bytes },
}

/// A local blob, and what was read of it and not yet taken.
struct LocalReader {
    blob: Option<Box<LocalBlob>>,
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
}

impl BlockingBlob {
    pub(super) fn new(stream: BlobStream) -> Self {
        let source = match stream.source {
            Source::Local(blob) => Blocking::Local(LocalReader { blob, buffer: Vec::new(), filled: 0, taken: 0 }),
            chunks @ Source::Chunks(_) => {
                Blocking::Stream { stream: BlobStream { source: chunks }, chunk: Bytes::new() }
            }
        };
        Self { source, runtime: Handle::current(), stop: None }
    }

    /// Ends reading with an error once `stop` is done, also while the store is silent.
    #[must_use]
    pub fn stopped_by(self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { stop: Some(stop.boxed()), ..self }
    }

    /// For reads that nothing waits for.
    fn check_stop(&mut self) -> io::Result<()> {
        let Some(stop) = &mut self.stop else { return Ok(()) };
        if stop.now_or_never().is_none() {
            return Ok(());
        }
        // A future that is done is not asked again.
        *stop = std::future::ready(()).boxed();
        Err(stopped())
    }

    /// Waits for the next chunk of a stream; `None` at its end.
    fn wait(&mut self) -> io::Result<Option<Bytes>> {
        let Blocking::Stream { stream, .. } = &mut self.source else { return Ok(None) };
        let Some(stop) = &mut self.stop else { return Ok(self.runtime.block_on(stream.chunk()).transpose()?) };
        let next = {
            let next = std::pin::pin!(stream.chunk());
            match self.runtime.block_on(select(&mut *stop, next)) {
                Either::Left(((), _)) => None,
                Either::Right((next, _)) => Some(next),
            }
        };
        if let Some(next) = next {
            return Ok(next.transpose()?);
        }
        *stop = std::future::ready(()).boxed();
        Err(stopped())
    }
}

fn stopped() -> io::Error {
    io::Error::other("reading was stopped")
}

impl BufRead for BlockingBlob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if matches!(self.source, Blocking::Local(_)) {
            self.check_stop()?;
        }
        while let Blocking::Stream { chunk, .. } = &self.source
            && chunk.is_empty()
        {
            let Some(next) = self.wait()? else { break };
            if let Blocking::Stream { chunk, .. } = &mut self.source {
                *chunk = next;
            }
        }
        match &mut self.source {
            Blocking::Local(reader) => reader.fill(),
            Blocking::Stream { chunk, .. } => Ok(chunk),
        }
    }

    fn consume(&mut self, bytes: usize) {
        match &mut self.source {
            Blocking::Local(reader) => reader.taken = (reader.taken + bytes).min(reader.filled),
            Blocking::Stream { chunk, .. } => chunk.advance(bytes),
        }
    }
}

impl Read for BlockingBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Blocking::Local(reader) = &self.source
            && reader.taken == reader.filled
            && buffer.len() >= CHUNK
        {
            self.check_stop()?;
            if let Blocking::Local(reader) = &mut self.source {
                return reader.read(buffer);
            }
        }
        let chunk = self.fill_buf()?;
        let bytes = chunk.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&chunk[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}

impl LocalReader {
    fn fill(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.filled {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(CHUNK, 0);
            let filled = self.read(&mut buffer);
            self.buffer = buffer;
            (self.taken, self.filled) = (0, filled?);
        }
        Ok(self.buffer.get(self.taken..self.filled).unwrap_or_default())
    }

    /// Reads into the caller's own buffer.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(blob) = &mut self.blob else { return Ok(0) };
        let read = blob.read(buffer);
        if !matches!(read, Ok(1..)) {
            // Judged, one way or the other.
            self.blob = None;
        }
        Ok(read?)
    }
}

impl std::fmt::Debug for BlockingBlob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BlockingBlob").finish_non_exhaustive()
    }
}
