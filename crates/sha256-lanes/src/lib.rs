//! SHA-256 over several streams at once. The rounds of one stream wait for each other: a core's SHA unit is idle half of
//! the time. Two or three streams that are hashed in turns, four rounds each, fill it.
//!
//! Where two of them take in the very same memory, as a digest and a MAC of one ciphertext do, the words of each round are
//! made once for both.
//!
//! Here are the streams and how they share the unit; what is hashed, and keys, are the callers'. One stream alone, and
//! machines without the instructions, go by `sha2`.
//!
//! ```
//! use sha256_lanes::{Sha256, update_together};
//!
//! let (mut a, mut b) = (Sha256::new(), Sha256::new());
//! update_together(&mut [a.lane(b"one stream"), b.lane(b"another, of any length")]);
//! let mut alone = Sha256::new();
//! alone.update(b"one stream");
//! assert_eq!(a.finish(), alone.finish());
//! ```

mod compress;
#[cfg(target_arch = "x86_64")]
mod sha_ni;

use std::fmt;

use zeroize::Zeroize;

use crate::compress::compress;

/// SHA-256 over one stream ([FIPS 180-4], section 6.2). What it holds is wiped when it goes: it may be keyed.
///
/// [FIPS 180-4]: https://doi.org/10.6028/NIST.FIPS.180-4
#[derive(Clone)]
pub struct Sha256 {
    state: State,
    /// The bytes behind the last whole block.
    pending: Block,
    /// Bytes so far.
    length: u64,
}

impl Sha256 {
    /// Bytes of a digest.
    pub const LEN: usize = 32;
    /// Bytes of a block. Chunks whose length is a multiple of it are hashed where they lie.
    pub const BLOCK: usize = 64;

    /// An empty stream.
    pub const fn new() -> Self {
        Self { state: INITIAL, pending: [0; Self::BLOCK], length: 0 }
    }

    /// Takes in the next bytes of this stream alone.
    pub fn update(&mut self, bytes: &[u8]) {
        update_together(&mut [self.lane(bytes)]);
    }

    /// The next bytes of this stream, for [`update_together`].
    pub fn lane<'a>(&'a mut self, bytes: &'a [u8]) -> Lane<'a> {
        Lane { stream: self, bytes }
    }

    /// Bytes so far.
    pub const fn bytes(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes.
    pub fn finish(mut self) -> [u8; Self::LEN] {
        let bits = self.length.wrapping_mul(8).to_be_bytes();
        let mut padding = [0; 2 * Self::BLOCK];
        padding[0] = 0x80;
        // Up to the last eight bytes of a block, which are the length's.
        let used = self.used();
        let zeros_end = if used < LENGTH_AT { LENGTH_AT - used } else { Self::BLOCK + LENGTH_AT - used };
        padding[zeros_end..zeros_end + bits.len()].copy_from_slice(&bits);
        self.update(&padding[..zeros_end + bits.len()]);
        let mut digest = [0; Self::LEN];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// Bytes that are pending.
    #[expect(clippy::cast_possible_truncation, reason = "less than a block")]
    const fn used(&self) -> usize {
        (self.length % Self::BLOCK as u64) as usize
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sha256 {
    fn drop(&mut self) {
        self.state.zeroize();
        self.pending.zeroize();
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256").field("bytes", &self.length).finish_non_exhaustive()
    }
}

/// The next bytes of one stream.
#[derive(Debug)]
#[must_use = "a lane is hashed by `update_together`"]
pub struct Lane<'a> {
    stream: &'a mut Sha256,
    bytes: &'a [u8],
}

/// Takes in the next bytes of several streams, of any lengths, up to three of them at a time.
///
/// As fast as it gets where the chunks have the same length and whole blocks.
pub fn update_together(lanes: &mut [Lane<'_>]) {
    for lane in &mut *lanes {
        lane.complete_block();
    }
    loop {
        let mut waiting = lanes.iter_mut().filter(|lane| lane.whole_blocks() > 0);
        match (waiting.next(), waiting.next(), waiting.next(), waiting.next()) {
            (Some(a), Some(b), Some(c), None) if a.is_twin_of(b) => run::<3, 2>([a, b, c]),
            (Some(a), Some(b), Some(c), None) if b.is_twin_of(c) => run::<3, 2>([b, c, a]),
            (Some(a), Some(b), Some(c), None) if a.is_twin_of(c) => run::<3, 2>([a, c, b]),
            (Some(a), Some(b), Some(c), None) => run::<3, 1>([a, b, c]),
            // Four are two pairs.
            (Some(a), Some(b), ..) if a.is_twin_of(b) => run::<2, 2>([a, b]),
            (Some(a), Some(b), ..) => run::<2, 1>([a, b]),
            (Some(a), None, ..) => run::<1, 1>([a]),
            (None, ..) => break,
        }
    }
    for lane in lanes {
        lane.keep_rest();
    }
}

impl<'a> Lane<'a> {
    /// Hashes the block that is pending, once its rest has come.
    fn complete_block(&mut self) {
        let used = self.stream.used();
        if used == 0 {
            return;
        }
        let rest = self.take(self.bytes.len().min(Sha256::BLOCK - used));
        self.stream.pending[used..used + rest.len()].copy_from_slice(rest);
        self.stream.length += rest.len() as u64;
        if self.stream.used() == 0 {
            compress::<1, 1>([(&mut self.stream.state, std::slice::from_ref(&self.stream.pending))]);
        }
    }

    /// Whether what is left is the very same memory.
    fn is_twin_of(&self, other: &Self) -> bool {
        std::ptr::eq(self.bytes, other.bytes)
    }

    fn whole_blocks(&self) -> usize {
        self.bytes.len() / Sha256::BLOCK
    }

    /// Keeps what is less than a block.
    fn keep_rest(&mut self) {
        let rest = self.take(self.bytes.len());
        let used = self.stream.used();
        self.stream.pending[used..used + rest.len()].copy_from_slice(rest);
        self.stream.length += rest.len() as u64;
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        taken
    }
}

/// Hashes as many whole blocks as all of the lanes have. The first `SAME` of them are twins.
fn run<const N: usize, const SAME: usize>(lanes: [&mut Lane<'_>; N]) {
    let blocks = lanes.iter().map(|lane| lane.whole_blocks()).min().unwrap_or(0);
    compress::<N, SAME>(lanes.map(|lane| {
        let bytes = lane.take(blocks * Sha256::BLOCK);
        lane.stream.length += bytes.len() as u64;
        (&mut lane.stream.state, bytes.as_chunks().0)
    }));
}

/// The eight words between blocks.
type State = [u32; 8];
type Block = [u8; Sha256::BLOCK];

/// Where the length stands in the last block.
const LENGTH_AT: usize = Sha256::BLOCK - 8;

/// FIPS 180-4, section 5.3.3.
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[cfg(test)]
mod tests;
