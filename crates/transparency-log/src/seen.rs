//! What a client remembers of a log: its key and the last checkpoint. A log that has shrunk or that tells another history is
//! refused, and the two signed checkpoints are the evidence.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::key::VerifierKey;
use crate::proof::{ConsistencyProof, ProofError};
use crate::tree::TreeSize;

/// Why a checkpoint is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SeenError {
    /// It is not the log's.
    #[error("the log's checkpoint is refused")]
    Checkpoint(#[from] CheckpointError),
    /// The log shows fewer entries than before.
    #[error("the log has shrunk: it had {seen} entries and shows {offered}")]
    Shrunk {
        /// How many there were.
        seen: TreeSize,
        /// How many it shows now.
        offered: TreeSize,
    },
    /// The log signed two roots over equally many entries: it has two histories.
    #[error("the log has forked: it signed two histories of {0} entries")]
    Forked(TreeSize),
    /// The log has grown and does not prove that the old entries are still there.
    #[error("the log does not prove that its {offered} entries begin with the {seen} seen before")]
    Unproven {
        /// How many there were.
        seen: TreeSize,
        /// How many it shows now.
        offered: TreeSize,
        /// What is wrong with the proof; nothing where there is none.
        #[source]
        source: Option<ProofError>,
    },
}

/// What a checkpoint told that was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Advance {
    /// It is the first that was seen: it is believed for its signature alone.
    First,
    /// The log has grown.
    Grown {
        /// From how many entries.
        from: TreeSize,
    },
    /// The log is as it was.
    Same,
}

/// A log as a client last saw it. It is kept as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SeenLog {
    key: VerifierKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<SignedCheckpoint>,
}

impl SeenLog {
    /// A log of which nothing was seen yet.
    pub fn new(key: VerifierKey) -> Self {
        Self { key, checkpoint: None }
    }

    /// Accepts a newer checkpoint of the log, or refuses it and stays as it was. `proof` leads from
    /// [`size`](Self::size) to the checkpoint; only a log that has grown needs one.
    pub fn advance(
        &mut self,
        offered: &SignedCheckpoint,
        proof: Option<&ConsistencyProof>,
    ) -> Result<Advance, SeenError> {
        let new = offered.verify(&self.key)?;
        // What was kept is verified again: the file may have been changed.
        let advance = match self.checkpoint.as_ref().map(|seen| seen.verify(&self.key)).transpose()? {
            None => Advance::First,
            Some(seen) => compare(&seen, &new, proof)?,
        };
        if advance != Advance::Same {
            self.checkpoint = Some(offered.clone());
        }
        Ok(advance)
    }

    /// The log's key.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The last checkpoint that was accepted.
    pub fn checkpoint(&self) -> Option<&SignedCheckpoint> {
        self.checkpoint.as_ref()
    }

    /// The size to ask a consistency proof from.
    pub fn size(&self) -> TreeSize {
        self.checkpoint.as_ref().map_or(TreeSize::EMPTY, |seen| seen.unverified().size)
    }
}

fn compare(seen: &Checkpoint, new: &Checkpoint, proof: Option<&ConsistencyProof>) -> Result<Advance, SeenError> {
    if new.size < seen.size {
        return Err(SeenError::Shrunk { seen: seen.size, offered: new.size });
    }
    if new.size == seen.size {
        return if new.root == seen.root { Ok(Advance::Same) } else { Err(SeenError::Forked(new.size)) };
    }
    // Every tree extends the empty one; there is nothing to prove.
    let none = ConsistencyProof::empty();
    let proof = if seen.size == TreeSize::EMPTY { Some(&none) } else { proof };
    let unproven = |source| SeenError::Unproven { seen: seen.size, offered: new.size, source };
    proof
        .ok_or_else(|| unproven(None))?
        .verify(seen.size, &seen.root, new.size, &new.root)
        .map_err(|source| unproven(Some(source)))?;
    Ok(Advance::Grown { from: seen.size })
}
