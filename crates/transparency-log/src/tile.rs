//! Tiles and entry bundles (C2SP tlog-tiles): their paths, their bytes, and a set of tiles as a source of hashes.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::hash::{HASH_BYTES, Hash, hash_node};
use crate::tree::{HashSource, NodeId, TreeSize};

/// The hashes of a full tile.
pub const HASHES_PER_TILE: u16 = 256;
/// The entries of a full bundle.
pub const ENTRIES_PER_BUNDLE: u16 = HASHES_PER_TILE;
/// The longest entry, in bytes: its length is written in 16 bits.
pub const MAX_ENTRY_BYTES: usize = 65_535;

/// Why a tile, a bundle or a path cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// The path is not a tile's.
    #[error("not the path of a tile")]
    Path,
    /// The bytes have another length than the path says.
    #[error("the tile has another length than its path says")]
    Length,
    /// An entry is longer than [`MAX_ENTRY_BYTES`].
    #[error("an entry is longer than {MAX_ENTRY_BYTES} bytes")]
    Entry,
    /// The path is of a bundle where a tile of hashes is meant, or the other way round.
    #[error("a tile of hashes and a bundle of entries are two things")]
    Kind,
}

/// What a tile holds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TileKind {
    /// Entries.
    Entries,
    /// Hashes of a level, from 0 at the leaves; each is eight levels of the tree high.
    Hashes(u8),
}

/// The path of a tile: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl TilePath {
    /// The path of the tile at `index` with `width` hashes or entries, 1 to 256.
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        let level = match kind {
            TileKind::Entries => 0,
            TileKind::Hashes(level) => level,
        };
        if level > MAX_LEVEL || width == 0 || width > HASHES_PER_TILE || index > TreeSize::MAX.get() {
            return Err(TileError::Path);
        }
        Ok(Self { kind, index, width })
    }

    /// What it holds.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its place in its level, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it has.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The place of its first hash or entry in its level.
    pub fn start(&self) -> u64 {
        self.index.saturating_mul(u64::from(HASHES_PER_TILE))
    }

    /// The nodes whose hashes are a tile of hashes, left to right; nothing for a bundle, or where no tree is that high.
    pub fn nodes(&self) -> Option<Vec<NodeId>> {
        let TileKind::Hashes(level) = self.kind else { return None };
        let level =
            level.checked_mul(TILE_HEIGHT).filter(|level| *level < u8::try_from(u64::BITS).unwrap_or(u8::MAX))?;
        let end = self.start().checked_add(u64::from(self.width))?;
        Some((self.start()..end).map(|index| NodeId { level, index }).collect())
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => formatter.write_str("tile/entries/")?,
            TileKind::Hashes(level) => write!(formatter, "tile/{level}/")?,
        }
        let (mut rest, mut groups) = (self.index / 1000, Vec::new());
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        groups.iter().rev().try_for_each(|group| write!(formatter, "x{group:03}/"))?;
        write!(formatter, "{:03}", self.index % 1000)?;
        if self.width < HASHES_PER_TILE { write!(formatter, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        if path.len() > MAX_PATH_BYTES {
            return Err(TileError::Path);
        }
        let rest = path.strip_prefix("tile/").ok_or(TileError::Path)?;
        let (kind, rest) = rest.split_once('/').ok_or(TileError::Path)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().map_err(|_| TileError::Path)?),
        };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, width.parse().map_err(|_| TileError::Path)?),
            None => (rest, HASHES_PER_TILE),
        };
        let index = groups.split('/').try_fold(0_u64, |index, group| {
            let digits = group.strip_prefix('x').unwrap_or(group);
            index.checked_mul(1000)?.checked_add(digits.parse().ok()?)
        });
        let parsed = Self::new(kind, index.ok_or(TileError::Path)?, width)?;
        // One tile has one path: whatever else would be read alike (signs, zeros, a missing or odd `x`) is refused.
        if parsed.to_string() == path { Ok(parsed) } else { Err(TileError::Path) }
    }
}

/// All tiles and bundles that a log of `size` entries serves.
pub fn tile_paths(size: TreeSize) -> impl Iterator<Item = TilePath> {
    let levels = (0..=MAX_LEVEL).map(move |level| (TileKind::Hashes(level), width_of_level(size, level)));
    std::iter::once((TileKind::Entries, size.get())).chain(levels).flat_map(|(kind, count)| {
        let width = u64::from(HASHES_PER_TILE);
        (0..count.div_ceil(width)).map(move |index| TilePath {
            kind,
            index,
            width: u16::try_from((count - index * width).min(width)).unwrap_or(HASHES_PER_TILE),
        })
    })
}

fn width_of_level(size: TreeSize, level: u8) -> u64 {
    size.get().checked_shr(u32::from(level) * u32::from(TILE_HEIGHT)).unwrap_or(0)
}

/// Writes entries as a bundle.
pub fn encode_bundle<'e>(entries: impl IntoIterator<Item = &'e [u8]>) -> Result<Vec<u8>, TileError> {
    let mut bundle = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| TileError::Entry)?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Ok(bundle)
}

/// Reads the `width` entries of a bundle.
pub fn decode_bundle(mut bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let mut entries = Vec::with_capacity(usize::from(width.min(ENTRIES_PER_BUNDLE)));
    for _ in 0..width {
        let (length, rest) = bundle.split_first_chunk().ok_or(TileError::Length)?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(TileError::Length)?;
        entries.push(entry);
        bundle = rest;
    }
    if bundle.is_empty() { Ok(entries) } else { Err(TileError::Length) }
}

/// Tiles of hashes that are at hand, as a source of hashes. They are not checked here: a root or a proof made from them
/// is.
#[derive(Clone, Debug, Default)]
pub struct TileSet {
    tiles: HashMap<(u8, u64), Vec<Hash>>,
}

impl TileSet {
    /// Adds a tile. Of two tiles at one place the wider one stays.
    pub fn insert(&mut self, path: &TilePath, bytes: &[u8]) -> Result<(), TileError> {
        let TileKind::Hashes(level) = path.kind else { return Err(TileError::Kind) };
        let (chunks, rest) = bytes.as_chunks::<HASH_BYTES>();
        if chunks.len() != usize::from(path.width) || !rest.is_empty() {
            return Err(TileError::Length);
        }
        let tile = self.tiles.entry((level, path.index)).or_default();
        if tile.len() < chunks.len() {
            *tile = chunks.iter().map(|chunk| Hash::new(*chunk)).collect();
        }
        Ok(())
    }
}

impl HashSource for TileSet {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        let above = node.level % TILE_HEIGHT;
        let first = node.index.checked_mul(1 << above)?;
        let tile = self.tiles.get(&(node.level / TILE_HEIGHT, first / u64::from(HASHES_PER_TILE)))?;
        let offset = usize::try_from(first % u64::from(HASHES_PER_TILE)).ok()?;
        let mut hashes = tile.get(offset..offset + (1 << above))?.to_vec();
        while hashes.len() > 1 {
            hashes = hashes.as_chunks::<2>().0.iter().map(|[left, right]| hash_node(left, right)).collect();
        }
        hashes.first().copied()
    }
}

/// How many levels of the tree a tile spans.
const TILE_HEIGHT: u8 = 8;
const MAX_LEVEL: u8 = 63;
const MAX_PATH_BYTES: usize = 64;
