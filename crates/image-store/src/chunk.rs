//! Buffers for the bytes of blobs on their way. They go round: what the last stage or the destination has done with is filled
//! anew.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes in one chunk: two of them fit the second-level cache with room to spare, and a channel costs little.
pub const CHUNK: usize = 256 * 1024;

/// The buffers that are free. As many are made as the bounded channels between the stages hold, and a few.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// An empty chunk, in the buffer that was given back last.
    #[must_use]
    pub fn take(&self) -> Chunk {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Chunk { buffer: free.unwrap_or_else(|| vec![0; CHUNK]), length: 0, pool: self.clone() }
    }

    /// How many buffers were made and are not in use.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Up to [`CHUNK`] bytes. Its buffer goes back to the pool.
#[derive(Debug)]
pub struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl Chunk {
    /// Fills it from a reader, and gives how many bytes there are: less than [`CHUNK`] only at the reader's end.
    ///
    /// # Errors
    /// The reader's.
    pub fn fill(&mut self, from: &mut dyn Read) -> io::Result<usize> {
        self.length = 0;
        while let Some(rest) = self.buffer.get_mut(self.length..).filter(|rest| !rest.is_empty()) {
            match from.read(rest) {
                Ok(0) => break,
                Ok(read) => self.length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.length)
    }

    /// Makes it as long as another one, whatever it holds.
    pub fn lengthen_to(&mut self, other: &Self) {
        self.length = other.length;
    }

    /// What it was filled with.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// The same, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.length).unwrap_or_default()
    }

    /// The chunk for a writer; the buffer is free once all of it and its slices were dropped.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
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
        assert_eq!(pool.free(), 0);
        assert_eq!(slice, [7; 10][..]);
        drop(slice);
        assert_eq!(pool.free(), 1);
        assert!(pool.take().bytes().is_empty(), "what was in a buffer before is not seen again");
    }

    #[test]
    fn one_chunk_is_made_as_long_as_another() {
        let pool = Pool::default();
        let (mut chunk, mut other) = (pool.take(), pool.take());
        other.fill(&mut io::repeat(1).take(2000)).unwrap();
        chunk.fill(&mut io::repeat(2).take(1000)).unwrap();
        other.lengthen_to(&chunk);
        other.bytes_mut().fill(3);
        assert_eq!((chunk.bytes(), other.bytes()), (&[2; 1000][..], &[3; 1000][..]));
    }
}
