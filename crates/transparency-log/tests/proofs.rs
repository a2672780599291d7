//! Trees and proofs of all small sizes against the definition of RFC 6962, written out naively here; and that nothing
//! altered is believed.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use proptest::prelude::*;
use transparency_log::{
    CompactRange, ConsistencyProof, EMPTY_ROOT, Hash, HashSource, InclusionProof, LeafIndex, MemoryTree, ProofError,
    TileKind, TileSet, TreeError, TreeSize, consistency_nodes, hash_leaf, hash_node, inclusion_nodes, root, root_nodes,
    tile_paths,
};

const SIZES: u64 = 70;

fn size(leaves: u64) -> TreeSize {
    leaves.try_into().unwrap()
}

fn index(leaf: u64) -> LeafIndex {
    leaf.try_into().unwrap()
}

fn entry(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

fn tree(leaves: u64) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for number in 0..leaves {
        assert_eq!(tree.append(&entry(number)).unwrap(), index(number));
    }
    tree
}

/// MTH of RFC 6962, section 2.1, by recursion.
fn naive(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => EMPTY_ROOT,
        [only] => hash_leaf(only),
        more => {
            let half = more.len().next_power_of_two() / 2;
            hash_node(&naive(&more[..half]), &naive(&more[half..]))
        }
    }
}

fn roots() -> Vec<Hash> {
    let entries: Vec<_> = (0..SIZES).map(entry).collect();
    (0..=entries.len()).map(|leaves| naive(&entries[..leaves])).collect()
}

/// All hashes that differ from `hash` in one bit of one byte; a bit of each byte.
fn flipped(hash: &Hash) -> impl Iterator<Item = Hash> {
    (0..32).map(|byte| {
        let mut bytes = *hash.as_bytes();
        bytes[byte] ^= 1 << (byte % 8);
        Hash::new(bytes)
    })
}

/// A proof's hashes with each altered in turn, one dropped, one more, and two exchanged.
fn altered(hashes: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for place in 0..hashes.len() {
        all.extend(flipped(&hashes[place]).map(|hash| {
            let mut other = hashes.to_vec();
            other[place] = hash;
            other
        }));
        let mut shorter = hashes.to_vec();
        shorter.remove(place);
        all.push(shorter);
        if place > 0 {
            let mut exchanged = hashes.to_vec();
            exchanged.swap(place, place - 1);
            all.push(exchanged);
        }
    }
    all.push([hashes, &[EMPTY_ROOT]].concat());
    all.push([&[EMPTY_ROOT], hashes].concat());
    all
}

#[test]
fn trees_of_all_small_sizes_have_the_root_of_the_definition() {
    let mut range = CompactRange::default();
    let whole = tree(SIZES);
    for (leaves, expected) in (0..).zip(roots()) {
        assert_eq!(range.root(), expected);
        assert_eq!(root(&whole, size(leaves)).unwrap(), expected);
        let edge: Vec<_> = root_nodes(size(leaves)).into_iter().map(|node| whole.hash(node).unwrap()).collect();
        assert_eq!(CompactRange::new(size(leaves), edge).unwrap(), range, "resumed at {leaves}");
        range.append(hash_leaf(&entry(leaves))).unwrap();
    }
}

#[test]
fn inclusion_proofs_of_all_small_trees_hold_and_no_other_place_size_or_root_does() {
    let (whole, roots) = (tree(SIZES), roots());
    for (leaves, expected) in (1..).zip(&roots[1..]) {
        for leaf in 0..leaves {
            let proof = whole.inclusion_proof(index(leaf), size(leaves)).unwrap();
            let hash = hash_leaf(&entry(leaf));
            proof.verify(hash, index(leaf), size(leaves), expected).unwrap();
            for other in (0..leaves).filter(|other| *other != leaf) {
                proof.verify(hash, index(other), size(leaves), expected).unwrap_err();
            }
            assert_eq!(proof.verify(EMPTY_ROOT, index(leaf), size(leaves), expected), Err(ProofError::Root));
            assert_eq!(proof.verify(hash, index(leaf), size(leaves), &EMPTY_ROOT), Err(ProofError::Root));
        }
        assert!(matches!(whole.inclusion_proof(index(leaves), size(leaves)), Err(ProofError::Index { .. })));
    }
}

#[test]
fn altered_inclusion_proofs_are_refused() {
    let (whole, roots) = (tree(SIZES), roots());
    for (leaves, expected) in (1..).zip(&roots[1..]).filter(|(leaves, _)| leaves % 3 == 1) {
        for leaf in 0..leaves {
            let proof = whole.inclusion_proof(index(leaf), size(leaves)).unwrap();
            let hash = hash_leaf(&entry(leaf));
            for hashes in altered(proof.hashes()) {
                let proof = InclusionProof::from_hashes(hashes).unwrap();
                proof.verify(hash, index(leaf), size(leaves), expected).unwrap_err();
            }
        }
    }
}

#[test]
fn consistency_proofs_of_all_small_trees_hold_and_altered_ones_do_not() {
    let (whole, roots) = (tree(SIZES), roots());
    for (new, new_root) in (0..).zip(&roots) {
        for (old, old_root) in (0..=new).zip(&roots) {
            let proof = whole.consistency_proof(size(old), size(new)).unwrap();
            proof.verify(size(old), old_root, size(new), new_root).unwrap();
            for hashes in altered(proof.hashes()) {
                let proof = ConsistencyProof::from_hashes(hashes).unwrap();
                proof.verify(size(old), old_root, size(new), new_root).unwrap_err();
            }
            for wrong in flipped(old_root).take(1) {
                assert_eq!(proof.verify(size(old), &wrong, size(new), new_root), Err(ProofError::Root));
            }
            // Everything extends the empty tree; there the new root is believed for its signature alone.
            for wrong in flipped(new_root).take(usize::from(old > 0)) {
                assert_eq!(proof.verify(size(old), old_root, size(new), &wrong), Err(ProofError::Root));
            }
        }
    }
}

#[test]
fn a_tree_that_was_rewritten_or_cut_has_no_proof() {
    let whole = tree(SIZES);
    let mut rewritten = MemoryTree::default();
    for number in 0..SIZES {
        rewritten.append(&entry(if number == 9 { 1000 } else { number })).unwrap();
    }
    let proof = rewritten.consistency_proof(size(20), size(SIZES)).unwrap();
    let (old, new) = (root(&whole, size(20)).unwrap(), rewritten.root().unwrap());
    assert_eq!(proof.verify(size(20), &old, size(SIZES), &new), Err(ProofError::Root));
    assert!(matches!(whole.consistency_proof(size(20), size(19)), Err(ProofError::Order { .. })));
    let proof = whole.consistency_proof(size(20), size(SIZES)).unwrap();
    assert!(matches!(proof.verify(size(SIZES), &new, size(20), &old), Err(ProofError::Order { .. })));
}

#[test]
fn the_nodes_that_a_proof_names_are_all_that_it_needs() {
    let whole = tree(SIZES);
    for new in 1..=SIZES {
        for other in 0..new {
            let chosen = |nodes: Vec<_>| -> std::collections::HashMap<_, _> {
                nodes.into_iter().map(|node| (node, whole.hash(node).unwrap())).collect()
            };
            let nodes = chosen(inclusion_nodes(index(other), size(new)).unwrap());
            InclusionProof::new(&nodes, index(other), size(new)).unwrap();
            let nodes = chosen(consistency_nodes(size(other), size(new)).unwrap());
            ConsistencyProof::new(&nodes, size(other), size(new)).unwrap();
        }
    }
}

#[test]
fn tiles_give_the_same_roots_and_proofs_as_the_tree() {
    for leaves in [1, 2, 255, 256, 257, 600, 70_000] {
        let whole = tree(leaves);
        let mut tiles = TileSet::default();
        for path in tile_paths(size(leaves)).filter(|path| path.kind() != TileKind::Entries) {
            let nodes = path.nodes().unwrap();
            let bytes: Vec<u8> = nodes.into_iter().flat_map(|node| *whole.hash(node).unwrap().as_bytes()).collect();
            tiles.insert(&path, &bytes).unwrap();
            assert!(tiles.insert(&path, &bytes[1..]).is_err());
        }
        let head = whole.root().unwrap();
        assert_eq!(root(&tiles, size(leaves)).unwrap(), head);
        for old in (1..=leaves).step_by(331) {
            let proof = ConsistencyProof::new(&tiles, size(old), size(leaves)).unwrap();
            assert_eq!(proof, whole.consistency_proof(size(old), size(leaves)).unwrap());
            proof.verify(size(old), &root(&whole, size(old)).unwrap(), size(leaves), &head).unwrap();
            let proof = InclusionProof::new(&tiles, index(old - 1), size(leaves)).unwrap();
            proof.verify(hash_leaf(&entry(old - 1)), index(old - 1), size(leaves), &head).unwrap();
        }
        assert!(matches!(root(&tiles, size(leaves + 1)), Err(TreeError::Missing(_))));
    }
}

#[test]
fn sizes_beyond_the_largest_tree_are_refused_and_the_largest_is_reckoned_with() {
    assert!(TreeSize::try_from(u64::MAX).is_err());
    assert!(LeafIndex::try_from(TreeSize::MAX.get()).is_err());
    assert_eq!(root_nodes(TreeSize::MAX).len(), 63);
    assert!(inclusion_nodes(index(0), TreeSize::MAX).unwrap().len() >= 62);
    assert!(matches!(CompactRange::new(size(3), vec![EMPTY_ROOT]), Err(TreeError::Edge { expected: 2, .. })));
    let mut full = CompactRange::new(TreeSize::MAX, vec![EMPTY_ROOT; 63]).unwrap();
    assert_eq!(full.append(EMPTY_ROOT), Err(TreeError::Full));
    InclusionProof::from_hashes(vec![EMPTY_ROOT; 65]).unwrap_err();
}

proptest! {
    #[test]
    fn arbitrary_proofs_of_arbitrary_trees_are_refused_without_panic(
        hashes in proptest::collection::vec(any::<[u8; 32]>().prop_map(Hash::new), 0..64),
        first in 0..=TreeSize::MAX.get(), second in 0..=TreeSize::MAX.get(), leaf in any::<[u8; 32]>(),
    ) {
        let (first, second) = (first.min(second), first.max(second));
        let root = Hash::new(leaf);
        if let Ok(place) = LeafIndex::try_from(first) {
            let proof = InclusionProof::from_hashes(hashes.clone()).unwrap();
            prop_assert!(proof.verify(EMPTY_ROOT, place, size(second), &root).is_err());
        }
        let proof = ConsistencyProof::from_hashes(hashes).unwrap();
        prop_assert!(proof.verify(size(first), &EMPTY_ROOT, size(second), &root).is_err() || first == 0);
    }

    #[test]
    fn proofs_between_sampled_sizes_of_a_larger_tree_hold(old in 1_u64..1500, more in 0_u64..1500) {
        let new = old + more;
        let whole = tree(new);
        let (old_root, new_root) = (root(&whole, size(old)).unwrap(), whole.root().unwrap());
        let proof = whole.consistency_proof(size(old), size(new)).unwrap();
        prop_assert_eq!(proof.verify(size(old), &old_root, size(new), &new_root), Ok(()));
        let proof = whole.inclusion_proof(index(old - 1), size(new)).unwrap();
        prop_assert_eq!(proof.verify(hash_leaf(&entry(old - 1)), index(old - 1), size(new), &new_root), Ok(()));
    }
}
