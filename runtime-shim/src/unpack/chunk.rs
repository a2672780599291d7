//! Reading what comes in chunks between the stages of the pipeline.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use image_store::{Chunk, Digest, Hasher};

/// The chunks of a channel as a reader; its end is the sender's.
pub(super) struct ChunkReader {
    chunks: Receiver<Chunk>,
    chunk: Option<Chunk>,
    position: usize,
    /// Over all chunks that came, read to their end or not.
    hasher: Option<Hasher>,
    taken: Arc<AtomicU64>,
}

impl ChunkReader {
    pub(super) fn new(chunks: Receiver<Chunk>) -> Self {
        Self { chunks, chunk: None, position: 0, hasher: None, taken: Arc::default() }
    }

    /// The same, with a digest of everything that comes.
    pub(super) fn hashing(chunks: Receiver<Chunk>) -> Self {
        Self { hasher: Some(Hasher::default()), ..Self::new(chunks) }
    }

    /// Counts the bytes that were taken.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        self.taken.clone()
    }

    /// Takes everything that still comes.
    pub(super) fn drain(&mut self) {
        let rest = self.chunk.as_ref().map_or(0, |chunk| chunk.bytes().len()).saturating_sub(self.position);
        let mut bytes = rest;
        loop {
            self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
            bytes = self.next_chunk().len();
            if bytes == 0 {
                break;
            }
        }
    }

    /// The digest of everything that came.
    pub(super) fn finish(self) -> Option<Digest> {
        self.hasher.map(Hasher::finish)
    }

    fn next_chunk(&mut self) -> &[u8] {
        // The buffer goes back before the next one is waited for.
        self.chunk = None;
        self.position = 0;
        // A sender that failed hangs up as well: the stage's own result says which it was.
        self.chunk = self.chunks.recv().ok();
        let bytes = self.chunk.as_ref().map(Chunk::bytes).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        bytes
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.chunk.as_ref().map_or(0, |chunk| chunk.bytes().len()) {
            return Ok(self.next_chunk());
        }
        Ok(self.chunk.as_ref().and_then(|chunk| chunk.bytes().get(self.position..)).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes;
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use image_store::Pool;

    use super::*;

    #[test]
    fn buffers_go_round() {
        let pool = Pool::default();
        let (sender, receiver) = sync_channel(2);
        let mut reader = ChunkReader::hashing(receiver);
        let mut expected = Hasher::default();
        for fill in 0..100_u8 {
            let mut chunk = pool.take();
            chunk.fill(&mut io::repeat(fill).take(1000)).unwrap();
            expected.update(chunk.bytes());
            sender.send(chunk).unwrap();
            let mut read = [0; 1000];
            reader.read_exact(&mut read).unwrap();
            assert_eq!(read, [fill; 1000]);
        }
        drop(sender);
        assert!(reader.fill_buf().unwrap().is_empty());
        assert_eq!(reader.count().load(Ordering::Relaxed), 100_000);
        assert_eq!(reader.finish(), Some(expected.finish()));
        assert!(pool.free() <= 2, "no buffer was made while one was free");
    }
}
