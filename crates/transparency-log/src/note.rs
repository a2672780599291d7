//! Signed notes (C2SP signed-note): a text, and lines of signatures below it. What a text says is read elsewhere.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::base64_text;
use crate::key::{ID_BYTES, KeyKind, KeyName, VerifierKey};
use crate::signer::NoteSigner;

/// The longest note that is read, in bytes.
pub const MAX_NOTE_BYTES: usize = 128 * 1024;
/// The most signatures that a note is read with; the specification asks for 16 at least.
pub const MAX_SIGNATURES: usize = 64;

/// Why a note cannot be read or is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The note is longer than [`MAX_NOTE_BYTES`] or has more than [`MAX_SIGNATURES`].
    #[error("the note is too large")]
    Size,
    /// The bytes are not a note.
    #[error("not a signed note: {0}")]
    Syntax(&'static str),
    /// A known key's signature does not hold.
    #[error("the signature by `{0}` does not hold")]
    Signature(KeyName),
    /// A known key signed twice.
    #[error("the note has two signatures by `{0}`")]
    Repeated(KeyName),
    /// None of the known keys signed.
    #[error("the note is not signed by a known key")]
    Unsigned,
    /// A cosignature's time is out of range.
    #[error("a cosignature's time is out of range")]
    Time,
}

/// One signature line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoteSignature {
    /// The key's name.
    pub name: KeyName,
    /// The key's id.
    pub id: [u8; ID_BYTES],
    /// What follows the id, as the kind of key has it.
    pub signature: Vec<u8>,
}

/// A signature that holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verified<'k> {
    /// The key that made it.
    pub key: &'k VerifierKey,
    /// When a witness says that it saw the text, in seconds of Unix time; a note's own signer gives no time.
    pub at_seconds: Option<u64>,
}

/// A note as it was read; nothing of it is believed before [`verify`](Self::verify). Its text form is the note itself, and
/// what was read is written again byte by byte.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Signs `text`, which ends with a newline.
    pub fn sign(text: String, signer: &NoteSigner) -> Result<Self, NoteError> {
        check_text(&text)?;
        let signatures = vec![signer.sign(&text)];
        let note = Self { text, signatures };
        note.check_size()?;
        Ok(note)
    }

    /// Adds a signature line, which may be anybody's.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        let mut larger = self.clone();
        larger.signatures.push(signature);
        larger.check_size()?;
        *self = larger;
        Ok(())
    }

    /// Reads a note.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Size);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Syntax("it is not UTF-8"))?;
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Syntax("there is no empty line"))?;
        let text = format!("{text}\n");
        check_text(&text)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Syntax("it does not end with a newline"))?;
        if lines.split('\n').nth(MAX_SIGNATURES).is_some() {
            return Err(NoteError::Size);
        }
        let signatures = lines.split('\n').map(NoteSignature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text, signatures })
    }

    /// The text that the signatures are over, with its last newline. It may be anybody's.
    pub fn unverified_text(&self) -> &str {
        &self.text
    }

    /// The signature lines; they may be anybody's.
    pub fn unverified_signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Checks the signatures by `keys`. Lines of unknown keys are passed over; a known key's line has to hold, and one such
    /// line there must be.
    pub fn verify<'k>(&self, keys: &'k [VerifierKey]) -> Result<Vec<Verified<'k>>, NoteError> {
        let mut verified: Vec<Verified<'k>> = Vec::new();
        for line in &self.signatures {
            let Some(key) = keys.iter().find(|key| *key.name() == line.name && key.id() == line.id) else { continue };
            if verified.iter().any(|earlier| earlier.key == key) {
                return Err(NoteError::Repeated(line.name.clone()));
            }
            let at_seconds = self.check(key, line)?;
            verified.push(Verified { key, at_seconds });
        }
        if verified.is_empty() { Err(NoteError::Unsigned) } else { Ok(verified) }
    }

    /// Checks one line, and gives the time in it where its kind has one.
    fn check(&self, key: &VerifierKey, line: &NoteSignature) -> Result<Option<u64>, NoteError> {
        let refused = || NoteError::Signature(line.name.clone());
        let (message, signature, at_seconds) = match key.kind() {
            KeyKind::Ed25519 => (Cow::from(&self.text), line.signature.as_slice(), None),
            KeyKind::Cosignature => {
                let (time, signature) = line.signature.split_first_chunk().ok_or_else(refused)?;
                let at_seconds = u64::from_be_bytes(*time);
                (cosigned_message(&self.text, at_seconds)?.into(), signature, Some(at_seconds))
            }
        };
        if key.accepts(message.as_bytes(), signature) { Ok(at_seconds) } else { Err(refused()) }
    }

    fn check_size(&self) -> Result<(), NoteError> {
        if self.signatures.len() > MAX_SIGNATURES || self.to_string().len() > MAX_NOTE_BYTES {
            return Err(NoteError::Size);
        }
        Ok(())
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.text)?;
        for line in &self.signatures {
            let bytes: Vec<u8> = line.id.iter().chain(&line.signature).copied().collect();
            writeln!(formatter, "{MARK}{} {}", line.name, base64_text::encode(&bytes))?;
        }
        Ok(())
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        Self::from_bytes(note.as_bytes())
    }
}

impl NoteSignature {
    pub(crate) fn parse(line: &str) -> Result<Self, NoteError> {
        let (name, bytes) = line
            .strip_prefix(MARK)
            .and_then(|rest| rest.split_once(' '))
            .ok_or(NoteError::Syntax("a signature line is malformed"))?;
        let name = name.parse().map_err(|_| NoteError::Syntax("a key's name is malformed"))?;
        let bytes = base64_text::decode(bytes).ok_or(NoteError::Syntax("a signature is not base64"))?;
        let (id, signature) = bytes.split_first_chunk().ok_or(NoteError::Syntax("a signature is too short"))?;
        Ok(Self { name, id: *id, signature: signature.to_vec() })
    }
}

/// What a witness signs (C2SP tlog-cosignature, Ed25519).
pub(crate) fn cosigned_message(text: &str, at_seconds: u64) -> Result<String, NoteError> {
    if i64::try_from(at_seconds).is_err() {
        return Err(NoteError::Time);
    }
    Ok(format!("cosignature/v1\ntime {at_seconds}\n{text}"))
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Syntax("the text does not end with a newline"));
    }
    if text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
        return Err(NoteError::Syntax("it has a control character"));
    }
    Ok(())
}

/// Begins a signature line: an em dash and a space.
const MARK: &str = "\u{2014} ";
