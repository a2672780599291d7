//! Public keys: elliptic curve and RSA, from PEM, DER or JWK (RFC 7517, 7518 §6), checked once when
//! they are read, and their thumbprints (RFC 7638).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use aws_lc_rs::{agreement, rsa};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::pem;

/// Why a key could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is encrypted with a passphrase, which is not supported.
    #[error("the key is protected by a passphrase")]
    Encrypted,
    /// The key operation itself failed, for example for want of memory.
    #[error("the cryptographic library refused the operation")]
    Internal,
    /// The bytes are no key of the type they claim to be, or a point is not on its curve.
    #[error("the bytes are no well-formed key")]
    Malformed,
    /// Not PEM: no block, a block without end, or no base64.
    #[error("the text is not PEM")]
    Pem,
    /// A private key stands where a public one belongs.
    #[error("a public key was expected, this one is private")]
    Private,
    /// More than 64 KiB of text.
    #[error("the text is too long for a key")]
    TooLong,
    /// A key type, curve, size, algorithm or PEM label that is not supported here.
    #[error("`{found}` is not supported here")]
    Unsupported {
        /// What was found, as written there.
        found: String,
    },
}

impl KeyError {
    pub(crate) fn unsupported(found: impl Into<String>) -> Self {
        Self::Unsupported { found: found.into() }
    }
}

/// A NIST curve (FIPS 186-5), by its name in RFC 7518 §6.2.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// `P-256`
    P256,
    /// `P-384`
    P384,
    /// `P-521`
    P521,
}

impl Curve {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// The name in a JWK's `crv`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// The length of one coordinate, in bytes.
    pub const fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    pub(crate) fn agreement(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &agreement::ECDH_P256,
            Self::P384 => &agreement::ECDH_P384,
            Self::P521 => &agreement::ECDH_P521,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
            Self::P521 => &ECDSA_P521_SHA512_ASN1,
        }
    }
}

/// A public key that was checked when it was read: a point on its curve, or an RSA modulus of 2048
/// to 8192 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ec {
        curve: Curve,
        /// SEC 1 uncompressed: 0x04, x, y.
        point: Vec<u8>,
    },
    Rsa {
        /// Big-endian, no leading zeros.
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl PublicKey {
    /// Reads the first key in PEM: `PUBLIC KEY` (SPKI), `RSA PUBLIC KEY` (PKCS #1) or
    /// `CERTIFICATE`, whose key is taken without any check of the certificate.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let Some(block) = pem::read(text)?.into_iter().next() else {
            return Err(KeyError::Pem);
        };
        match block.label.as_str() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::from_der(&block.der),
            "CERTIFICATE" => Self::from_certificate(&block.der),
            label if label.ends_with("PRIVATE KEY") => Err(KeyError::Private),
            label => Err(KeyError::unsupported(label)),
        }
    }

    /// Reads a `SubjectPublicKeyInfo` (RFC 5280 §4.1), its point compressed or not (RFC 5480 §2.2), or an RSA
    /// public key (RFC 8017 §A.1.1), in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = rsa::PublicKey::from_der(der) {
            return Self::from_rsa(
                key.modulus().big_endian_without_leading_zero(),
                key.exponent().big_endian_without_leading_zero(),
            );
        }
        // The library also takes a bare point, which has no place in these formats, and a hybrid one, which
        // the RFC forbids.
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Malformed)?;
        let form = info.subject_public_key.raw_bytes().first();
        if !form.is_some_and(|form| SEC1_FORMS.contains(form)) {
            return Err(KeyError::Malformed);
        }
        Curve::ALL.into_iter().find_map(|curve| Self::from_ec(curve, der).ok()).ok_or(KeyError::Malformed)
    }

    /// The public key as a JWK without `alg`.
    pub fn to_jwk(&self) -> Jwk {
        Jwk { key: self.clone(), algorithm: None, key_id: None }
    }

    /// The key as `PUBLIC KEY` PEM.
    pub fn to_spki_pem(&self) -> Result<String, KeyError> {
        Ok(pem::write("PUBLIC KEY", &self.to_spki_der()?).as_str().to_owned())
    }

    /// The key as `SubjectPublicKeyInfo` DER.
    pub fn to_spki_der(&self) -> Result<Vec<u8>, KeyError> {
        match &self.0 {
            Kind::Ec { curve, point } => spki_of_point(*curve, point),
            Kind::Rsa { modulus, exponent } => {
                let key = PublicKeyComponents { n: modulus, e: exponent };
                let der: PublicKeyX509Der<'_> = key.as_der().map_err(|_| KeyError::Internal)?;
                Ok(der.as_ref().to_vec())
            }
        }
    }

    /// The JWK SHA-256 thumbprint (RFC 7638), base64url without padding: 43 characters.
    pub fn thumbprint(&self) -> String {
        // Required members only, in lexicographic order, no white space (§3.2, §3.3).
        let canonical = match &self.0 {
            Kind::Ec { curve, point } => {
                let (x, y) = coordinates(point);
                let crv = curve.name();
                format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Kind::Rsa { modulus, exponent } => {
                let (e, n) = (base64url(exponent), base64url(modulus));
                format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
            }
        };
        base64url(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    }

    /// The curve, or `None` for an RSA key.
    pub fn curve(&self) -> Option<Curve> {
        match &self.0 {
            Kind::Ec { curve, .. } => Some(*curve),
            Kind::Rsa { .. } => None,
        }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }

    /// `encoded` is SPKI DER, or a point in SEC 1 form.
    pub(crate) fn from_ec(curve: Curve, encoded: &[u8]) -> Result<Self, KeyError> {
        let spki = spki_of_point(curve, encoded)?;
        let point = spki
            .len()
            .checked_sub(1 + 2 * curve.coordinate_len())
            .and_then(|start| spki.get(start..))
            .filter(|point| point.first() == Some(&SEC1_UNCOMPRESSED))
            .ok_or(KeyError::Malformed)?;
        Ok(Self(Kind::Ec { curve, point: point.to_vec() }))
    }

    fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let components = PublicKeyComponents { n: modulus, e: exponent };
        // Refuses sizes outside 2048..=8192 bits, and even exponents.
        let _: PublicEncryptingKey =
            components.try_into().map_err(|_| KeyError::unsupported(format!("RSA with {} bits", modulus.len() * 8)))?;
        Ok(Self(Kind::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() }))
    }

    fn from_certificate(der: &[u8]) -> Result<Self, KeyError> {
        let certificate = x509_cert::Certificate::from_der(der).map_err(|_| KeyError::Malformed)?;
        let spki = certificate.tbs_certificate().subject_public_key_info().to_der().map_err(|_| KeyError::Malformed)?;
        Self::from_der(&spki)
    }
}

impl fmt::Display for PublicKey {
    /// Writes the thumbprint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.thumbprint())
    }
}

/// A public JSON Web Key. Reading refuses private members and keys that are no keys; members other
/// than `kty`, `crv`, `x`, `y`, `n`, `e`, `alg` and `kid` are not kept.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "RawJwk", into = "RawJwk")]
pub struct Jwk {
    /// The key itself.
    pub key: PublicKey,
    /// `alg`, what the key is for, as written.
    pub algorithm: Option<String>,
    /// `kid`, the owner's name for the key. Anyone can claim any.
    pub key_id: Option<String>,
}

/// Member order as Confidential Containers' clients write `tee-pubkey`.
#[derive(Deserialize, Serialize)]
struct RawJwk {
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(default, skip_serializing)]
    d: Option<serde::de::IgnoredAny>,
}

impl TryFrom<RawJwk> for Jwk {
    type Error = KeyError;

    fn try_from(raw: RawJwk) -> Result<Self, KeyError> {
        if raw.d.is_some() {
            return Err(KeyError::Private);
        }
        let key = match raw.kty.as_str() {
            "EC" => {
                let name = raw.crv.unwrap_or_default();
                let curve = Curve::ALL
                    .into_iter()
                    .find(|curve| curve.name() == name)
                    .ok_or_else(|| KeyError::unsupported(name))?;
                let (x, y) = (member(raw.x)?, member(raw.y)?);
                if x.len() != curve.coordinate_len() || y.len() != curve.coordinate_len() {
                    return Err(KeyError::Malformed);
                }
                PublicKey::from_ec(curve, &[&[SEC1_UNCOMPRESSED], &x[..], &y[..]].concat())?
            }
            "RSA" => PublicKey::from_rsa(&member(raw.n)?, &member(raw.e)?)?,
            other => return Err(KeyError::unsupported(other)),
        };
        Ok(Self { key, algorithm: raw.alg, key_id: raw.kid })
    }
}

impl From<Jwk> for RawJwk {
    fn from(jwk: Jwk) -> Self {
        let mut raw = Self {
            kty: String::new(),
            crv: None,
            alg: jwk.algorithm,
            kid: jwk.key_id,
            x: None,
            y: None,
            n: None,
            e: None,
            d: None,
        };
        match jwk.key.0 {
            Kind::Ec { curve, point } => {
                let (x, y) = coordinates(&point);
                "EC".clone_into(&mut raw.kty);
                raw.crv = Some(curve.name().to_owned());
                raw.x = Some(x);
                raw.y = Some(y);
            }
            Kind::Rsa { modulus, exponent } => {
                "RSA".clone_into(&mut raw.kty);
                raw.n = Some(base64url(&modulus));
                raw.e = Some(base64url(&exponent));
            }
        }
        raw
    }
}

/// x and y of an uncompressed point, in base64url.
pub(crate) fn coordinates(point: &[u8]) -> (String, String) {
    let xy = point.get(1..).unwrap_or_default();
    let (x, y) = xy.split_at(xy.len() / 2);
    (base64url(x), base64url(y))
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn spki_of_point(curve: Curve, encoded: &[u8]) -> Result<Vec<u8>, KeyError> {
    let parsed = ParsedPublicKey::new(curve.verification(), encoded).map_err(|_| KeyError::Malformed)?;
    let der: PublicKeyX509Der<'_> = parsed.as_der().map_err(|_| KeyError::Internal)?;
    Ok(der.as_ref().to_vec())
}

fn member(value: Option<String>) -> Result<Vec<u8>, KeyError> {
    let text = value.ok_or(KeyError::Malformed)?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Malformed)
}

const SEC1_UNCOMPRESSED: u8 = 0x04;
/// The first bytes of a point that RFC 5480 §2.2 allows: y is even, odd, or written out.
const SEC1_FORMS: [u8; 3] = [0x02, 0x03, SEC1_UNCOMPRESSED];

#[cfg(test)]
mod tests;
