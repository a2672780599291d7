//! Receipts: an entry, the proof that it is in the log, and the checkpoint that the proof leads to. All that is needed to
//! check one offline is the log's verifier key.

use serde::{Deserialize, Serialize};

use crate::base64_text;
use crate::checkpoint::{Checkpoint, CheckpointError, Cosignature, SignedCheckpoint, VerifiedCheckpoint, Witnesses};
use crate::hash::hash_leaf;
use crate::key::VerifierKey;
use crate::proof::{InclusionProof, ProofError};
use crate::tile::MAX_ENTRY_BYTES;
use crate::tree::LeafIndex;

/// The longest receipt that is read, in bytes of JSON.
pub const MAX_RECEIPT_BYTES: usize = 256 * 1024;

/// Why a receipt cannot be read or does not prove anything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It is longer than [`MAX_RECEIPT_BYTES`], or its entry than [`MAX_ENTRY_BYTES`].
    #[error("the receipt is too large")]
    Size,
    /// It is not a receipt.
    #[error("not a receipt")]
    Syntax(#[source] serde_json::Error),
    /// Its checkpoint is not believed.
    #[error("the receipt's checkpoint is refused")]
    Checkpoint(#[from] CheckpointError),
    /// Its entry is not in the log.
    #[error("the receipt does not prove that its entry is in the log")]
    Proof(#[from] ProofError),
}

/// A receipt as it was read; nothing of it is believed before [`verify`](Self::verify).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The entry, byte by byte as it was hashed; base64 in JSON.
    #[serde(with = "base64_text::member")]
    #[cfg_attr(feature = "schema", schema(value_type = String, content_encoding = "base64"))]
    pub entry: Vec<u8>,
    /// Its place in the log.
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub index: LeafIndex,
    /// The proof that it is in the checkpoint's tree.
    #[serde(rename = "inclusion_proof")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub proof: InclusionProof,
    /// The log's signed word; a note in JSON.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub checkpoint: SignedCheckpoint,
}

/// What a receipt proves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedReceipt<'r> {
    /// The entry.
    pub entry: &'r [u8],
    /// Its place.
    pub index: LeafIndex,
    /// The tree that it is in.
    pub checkpoint: Checkpoint,
    /// Which of the known witnesses signed that.
    pub cosignatures: Vec<Cosignature>,
}

impl Receipt {
    /// Reads a receipt from JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, ReceiptError> {
        if json.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::Size);
        }
        let receipt: Self = serde_json::from_slice(json).map_err(ReceiptError::Syntax)?;
        if receipt.entry.len() > MAX_ENTRY_BYTES { Err(ReceiptError::Size) } else { Ok(receipt) }
    }

    /// Checks that the log with the key `log` signed the checkpoint, and that the entry is in its tree.
    pub fn verify(&self, log: &VerifierKey) -> Result<VerifiedReceipt<'_>, ReceiptError> {
        self.verify_witnessed(log, &Witnesses::default())
    }

    /// The same, and that as many witnesses signed as have to.
    pub fn verify_witnessed(
        &self,
        log: &VerifierKey,
        witnesses: &Witnesses,
    ) -> Result<VerifiedReceipt<'_>, ReceiptError> {
        let VerifiedCheckpoint { checkpoint, cosignatures } = self.checkpoint.verify_witnessed(log, witnesses)?;
        self.proof.verify(hash_leaf(&self.entry), self.index, checkpoint.size, &checkpoint.root)?;
        Ok(VerifiedReceipt { entry: &self.entry, index: self.index, checkpoint, cosignatures })
    }
}
