//! What a layer may cost, so that a decompression bomb or an absurd archive ends early.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::UnpackError;

/// Limits of one image.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Plain tar bytes of all layers together.
    pub plain_bytes: u64,
    /// From this many plain bytes of a layer on, [`Self::expansion`] holds.
    pub expansion_from_bytes: u64,
    /// How many plain bytes may come out of one compressed byte.
    pub expansion: u64,
    /// Entries of all layers together.
    pub entries: u64,
    /// Components of one path.
    pub depth: usize,
    /// Bytes of one path.
    pub path_bytes: usize,
    /// Bytes of one entry's extended attributes.
    pub xattr_bytes: usize,
    /// The logical size of one file in bytes; sparse files may be larger than what is stored.
    pub file_bytes: u64,
}

impl Default for Limits {
    /// 128 GiB and four million entries in all; 500-fold expansion from 1 GiB on; paths of 4096 bytes and 256 components;
    /// 1 MiB of attributes an entry; files of 1 TiB.
    fn default() -> Self {
        Self {
            plain_bytes: 128 << 30,
            expansion_from_bytes: 1 << 30,
            expansion: 500,
            entries: 4_000_000,
            depth: 256,
            path_bytes: 4096,
            xattr_bytes: 1 << 20,
            file_bytes: 1 << 40,
        }
    }
}

/// Counts the entries of all layers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entries(u64);

impl Entries {
    pub(super) fn number(self) -> u64 {
        self.0
    }

    pub(super) fn add(&mut self, limits: &Limits) -> Result<(), UnpackError> {
        self.0 += 1;
        if self.0 > limits.entries {
            return Err(UnpackError::Limit { what: "entries", limit: limits.entries });
        }
        Ok(())
    }
}

/// Counts one layer's bytes on both sides of the decompressor.
#[derive(Debug)]
pub(super) struct Expansion<'a> {
    limits: Limits,
    all_bytes: &'a AtomicU64,
    layer_bytes: u64,
}

impl<'a> Expansion<'a> {
    /// `all_bytes` counts those of all layers.
    pub(super) fn new(limits: Limits, all_bytes: &'a AtomicU64) -> Self {
        Self { limits, all_bytes, layer_bytes: 0 }
    }

    /// Counts plain bytes; `compressed_bytes` have been read so far.
    pub(super) fn add(&mut self, plain_bytes: u64, compressed_bytes: u64) -> Result<(), UnpackError> {
        self.layer_bytes += plain_bytes;
        let all_bytes = self.all_bytes.fetch_add(plain_bytes, Ordering::Relaxed) + plain_bytes;
        if all_bytes > self.limits.plain_bytes {
            return Err(UnpackError::Limit { what: "unpacked bytes", limit: self.limits.plain_bytes });
        }
        let bound = compressed_bytes.saturating_mul(self.limits.expansion).max(self.limits.expansion_from_bytes);
        if self.layer_bytes > bound {
            return Err(UnpackError::Limit {
                what: "plain bytes for one compressed byte",
                limit: self.limits.expansion,
            });
        }
        Ok(())
    }
}
