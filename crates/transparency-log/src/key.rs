//! Names and public keys of those who sign notes (C2SP signed-note): the verifier key's text, its id, and its check of a
//! signature. Private keys are in [`crate::signer`].

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::base64_text;

/// Why a name or a key cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The name is empty, long, or has a space, a plus or a control character.
    #[error("a key's name is 1 to 255 bytes without spaces, `+` and control characters")]
    Name,
    /// The text is not a verifier key.
    #[error("not a verifier key: expected `NAME+ID+BASE64`")]
    Syntax,
    /// The id does not belong to the name and the key.
    #[error("the verifier key's id does not belong to its name and key")]
    Id,
    /// A kind of key that is not supported.
    #[error(
        "the verifier key is of kind 0x{0:02x}; Ed25519 keys (0x01) and witnesses' Ed25519 keys (0x04) are supported"
    )]
    Kind(u8),
    /// The public key is one under which anybody could sign.
    #[error("the public key is not a proper Ed25519 key")]
    Weak,
    /// The private key is malformed.
    #[error("not an Ed25519 private key in PKCS#8")]
    Private,
    /// There is no randomness to make a key.
    #[error("no randomness to make a key")]
    Randomness,
}

/// The name of a key or of a log: best a URL without scheme, `log.example/audit`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyName(String);

/// The name of a log, the first line of its checkpoints. It is held to the rules of key names, because the log's key bears
/// the same name.
pub type Origin = KeyName;

impl KeyName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for KeyName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let proper = |character: char| !character.is_whitespace() && !character.is_control() && character != '+';
        if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.chars().all(proper) {
            return Err(KeyError::Name);
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a key signs, which is part of its id.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyKind {
    /// Notes of any text: type 0x01.
    Ed25519,
    /// Checkpoints of others, with the time (cosignature/v1): type 0x04.
    Cosignature,
}

impl KeyKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

impl TryFrom<u8> for KeyKind {
    type Error = KeyError;

    fn try_from(byte: u8) -> Result<Self, KeyError> {
        match byte {
            0x01 => Ok(Self::Ed25519),
            0x04 => Ok(Self::Cosignature),
            other => Err(KeyError::Kind(other)),
        }
    }
}

/// A public key with its name, as a verifier is given it. Its text is `NAME+ID+BASE64`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct VerifierKey {
    name: KeyName,
    kind: KeyKind,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl VerifierKey {
    /// A key from its parts. Keys of small order and encodings that are not canonical are refused: whoever published one
    /// could later say that anybody made the signatures.
    pub fn new(name: KeyName, kind: KeyKind, public: [u8; PUBLIC_KEY_BYTES]) -> Result<Self, KeyError> {
        if is_weak(&public) {
            return Err(KeyError::Weak);
        }
        Ok(Self { name, kind, public })
    }

    /// Its name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key as RFC 8032 encodes it.
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public
    }

    /// The first four bytes of `SHA-256(name || "\n" || kind || public key)`. It tells keys apart, it does not prove one.
    pub fn id(&self) -> [u8; ID_BYTES] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.name.as_str())
            .chain_update([b'\n', self.kind.byte()])
            .chain_update(self.public)
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        [a, b, c, d]
    }

    /// Whether `signature` is this key's over `message`.
    pub(crate) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material: Vec<u8> = [self.kind.byte()].into_iter().chain(self.public).collect();
        let id = u32::from_be_bytes(self.id());
        write!(formatter, "{}+{id:08x}+{}", self.name, base64_text::encode(&material))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // The base64 may have a plus too, so the text is split from the left.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Syntax);
        };
        let name = name.parse()?;
        if material.len() > MAX_MATERIAL_CHARACTERS {
            return Err(KeyError::Syntax);
        }
        let material = base64_text::decode(material).ok_or(KeyError::Syntax)?;
        let (kind, public) = material.split_first().ok_or(KeyError::Syntax)?;
        let kind = KeyKind::try_from(*kind)?;
        let key = Self::new(name, kind, public.try_into().map_err(|_| KeyError::Syntax)?)?;
        if format!("{:08x}", u32::from_be_bytes(key.id())) != id {
            return Err(KeyError::Id);
        }
        Ok(key)
    }
}

impl Serialize for VerifierKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerifierKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether the y-coordinate is not reduced modulo 2^255 - 19, or is that of one of the eight points whose order divides 8.
fn is_weak(public: &[u8; PUBLIC_KEY_BYTES]) -> bool {
    let mut ordinate = *public;
    ordinate[PUBLIC_KEY_BYTES - 1] &= 0x7f;
    SMALL_ORDER.contains(&ordinate) || ordinate.iter().rev().ge(PRIME.iter().rev())
}

const MAX_NAME_BYTES: usize = 255;
const PUBLIC_KEY_BYTES: usize = 32;
/// Above the base64 of a type byte and a key of 2 KiB, which no supported kind has.
const MAX_MATERIAL_CHARACTERS: usize = 2736;
pub(crate) const ID_BYTES: usize = 4;

/// 2^255 - 19, little-endian as keys are.
const PRIME: [u8; 32] = filled(0xed, 0x7f);

/// The y-coordinates of the points of order 1, 2, 4 and 8 (two of the last).
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    filled(0xec, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// All ones but for the first and the last byte.
const fn filled(first: u8, last: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}
