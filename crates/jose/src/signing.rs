//! ECDSA keys on P-256 with SHA-256 (FIPS 186-5): the pair that signs tokens, images and
//! checkpoints. Signatures in both encodings: fixed `r || s` for JWS, DER for everything else.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING,
    EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::jwk::{Curve, Jwk, KeyError, Kind, PublicKey};
use crate::pem;

/// A signature that is not one of this key over this message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// A private P-256 key. Wiped by the cryptographic library when dropped; never printed.
pub struct SigningKey {
    // The library binds a key to one signature encoding.
    der: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
    public: VerifyingKey,
}

impl SigningKey {
    /// Generates a key.
    pub fn generate() -> Result<Self, KeyError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError::Internal)?;
        let pkcs8 = key.to_pkcs8v1().map_err(|_| KeyError::Internal)?;
        Self::from_private_der(pkcs8.as_ref())
    }

    /// Reads a `PRIVATE KEY` PEM (PKCS #8, RFC 5958), as [`Self::to_pkcs8_pem`] and
    /// `openssl genpkey` write it.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
        Self::read(text, &["PRIVATE KEY"])
    }

    /// Reads a `PRIVATE KEY` (PKCS #8) or an `EC PRIVATE KEY` (SEC 1, RFC 5915) PEM.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::read(text, &["PRIVATE KEY", "EC PRIVATE KEY"])
    }

    /// The private key as `PRIVATE KEY` PEM.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = self.der.to_pkcs8v1().map_err(|_| KeyError::Internal)?;
        Ok(pem::write("PRIVATE KEY", der.as_ref()))
    }

    /// The public half.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs the SHA-256 of `message`; ASN.1 DER (`Ecdsa-Sig-Value`, RFC 3279 §2.2.3).
    pub fn sign_der(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        sign(&self.der, message)
    }

    /// Signs the SHA-256 of `message`; 64 bytes `r || s` (RFC 7518 §3.4).
    pub fn sign_fixed(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        sign(&self.fixed, message)
    }

    fn read(text: &str, labels: &[&str]) -> Result<Self, KeyError> {
        let mut refused = None;
        for block in pem::read(text)? {
            match block.label.as_str() {
                // `openssl ecparam -genkey` puts this before the key.
                "EC PARAMETERS" => {}
                label if labels.contains(&label) => return Self::from_private_der(&block.der),
                "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
                label => refused = Some(KeyError::unsupported(label)),
            }
        }
        Err(refused.unwrap_or(KeyError::Pem))
    }

    fn from_private_der(der: &[u8]) -> Result<Self, KeyError> {
        let load = |algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der).map_err(|_| KeyError::Malformed);
        let asn1 = load(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let public = PublicKey::from_ec(Curve::P256, asn1.public_key().as_ref())?;
        Ok(Self { der: asn1, fixed: load(&ECDSA_P256_SHA256_FIXED_SIGNING)?, public: VerifyingKey(public) })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey([redacted], public {})", self.public)
    }
}

/// A public P-256 key that checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey(PublicKey);

impl VerifyingKey {
    /// Reads a `PUBLIC KEY` PEM (`SubjectPublicKeyInfo`), or a certificate's key.
    pub fn from_spki_pem(text: &str) -> Result<Self, KeyError> {
        PublicKey::from_pem(text)?.try_into()
    }

    /// The key as `PUBLIC KEY` PEM.
    pub fn to_spki_pem(&self) -> Result<String, KeyError> {
        self.0.to_spki_pem()
    }

    /// The key as a JWK with `alg` ES256.
    pub fn jwk(&self) -> Jwk {
        Jwk { algorithm: Some("ES256".to_owned()), ..self.0.to_jwk() }
    }

    /// The JWK thumbprint (RFC 7638), base64url: the name of the key everywhere in the product.
    pub fn thumbprint(&self) -> String {
        self.0.thumbprint()
    }

    /// The key without its purpose.
    pub fn public_key(&self) -> &PublicKey {
        &self.0
    }

    /// Checks a DER signature over the SHA-256 of `message`.
    pub fn verify_der(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point())
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }

    /// Checks a 64-byte `r || s` signature over the SHA-256 of `message`.
    pub fn verify_fixed(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.point())
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }

    fn point(&self) -> &[u8] {
        match self.0.kind() {
            Kind::Ec { point, .. } => point,
            // `TryFrom` lets no RSA key in; an empty point verifies nothing.
            Kind::Rsa { .. } => &[],
        }
    }
}

impl TryFrom<PublicKey> for VerifyingKey {
    type Error = KeyError;

    fn try_from(key: PublicKey) -> Result<Self, KeyError> {
        match key.curve() {
            Some(Curve::P256) => Ok(Self(key)),
            Some(other) => Err(KeyError::unsupported(other.name())),
            None => Err(KeyError::unsupported("RSA")),
        }
    }
}

impl fmt::Display for VerifyingKey {
    /// Writes the thumbprint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    key.sign(&SystemRandom::new(), message).map(|signature| signature.as_ref().to_vec()).map_err(|_| KeyError::Internal)
}

#[cfg(test)]
mod tests;
