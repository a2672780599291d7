//! Checkpoints (C2SP tlog-checkpoint): the signed statement of a log that its tree of so many leaves has this root, and the
//! cosignatures of witnesses below it (C2SP tlog-cosignature).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{EMPTY_ROOT, Hash};
use crate::key::{KeyKind, KeyName, Origin, VerifierKey};
use crate::note::{NoteError, SignedNote};
use crate::signer::{Cosigner, NoteSigner};
use crate::tree::TreeSize;

/// Why a checkpoint cannot be read or is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The note that it is in.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not a checkpoint's.
    #[error("not a checkpoint: {0}")]
    Syntax(&'static str),
    /// It is another log's.
    #[error("the checkpoint is of `{found}`, not of `{expected}`")]
    Origin {
        /// The log that was asked for.
        expected: Origin,
        /// The log that it is of.
        found: Origin,
    },
    /// The log itself did not sign.
    #[error("the log `{0}` did not sign its checkpoint")]
    Unsigned(Origin),
    /// Too few of the witnesses signed.
    #[error("{found} of the witnesses signed; {quorum} have to")]
    Quorum {
        /// How many have to.
        quorum: usize,
        /// How many did.
        found: usize,
    },
    /// A key of the wrong kind was given.
    #[error("`{0}` is a key of the wrong kind")]
    Kind(KeyName),
    /// The witnesses are fewer than have to sign, or one key is there twice.
    #[error("no such set of witnesses: they have distinct keys and are at least as many as have to sign")]
    Witnesses,
}

/// What a checkpoint says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// Whose tree.
    pub origin: Origin,
    /// How many leaves.
    pub size: TreeSize,
    /// The root over them.
    pub root: Hash,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// A checkpoint without extension lines. An empty tree has the root of an empty tree.
    pub fn new(origin: Origin, size: TreeSize, root: Hash) -> Result<Self, CheckpointError> {
        Self { origin, size, root, extensions: Vec::new() }.checked()
    }

    /// The same with another extension line. The specification advises against them: nobody audits what they say.
    pub fn with_extension(mut self, line: String) -> Result<Self, CheckpointError> {
        self.extensions.push(line);
        self.checked()
    }

    /// Its extension lines.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Signs it with the log's key, which bears the name of its origin.
    pub fn sign(&self, signer: &NoteSigner) -> Result<SignedCheckpoint, CheckpointError> {
        if *signer.name() != self.origin {
            return Err(CheckpointError::Origin { expected: self.origin.clone(), found: signer.name().clone() });
        }
        Ok(SignedCheckpoint { note: SignedNote::sign(self.to_string(), signer)?, checkpoint: self.clone() })
    }

    fn checked(self) -> Result<Self, CheckpointError> {
        if self.size == TreeSize::EMPTY && self.root != EMPTY_ROOT {
            return Err(CheckpointError::Syntax("an empty tree has another root"));
        }
        if self.extensions.iter().any(|line| line.is_empty() || line.bytes().any(|byte| byte < b' ')) {
            return Err(CheckpointError::Syntax("an extension line is empty or has a control character"));
        }
        Ok(self)
    }
}

/// The note's text, with its last newline.
impl fmt::Display for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}\n{}\n{}", self.origin, self.size, self.root)?;
        self.extensions.iter().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Syntax("it does not end with a newline"))?;
        let mut lines = body.split('\n');
        let mut line = || lines.next().ok_or(CheckpointError::Syntax("it has fewer than three lines"));
        let origin = line()?.parse().map_err(|_| CheckpointError::Syntax("the origin is malformed"))?;
        let size = parse_size(line()?).ok_or(CheckpointError::Syntax("the size is malformed"))?;
        let root = line()?.parse().map_err(|_| CheckpointError::Syntax("the root is malformed"))?;
        Self { origin, size, root, extensions: lines.map(str::to_owned).collect() }.checked()
    }
}

/// A decimal number without sign or leading zeros.
pub(crate) fn parse_size(text: &str) -> Option<TreeSize> {
    let size = TreeSize::try_from(text.parse::<u64>().ok()?).ok()?;
    (size.to_string() == text).then_some(size)
}

/// The witnesses that a verifier knows, and how many of them have to have signed.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    keys: Vec<VerifierKey>,
    quorum: usize,
}

impl Witnesses {
    /// `quorum` of `keys` have to sign. A cosignature does not commit to the name of its key, so no key may be there twice.
    pub fn new(keys: Vec<VerifierKey>, quorum: usize) -> Result<Self, CheckpointError> {
        if let Some(key) = keys.iter().find(|key| key.kind() != KeyKind::Cosignature) {
            return Err(CheckpointError::Kind(key.name().clone()));
        }
        let repeated = |(place, key): (usize, &VerifierKey)| {
            keys.iter().take(place).any(|earlier| earlier.public_key() == key.public_key())
        };
        if keys.iter().enumerate().any(repeated) || quorum > keys.len() {
            return Err(CheckpointError::Witnesses);
        }
        Ok(Self { keys, quorum })
    }

    /// How many have to sign.
    pub fn quorum(&self) -> usize {
        self.quorum
    }
}

/// A witness's word that it saw the log grow to this checkpoint and never otherwise.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Cosignature {
    /// Whose.
    pub witness: KeyName,
    /// When it says that it saw it, in seconds of Unix time.
    pub at_seconds: u64,
}

/// `cosigned by NAME at SECONDS`.
impl fmt::Display for Cosignature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cosigned by {} at {} s of Unix time", self.witness, self.at_seconds)
    }
}

/// A checkpoint that was verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Which of the known witnesses signed.
    pub cosignatures: Vec<Cosignature>,
}

/// A checkpoint as it was read; nothing of it is believed before [`verify`](Self::verify). Its text is the signed note.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedCheckpoint {
    note: SignedNote,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    /// Reads a checkpoint.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let note = SignedNote::from_bytes(bytes)?;
        let checkpoint = note.unverified_text().parse()?;
        Ok(Self { note, checkpoint })
    }

    /// What it says; it may be anybody's word.
    pub fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Checks that the log signed, whose key bears the log's name.
    pub fn verify(&self, log: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
        self.verify_witnessed(log, &Witnesses::default()).map(|verified| verified.checkpoint)
    }

    /// Checks that the log signed and as many witnesses as have to.
    pub fn verify_witnessed(
        &self,
        log: &VerifierKey,
        witnesses: &Witnesses,
    ) -> Result<VerifiedCheckpoint, CheckpointError> {
        if log.kind() != KeyKind::Ed25519 {
            return Err(CheckpointError::Kind(log.name().clone()));
        }
        if self.checkpoint.origin != *log.name() {
            let (expected, found) = (log.name().clone(), self.checkpoint.origin.clone());
            return Err(CheckpointError::Origin { expected, found });
        }
        let keys: Vec<_> = std::iter::once(log).chain(&witnesses.keys).cloned().collect();
        let verified = self.note.verify(&keys)?;
        if !verified.iter().any(|signature| signature.key == log) {
            return Err(CheckpointError::Unsigned(log.name().clone()));
        }
        let cosignatures: Vec<_> = verified
            .iter()
            .filter_map(|signature| Some((signature.key.name().clone(), signature.at_seconds?)))
            .map(|(witness, at_seconds)| Cosignature { witness, at_seconds })
            .collect();
        if cosignatures.len() < witnesses.quorum {
            return Err(CheckpointError::Quorum { quorum: witnesses.quorum, found: cosignatures.len() });
        }
        Ok(VerifiedCheckpoint { checkpoint: self.checkpoint.clone(), cosignatures })
    }

    pub(crate) fn note(&self) -> &SignedNote {
        &self.note
    }

    /// Puts another note of the same text in the place of this one.
    pub(crate) fn replace_note(&mut self, note: SignedNote) {
        self.note = note;
    }

    /// Adds a witness's signature. The witness has checked before that the tree extends the last one that it signed.
    pub fn cosign(&mut self, witness: &Cosigner, at_seconds: u64) -> Result<(), CheckpointError> {
        Ok(self.note.add(witness.sign(self.note.unverified_text(), at_seconds)?)?)
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(formatter)
    }
}

impl FromStr for SignedCheckpoint {
    type Err = CheckpointError;

    fn from_str(note: &str) -> Result<Self, CheckpointError> {
        Self::from_bytes(note.as_bytes())
    }
}

impl Serialize for SignedCheckpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SignedCheckpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
