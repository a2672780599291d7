//! What the log grew by in one transaction, kept for those who asked for it: the receipt of an entry that was just written
//! takes no question to the database, and one signature serves all entries of a transaction.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use transparency_log::{
    CompactRange, Hash, InclusionProof, LeafIndex, NodeId, SignedCheckpoint, hash_leaf, root_nodes,
};

use super::StoreError;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Grown(Arc<Growth>);

#[derive(Debug)]
struct Growth {
    /// The number of leaves before.
    before: u64,
    after: CompactRange,
    leaves: Vec<Vec<u8>>,
    /// The right edge as it was before, and all nodes that came: a proof of any of the leaves consists of these.
    nodes: HashMap<NodeId, Hash>,
    checkpoint: OnceLock<SignedCheckpoint>,
}

impl Grown {
    pub(super) fn new(
        before: &CompactRange,
        after: CompactRange,
        leaves: Vec<Vec<u8>>,
        nodes: Vec<(NodeId, Hash)>,
    ) -> Self {
        let edge = root_nodes(before.size()).into_iter().zip(before.edge().iter().copied());
        let nodes = edge.chain(nodes).collect();
        Self(Arc::new(Growth { before: before.size().get(), after, leaves, nodes, checkpoint: OnceLock::new() }))
    }

    /// The leaf of the entry at `index` and the proof that it is in the log as it was with the last of the entries; `None` where it came in another
    /// transaction.
    pub(crate) fn proof(&self, index: LeafIndex) -> Result<Option<(Vec<u8>, InclusionProof)>, StoreError> {
        let place = index.get().checked_sub(self.0.before).and_then(|place| usize::try_from(place).ok());
        let Some(leaf) = place.and_then(|place| self.0.leaves.get(place)) else { return Ok(None) };
        let (size, root) = (self.0.after.size(), self.0.after.root());
        let proof = InclusionProof::new(&self.0.nodes, index, size)?;
        proof.verify(hash_leaf(leaf), index, size, &root)?;
        Ok(Some((leaf.clone(), proof)))
    }

    /// The checkpoint of that log, which `sign` makes the first time.
    pub(crate) fn checkpoint<E>(
        &self,
        sign: impl FnOnce(&CompactRange) -> Result<SignedCheckpoint, E>,
    ) -> Result<SignedCheckpoint, E> {
        if let Some(signed) = self.0.checkpoint.get() {
            return Ok(signed.clone());
        }
        let signed = sign(&self.0.after)?;
        // Another one may have been quicker; both are the same.
        Ok(self.0.checkpoint.get_or_init(|| signed).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_a_transaction_is_proved_from_what_it_brought_wherever_it_began() {
        for before in 0_u64..20 {
            for count in 1_u64..12 {
                let leaf = |number: u64| number.to_string().into_bytes();
                let mut range = CompactRange::default();
                for number in 0..before {
                    range.append(hash_leaf(&leaf(number))).unwrap();
                }
                let (old, mut nodes, mut leaves) = (range.clone(), Vec::new(), Vec::new());
                for number in before..before + count {
                    nodes.extend(range.append(hash_leaf(&leaf(number))).unwrap());
                    leaves.push(leaf(number));
                }
                let grown = Grown::new(&old, range, leaves, nodes);
                let prove = |number: u64| grown.proof(LeafIndex::try_from(number).unwrap()).unwrap();
                for number in before..before + count {
                    assert_eq!(prove(number).unwrap().0, leaf(number));
                }
                assert!(prove(before + count).is_none());
                assert!(before == 0 || prove(before - 1).is_none());
            }
        }
    }
}
