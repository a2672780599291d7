//! Private keys of logs and of witnesses (Ed25519), and the signature lines that they make.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use der::pem::{self, LineEnding};
use zeroize::Zeroizing;

use crate::key::{KeyError, KeyKind, KeyName, VerifierKey};
use crate::note::{NoteError, NoteSignature, cosigned_message};

/// A key that signs notes: the log's own.
pub struct NoteSigner(Signer);

/// A witness's key: it signs the checkpoints of others, with the time.
pub struct Cosigner(Signer);

impl NoteSigner {
    /// Makes a key.
    pub fn generate(name: KeyName) -> Result<Self, KeyError> {
        Signer::generate(name, KeyKind::Ed25519).map(Self)
    }

    /// Reads a key from PKCS#8 in PEM; the name is not in it.
    pub fn from_pkcs8_pem(name: KeyName, pem: &str) -> Result<Self, KeyError> {
        Signer::from_pkcs8_pem(name, KeyKind::Ed25519, pem).map(Self)
    }

    /// The key as PKCS#8 in PEM: a secret.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.0.to_pkcs8_pem()
    }

    /// Its name.
    pub fn name(&self) -> &KeyName {
        self.0.verifier.name()
    }

    /// What others check its signatures with.
    pub fn verifier_key(&self) -> VerifierKey {
        self.0.verifier.clone()
    }

    /// Signs a note's text, which ends with a newline.
    pub(crate) fn sign(&self, text: &str) -> NoteSignature {
        self.0.line(self.0.pair.sign(text.as_bytes()).as_ref().to_vec())
    }
}

impl Cosigner {
    /// Makes a key.
    pub fn generate(name: KeyName) -> Result<Self, KeyError> {
        Signer::generate(name, KeyKind::Cosignature).map(Self)
    }

    /// Reads a key from PKCS#8 in PEM; the name is not in it.
    pub fn from_pkcs8_pem(name: KeyName, pem: &str) -> Result<Self, KeyError> {
        Signer::from_pkcs8_pem(name, KeyKind::Cosignature, pem).map(Self)
    }

    /// The key as PKCS#8 in PEM: a secret.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.0.to_pkcs8_pem()
    }

    /// What others check its cosignatures with.
    pub fn verifier_key(&self) -> VerifierKey {
        self.0.verifier.clone()
    }

    /// Signs a checkpoint's text as seen at `at_seconds` of Unix time.
    pub(crate) fn sign(&self, text: &str, at_seconds: u64) -> Result<NoteSignature, NoteError> {
        let message = cosigned_message(text, at_seconds)?;
        let signature = self.0.pair.sign(message.as_bytes());
        Ok(self.0.line(at_seconds.to_be_bytes().iter().chain(signature.as_ref()).copied().collect()))
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NoteSigner({}, [redacted])", self.0.verifier)
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cosigner({}, [redacted])", self.0.verifier)
    }
}

struct Signer {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl Signer {
    fn generate(name: KeyName, kind: KeyKind) -> Result<Self, KeyError> {
        Self::new(name, kind, Ed25519KeyPair::generate().map_err(|_| KeyError::Randomness)?)
    }

    fn from_pkcs8_pem(name: KeyName, kind: KeyKind, text: &str) -> Result<Self, KeyError> {
        let (label, der) = pem::decode_vec(text.as_bytes()).map_err(|_| KeyError::Private)?;
        let der = Zeroizing::new(der);
        if label != LABEL {
            return Err(KeyError::Private);
        }
        // Version 1 of PKCS#8, which OpenSSL writes, has no public key in it.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| KeyError::Private)?;
        Self::new(name, kind, pair)
    }

    fn new(name: KeyName, kind: KeyKind, pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Private)?;
        Ok(Self { verifier: VerifierKey::new(name, kind, public)?, pair })
    }

    fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| KeyError::Private)?;
        pem::encode_string(LABEL, LineEnding::LF, der.as_ref()).map(Zeroizing::new).map_err(|_| KeyError::Private)
    }

    fn line(&self, signature: Vec<u8>) -> NoteSignature {
        NoteSignature { name: self.verifier.name().clone(), id: self.verifier.id(), signature }
    }
}

const LABEL: &str = "PRIVATE KEY";
