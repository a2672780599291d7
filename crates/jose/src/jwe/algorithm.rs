//! The algorithms of RFC 7518 §4.1 and §5.1 that are supported, by name.

use std::str::FromStr;

use aws_lc_rs::aead;

use crate::jwk::KeyError;

/// How the content key reaches a recipient (RFC 7518 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// `ECDH-ES`: the agreed key is the content key.
    EcdhEs,
    /// `ECDH-ES+A128KW`
    EcdhEsA128Kw,
    /// `ECDH-ES+A192KW`
    EcdhEsA192Kw,
    /// `ECDH-ES+A256KW`: what Go's ocicrypt writes for an elliptic curve key.
    EcdhEsA256Kw,
    /// `RSA-OAEP` with SHA-1: what Go's ocicrypt writes for an RSA key.
    RsaOaep,
    /// `RSA-OAEP-256` with SHA-256.
    RsaOaep256,
}

impl Algorithm {
    const ALL: [Self; 6] =
        [Self::EcdhEs, Self::EcdhEsA128Kw, Self::EcdhEsA192Kw, Self::EcdhEsA256Kw, Self::RsaOaep, Self::RsaOaep256];

    /// The value of `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdhEs => "ECDH-ES",
            Self::EcdhEsA128Kw => "ECDH-ES+A128KW",
            Self::EcdhEsA192Kw => "ECDH-ES+A192KW",
            Self::EcdhEsA256Kw => "ECDH-ES+A256KW",
            Self::RsaOaep => "RSA-OAEP",
            Self::RsaOaep256 => "RSA-OAEP-256",
        }
    }

    /// Whether the recipient's key is an RSA key; otherwise it is on a curve.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::RsaOaep | Self::RsaOaep256)
    }

    /// The length of the AES key that wraps the content key, in bytes.
    pub(crate) const fn wrapping_key_len(self) -> Option<usize> {
        match self {
            Self::EcdhEsA128Kw => Some(16),
            Self::EcdhEsA192Kw => Some(24),
            Self::EcdhEsA256Kw => Some(32),
            Self::EcdhEs | Self::RsaOaep | Self::RsaOaep256 => None,
        }
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or_else(|| KeyError::unsupported(name))
    }
}

/// How the content is encrypted (RFC 7518 §5.1); A256GCM is what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentEncryption {
    /// `A128GCM`
    A128Gcm,
    /// `A192GCM`
    A192Gcm,
    /// `A256GCM`
    A256Gcm,
}

impl ContentEncryption {
    /// The value of `enc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A128Gcm => "A128GCM",
            Self::A192Gcm => "A192GCM",
            Self::A256Gcm => "A256GCM",
        }
    }

    /// The length of the content key, in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::A128Gcm => 16,
            Self::A192Gcm => 24,
            Self::A256Gcm => 32,
        }
    }

    pub(crate) fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::A128Gcm => &aead::AES_128_GCM,
            Self::A192Gcm => &aead::AES_192_GCM,
            Self::A256Gcm => &aead::AES_256_GCM,
        }
    }
}

impl FromStr for ContentEncryption {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        [Self::A128Gcm, Self::A192Gcm, Self::A256Gcm]
            .into_iter()
            .find(|enc| enc.name() == name)
            .ok_or_else(|| KeyError::unsupported(name))
    }
}
