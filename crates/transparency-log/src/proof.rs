//! Proofs that a leaf is in a tree and that one tree extends another (RFC 6962, sections 2.1.1 and 2.1.2), made from a source
//! of hashes and checked by the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2, which share nothing with the making.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize};

use crate::hash::{EMPTY_ROOT, Hash, hash_node};
use crate::tree::{HashSource, LeafIndex, NodeId, TreeError, TreeSize, range_hash, range_nodes};

/// Why a proof cannot be made or does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The leaf is beyond the tree.
    #[error("a tree of {size} leaves has none at {index}")]
    Index {
        /// The leaf's place.
        index: LeafIndex,
        /// The tree's size.
        size: TreeSize,
    },
    /// The proof has another number of hashes than it needs.
    #[error("the proof has too many or too few hashes")]
    Length,
    /// The older tree is the larger one.
    #[error("a tree of {new} leaves cannot extend one of {old}")]
    Order {
        /// The older size.
        old: TreeSize,
        /// The newer size.
        new: TreeSize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    Root,
    /// The tree did not answer.
    #[error("the tree does not have what the proof needs")]
    Tree(#[from] TreeError),
}

/// The most hashes that a proof about the largest tree has.
const MAX_PROOF_HASHES: usize = 64;

/// The hashes that lead from a leaf to the root, lowest first.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct InclusionProof(Vec<Hash>);

/// The hashes that lead from one tree to a larger one.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ConsistencyProof(Vec<Hash>);

/// The nodes that a source must have for the inclusion proof of the leaf at `index` in a tree of `size` leaves.
pub fn inclusion_nodes(index: LeafIndex, size: TreeSize) -> Result<Vec<NodeId>, ProofError> {
    Ok(inclusion_ranges(index, size)?.iter().flat_map(range_nodes).collect())
}

/// The nodes that a source must have for the consistency proof between the two sizes.
pub fn consistency_nodes(old: TreeSize, new: TreeSize) -> Result<Vec<NodeId>, ProofError> {
    Ok(consistency_ranges(old, new)?.iter().flat_map(range_nodes).collect())
}

impl InclusionProof {
    /// Makes the proof that the leaf at `index` is in the tree of `size` leaves.
    pub fn new(source: &impl HashSource, index: LeafIndex, size: TreeSize) -> Result<Self, ProofError> {
        Ok(Self(hashes(source, &inclusion_ranges(index, size)?)?))
    }

    /// A proof of hashes that came from elsewhere.
    pub fn from_hashes(hashes: Vec<Hash>) -> Result<Self, ProofError> {
        bounded(hashes).map(Self)
    }

    /// Its hashes.
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Checks that the leaf with the hash `leaf` is at `index` of the tree with `size` leaves and `root`.
    pub fn verify(&self, leaf: Hash, index: LeafIndex, size: TreeSize, root: &Hash) -> Result<(), ProofError> {
        if index.get() >= size.get() {
            return Err(ProofError::Index { index, size });
        }
        let (mut place, mut last) = (index.get(), size.get() - 1);
        let mut hash = leaf;
        for sibling in &self.0 {
            if last == 0 {
                return Err(ProofError::Length);
            }
            if place % 2 == 1 || place == last {
                hash = hash_node(sibling, &hash);
                climb_to_right_child(&mut place, &mut last);
            } else {
                hash = hash_node(&hash, sibling);
            }
            (place, last) = (place >> 1, last >> 1);
        }
        if last != 0 {
            return Err(ProofError::Length);
        }
        if hash == *root { Ok(()) } else { Err(ProofError::Root) }
    }
}

impl ConsistencyProof {
    /// Makes the proof that the tree of `new` leaves extends that of `old`. Where either is empty or both are the same it
    /// has no hashes.
    pub fn new(source: &impl HashSource, old: TreeSize, new: TreeSize) -> Result<Self, ProofError> {
        Ok(Self(hashes(source, &consistency_ranges(old, new)?)?))
    }

    /// A proof of hashes that came from elsewhere.
    pub fn from_hashes(hashes: Vec<Hash>) -> Result<Self, ProofError> {
        bounded(hashes).map(Self)
    }

    /// The proof where there is nothing to prove.
    pub(crate) const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Its hashes.
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Checks that the tree of `new` leaves and `new_root` extends that of `old` leaves and `old_root`.
    pub fn verify(&self, old: TreeSize, old_root: &Hash, new: TreeSize, new_root: &Hash) -> Result<(), ProofError> {
        if old > new {
            return Err(ProofError::Order { old, new });
        }
        if old == new || old == TreeSize::EMPTY {
            if !self.0.is_empty() {
                return Err(ProofError::Length);
            }
            let expected = if old == new { new_root } else { &EMPTY_ROOT };
            return if old_root == expected { Ok(()) } else { Err(ProofError::Root) };
        }
        let (mut place, mut last) = (old.get() - 1, new.get() - 1);
        let common = place.trailing_ones();
        (place, last) = (place >> common, last >> common);
        let mut rest = self.0.iter();
        // An old tree that is one complete subtree is its own start, and the proof does not repeat it.
        let start = if place == 0 { old_root } else { rest.next().ok_or(ProofError::Length)? };
        let (mut old_hash, mut new_hash) = (*start, *start);
        for sibling in rest {
            if last == 0 {
                return Err(ProofError::Length);
            }
            if place % 2 == 1 || place == last {
                old_hash = hash_node(sibling, &old_hash);
                new_hash = hash_node(sibling, &new_hash);
                climb_to_right_child(&mut place, &mut last);
            } else {
                new_hash = hash_node(&new_hash, sibling);
            }
            (place, last) = (place >> 1, last >> 1);
        }
        if last != 0 {
            return Err(ProofError::Length);
        }
        if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(ProofError::Root) }
    }
}

impl<'de> Deserialize<'de> for InclusionProof {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_hashes(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ConsistencyProof {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_hashes(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn bounded(hashes: Vec<Hash>) -> Result<Vec<Hash>, ProofError> {
    if hashes.len() > MAX_PROOF_HASHES { Err(ProofError::Length) } else { Ok(hashes) }
}

/// At the right edge a node may stand several levels up without a sibling; this climbs to where it is a right child.
fn climb_to_right_child(place: &mut u64, last: &mut u64) {
    while place.is_multiple_of(2) && *place != 0 {
        *place >>= 1;
        *last >>= 1;
    }
}

/// Where a range of more than one leaf is split: at the largest power of two below its length.
fn split(range: &Range<u64>) -> u64 {
    range.start + (1 << (range.end - range.start - 1).ilog2())
}

/// The ranges whose hashes are the audit path, lowest first.
fn inclusion_ranges(index: LeafIndex, size: TreeSize) -> Result<Vec<Range<u64>>, ProofError> {
    if index.get() >= size.get() {
        return Err(ProofError::Index { index, size });
    }
    let (mut range, mut ranges) = (0..size.get(), Vec::new());
    while range.end - range.start > 1 {
        let middle = split(&range);
        if index.get() < middle {
            ranges.push(middle..range.end);
            range.end = middle;
        } else {
            ranges.push(range.start..middle);
            range.start = middle;
        }
    }
    ranges.reverse();
    Ok(ranges)
}

/// The ranges whose hashes are the consistency proof, in its order.
fn consistency_ranges(old: TreeSize, new: TreeSize) -> Result<Vec<Range<u64>>, ProofError> {
    if old > new {
        return Err(ProofError::Order { old, new });
    }
    if old == new || old == TreeSize::EMPTY {
        return Ok(Vec::new());
    }
    let (mut range, mut ranges) = (0..new.get(), Vec::new());
    while range.end != old.get() {
        let middle = split(&range);
        if old.get() <= middle {
            ranges.push(middle..range.end);
            range.end = middle;
        } else {
            ranges.push(range.start..middle);
            range.start = middle;
        }
    }
    // What starts at the first leaf is the old tree itself, whose root the verifier has.
    if range.start != 0 {
        ranges.push(range);
    }
    ranges.reverse();
    Ok(ranges)
}

fn hashes(source: &impl HashSource, ranges: &[Range<u64>]) -> Result<Vec<Hash>, ProofError> {
    Ok(ranges.iter().map(|range| range_hash(source, range)).collect::<Result<_, _>>()?)
}
