//! The shape of the tree (RFC 6962, section 2.1): which nodes there are, which of them make a root, and how it grows.
//! Proofs are in [`crate::proof`].

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::hash::{EMPTY_ROOT, Hash, hash_leaf, hash_node};
use crate::proof::{ConsistencyProof, InclusionProof, ProofError};

/// Why a tree did not answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The source of hashes does not have a node that it should.
    #[error("the hash of {0} is missing")]
    Missing(NodeId),
    /// The right edge has another number of hashes than a tree of that size.
    #[error("a tree of {size} leaves has {expected} hashes at its right edge, not {found}")]
    Edge {
        /// The tree's size.
        size: TreeSize,
        /// How many hashes belong to it.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// The tree holds all the leaves that it can.
    #[error("the tree is full")]
    Full,
    /// A number of leaves that no tree has.
    #[error("{0} is beyond the largest tree")]
    Size(u64),
}

/// A number of leaves, up to 2^63 - 1.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "u64", try_from = "u64")]
pub struct TreeSize(u64);

impl TreeSize {
    /// A tree of no leaves.
    pub const EMPTY: Self = Self(0);
    /// The largest tree; its size is good for a signed integer of 64 bits, which databases have.
    pub const MAX: Self = Self(i64::MAX.unsigned_abs());

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for TreeSize {
    type Error = TreeError;

    fn try_from(size: u64) -> Result<Self, TreeError> {
        if size > Self::MAX.0 { Err(TreeError::Size(size)) } else { Ok(Self(size)) }
    }
}

impl From<TreeSize> for u64 {
    fn from(size: TreeSize) -> Self {
        size.0
    }
}

impl fmt::Display for TreeSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The place of a leaf, from 0.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "u64", try_from = "u64")]
pub struct LeafIndex(u64);

impl LeafIndex {
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for LeafIndex {
    type Error = TreeError;

    fn try_from(index: u64) -> Result<Self, TreeError> {
        if index >= TreeSize::MAX.0 { Err(TreeError::Size(index)) } else { Ok(Self(index)) }
    }
}

impl From<LeafIndex> for u64 {
    fn from(index: LeafIndex) -> Self {
        index.0
    }
}

impl fmt::Display for LeafIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A node over a complete subtree: it spans the leaves `index << level .. (index + 1) << level`. Such a node never changes
/// once its last leaf is there, so it is what a store keeps.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId {
    /// Its height above the leaves, below 63.
    pub level: u8,
    /// Its place at that height, from 0.
    pub index: u64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "node {} at level {}", self.index, self.level)
    }
}

/// Where the hashes of complete subtrees come from.
pub trait HashSource {
    /// The hash of `node`, or nothing where the source does not have it.
    fn hash(&self, node: NodeId) -> Option<Hash>;
}

impl<S: BuildHasher> HashSource for HashMap<NodeId, Hash, S> {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        self.get(&node).copied()
    }
}

/// The nodes that make the root of a tree of `size` leaves, left to right.
pub fn root_nodes(size: TreeSize) -> Vec<NodeId> {
    range_nodes(&(0..size.0))
}

/// The root of the tree of `size` leaves.
pub fn root(source: &impl HashSource, size: TreeSize) -> Result<Hash, TreeError> {
    if size == TreeSize::EMPTY { Ok(EMPTY_ROOT) } else { range_hash(source, &(0..size.0)) }
}

/// The complete subtrees that a range consists of, left to right. The range starts where a subtree of at least its length
/// can: all ranges of RFC 6962 do.
pub(crate) fn range_nodes(range: &Range<u64>) -> Vec<NodeId> {
    let (mut start, mut nodes) = (range.start, Vec::new());
    while start < range.end {
        let level = (range.end - start).ilog2();
        nodes.push(NodeId { level: u8::try_from(level).unwrap_or(u8::MAX), index: start >> level });
        start += 1 << level;
    }
    nodes
}

/// The Merkle tree hash of a range that is not empty.
pub(crate) fn range_hash(source: &impl HashSource, range: &Range<u64>) -> Result<Hash, TreeError> {
    let hashes = range_nodes(range)
        .into_iter()
        .map(|node| source.hash(node).ok_or(TreeError::Missing(node)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(fold(&hashes))
}

/// The hash over complete subtrees whose sizes fall from left to right.
fn fold(hashes: &[Hash]) -> Hash {
    let mut from_right = hashes.iter().rev();
    from_right.next().map_or(EMPTY_ROOT, |last| from_right.fold(*last, |right, left| hash_node(left, &right)))
}

/// A tree of which only the right edge is kept: enough to append and to tell the root.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CompactRange {
    size: TreeSize,
    edge: Vec<Hash>,
}

impl CompactRange {
    /// The tree of `size` leaves, from the hashes of its [`root_nodes`].
    pub fn new(size: TreeSize, edge: Vec<Hash>) -> Result<Self, TreeError> {
        let expected = usize::try_from(size.0.count_ones()).unwrap_or(usize::MAX);
        if edge.len() != expected {
            return Err(TreeError::Edge { size, expected, found: edge.len() });
        }
        Ok(Self { size, edge })
    }

    /// Appends a leaf by its hash and gives all nodes that are complete with it, the leaf first. They are what a store has
    /// to add.
    pub fn append(&mut self, leaf: Hash) -> Result<Vec<(NodeId, Hash)>, TreeError> {
        if self.size >= TreeSize::MAX {
            return Err(TreeError::Full);
        }
        let mut node = NodeId { level: 0, index: self.size.0 };
        let mut hash = leaf;
        let mut complete = vec![(node, hash)];
        while node.index % 2 == 1 {
            let Some(left) = self.edge.pop() else { break };
            hash = hash_node(&left, &hash);
            node = NodeId { level: node.level + 1, index: node.index / 2 };
            complete.push((node, hash));
        }
        self.edge.push(hash);
        self.size = TreeSize(self.size.0 + 1);
        Ok(complete)
    }

    /// The number of leaves.
    pub fn size(&self) -> TreeSize {
        self.size
    }

    /// The root.
    pub fn root(&self) -> Hash {
        fold(&self.edge)
    }

    /// The hashes of its [`root_nodes`]: what [`new`](Self::new) takes.
    pub fn edge(&self) -> &[Hash] {
        &self.edge
    }
}

/// A tree with all its hashes in memory, for small logs and for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    range: CompactRange,
    nodes: HashMap<NodeId, Hash>,
}

impl MemoryTree {
    /// Appends an entry and gives its place.
    pub fn append(&mut self, entry: &[u8]) -> Result<LeafIndex, TreeError> {
        let index = LeafIndex::try_from(self.range.size().0)?;
        self.nodes.extend(self.range.append(hash_leaf(entry))?);
        Ok(index)
    }

    /// The number of leaves.
    pub fn size(&self) -> TreeSize {
        self.range.size()
    }

    /// The root.
    pub fn root(&self) -> Result<Hash, TreeError> {
        root(self, self.size())
    }

    /// The proof that the leaf at `index` is in the tree as it was at `size`.
    pub fn inclusion_proof(&self, index: LeafIndex, size: TreeSize) -> Result<InclusionProof, ProofError> {
        InclusionProof::new(self, index, size)
    }

    /// The proof that the tree at `new` extends the tree at `old`.
    pub fn consistency_proof(&self, old: TreeSize, new: TreeSize) -> Result<ConsistencyProof, ProofError> {
        ConsistencyProof::new(self, old, new)
    }
}

impl HashSource for MemoryTree {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        self.nodes.hash(node)
    }
}
