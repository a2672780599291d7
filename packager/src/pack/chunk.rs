//! The buffers of a layer on its way. They go round: what the destination has written is filled anew.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes in one chunk: two of them fit the second-level cache with room to spare, and a channel costs little.
const CHUNK: usize = 256 * 1024;

/// The buffers that are free. As many are made as the destination's bounded channel holds, and a few.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// An empty chunk, in the buffer that was given back last.
    pub(super) fn take(&self) -> Chunk {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Chunk { buffer: free.unwrap_or_else(|| vec![0; CHUNK]), length: 0, pool: self.clone() }
    }
}

/// Up to [`CHUNK`] bytes. Its buffer goes back to the pool.
pub(super) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl Chunk {
    /// Fills it; less than all of it only at the reader's end.
    pub(super) fn fill(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.length = 0;
        while let Some(rest) = self.buffer.get_mut(self.length..).filter(|rest| !rest.is_empty()) {
            match from.read(rest) {
                Ok(0) => break,
                Ok(read) => self.length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.length).unwrap_or_default()
    }

    /// The chunk for a writer; the buffer is free once all of it and its slices were dropped.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_free_once_its_last_slice_is_gone() {
        let pool = Pool::default();
        let mut chunk = pool.take();
        chunk.fill(&mut io::repeat(7).take(1000)).unwrap();
        let bytes = chunk.into_bytes();
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert!(pool.0.lock().unwrap().is_empty());
        assert_eq!(slice, [7; 10][..]);
        drop(slice);
        assert_eq!(pool.0.lock().unwrap().len(), 1);
        assert!(pool.take().bytes().is_empty(), "what was in a buffer before is not seen again");
    }
}
