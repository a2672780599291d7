//! What a log says to a witness and how the witness's answers are read (C2SP tlog-witness, `add-checkpoint`). The HTTP
//! around it is the caller's matter.

use std::fmt::Write as _;

use crate::base64_text;
use crate::checkpoint::{Cosignature, SignedCheckpoint, parse_size};
use crate::key::{KeyKind, VerifierKey};
use crate::note::{MAX_SIGNATURES, NoteError, NoteSignature};
use crate::proof::ConsistencyProof;
use crate::tree::TreeSize;

/// Why a witness's answer gives no cosignature.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessAnswerError {
    /// It is not what an answer has to be.
    #[error("the witness's answer is malformed: {0}")]
    Syntax(&'static str),
    /// None of its lines is by the key that was asked for.
    #[error("the witness's answer has no signature by its key")]
    Absent,
    /// The cosignature does not hold, or cannot be added to the checkpoint.
    #[error("the witness's cosignature cannot be used")]
    Note(#[from] NoteError),
}

/// The body of a request for a cosignature of `checkpoint`, by a witness that has cosigned `old` entries before. Where `old`
/// is zero, the proof has no hashes.
pub fn add_checkpoint_request(old: TreeSize, proof: &ConsistencyProof, checkpoint: &SignedCheckpoint) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof.hashes() {
        // Writing to a string does not fail.
        let _ = writeln!(body, "{}", base64_text::encode(hash.as_bytes()));
    }
    let _ = write!(body, "\n{checkpoint}");
    body
}

/// The size that a witness has cosigned, from its answer with status 409 (media type `text/x.tlog.size`).
pub fn witness_size(body: &[u8]) -> Result<TreeSize, WitnessAnswerError> {
    let malformed = WitnessAnswerError::Syntax("a size in one line was expected");
    let text = std::str::from_utf8(body).ok().and_then(|text| text.strip_suffix('\n'));
    text.and_then(parse_size).ok_or(malformed)
}

impl SignedCheckpoint {
    /// Adds the cosignature by `witness` from its answer with status 200. Lines by other keys are left out.
    pub fn add_cosignature(&mut self, answer: &[u8], witness: &VerifierKey) -> Result<Cosignature, WitnessAnswerError> {
        let syntax = WitnessAnswerError::Syntax;
        if witness.kind() != KeyKind::Cosignature {
            return Err(WitnessAnswerError::Absent);
        }
        let text = std::str::from_utf8(answer).map_err(|_| syntax("it is not UTF-8"))?;
        let lines = text.strip_suffix('\n').ok_or(syntax("it does not end with a newline"))?;
        if lines.split('\n').nth(MAX_SIGNATURES).is_some() {
            return Err(syntax("it has too many lines"));
        }
        let lines = lines.split('\n').map(NoteSignature::parse).collect::<Result<Vec<_>, _>>()?;
        let own = lines.into_iter().find(|line| line.name == *witness.name() && line.id == witness.id());
        self.add_verified(own.ok_or(WitnessAnswerError::Absent)?, witness)
    }

    fn add_verified(&mut self, line: NoteSignature, witness: &VerifierKey) -> Result<Cosignature, WitnessAnswerError> {
        let mut cosigned = self.note().clone();
        cosigned.add(line)?;
        let keys = std::slice::from_ref(witness);
        let times: Vec<u64> = cosigned.verify(keys)?.iter().filter_map(|verified| verified.at_seconds).collect();
        match times.as_slice() {
            // A checkpoint's cosignature says when; one that does not is for a part of the tree.
            [] | [0] => Err(NoteError::Time.into()),
            [at_seconds, ..] => {
                let cosignature = Cosignature { witness: witness.name().clone(), at_seconds: *at_seconds };
                self.replace_note(cosigned);
                Ok(cosignature)
            }
        }
    }
}
