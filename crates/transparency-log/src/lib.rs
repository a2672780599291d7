//! A Merkle log that both sides can prove: trees and proofs of RFC 6962, and the C2SP forms tlog-tiles, tlog-checkpoint,
//! tlog-cosignature, tlog-witness and signed-note. Types, codecs and checks only: where entries, hashes and keys are kept, and what an
//! entry says, is the caller's matter.
//!
//! ```
//! use transparency_log::{Checkpoint, MemoryTree, NoteSigner, Receipt};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let signer = NoteSigner::generate("log.example/audit".parse()?)?;
//! let mut tree = MemoryTree::default();
//! let index = tree.append(b"the key was released")?;
//! tree.append(b"the lease ended")?;
//!
//! let checkpoint = Checkpoint::new(signer.name().clone(), tree.size(), tree.root()?)?;
//! let receipt = Receipt {
//!     entry: b"the key was released".to_vec(),
//!     index,
//!     proof: tree.inclusion_proof(index, tree.size())?,
//!     checkpoint: checkpoint.sign(&signer)?,
//! };
//! let verified = receipt.verify(&signer.verifier_key())?;
//! assert_eq!(verified.checkpoint.size, tree.size());
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod base64_text;
mod checkpoint;
mod hash;
mod key;
mod note;
mod proof;
mod receipt;
mod seen;
mod signer;
mod tile;
mod tree;
mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, Cosignature, SignedCheckpoint, VerifiedCheckpoint, Witnesses};
pub use hash::{EMPTY_ROOT, HASH_BYTES, Hash, hash_leaf, hash_node};
pub use key::{KeyError, KeyKind, KeyName, Origin, VerifierKey};
pub use note::{MAX_NOTE_BYTES, MAX_SIGNATURES, NoteError, NoteSignature, SignedNote, Verified};
pub use proof::{ConsistencyProof, InclusionProof, ProofError, consistency_nodes, inclusion_nodes};
pub use receipt::{MAX_RECEIPT_BYTES, Receipt, ReceiptError, VerifiedReceipt};
pub use seen::{Advance, SeenError, SeenLog};
pub use signer::{Cosigner, NoteSigner};
pub use tile::{
    ENTRIES_PER_BUNDLE, HASHES_PER_TILE, MAX_ENTRY_BYTES, TileError, TileKind, TilePath, TileSet, decode_bundle,
    encode_bundle, tile_paths,
};
pub use tree::{CompactRange, HashSource, LeafIndex, MemoryTree, NodeId, TreeError, TreeSize, root, root_nodes};
pub use witness::{WitnessAnswerError, add_checkpoint_request, witness_size};
