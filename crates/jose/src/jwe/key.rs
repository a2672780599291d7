//! The two ends of a JWE: recipients' public keys, and the private keys that open messages.

use std::fmt;

use aws_lc_rs::agreement::PrivateKey;
use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::KeyPair as _;
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::{DecryptError, Jwe};
use crate::jwk::{Curve, Jwk, KeyError, PublicKey};
use crate::pem;

/// A public key to encrypt for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    key: PublicKey,
    algorithm: Algorithm,
}

impl Recipient {
    /// A recipient with the algorithm that Go's ocicrypt chooses: RSA-OAEP, or ECDH-ES+A256KW.
    pub fn new(key: PublicKey) -> Self {
        let algorithm = match key.curve() {
            Some(_) => Algorithm::EcdhEsA256Kw,
            None => Algorithm::RsaOaep,
        };
        Self { key, algorithm }
    }

    /// A recipient with another algorithm.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`] when the algorithm is for another kind of key.
    pub fn with_algorithm(key: PublicKey, algorithm: Algorithm) -> Result<Self, KeyError> {
        if algorithm.is_rsa() == key.curve().is_some() {
            return Err(KeyError::unsupported(algorithm.name()));
        }
        Ok(Self { key, algorithm })
    }

    /// A recipient from a PEM public key or certificate; see [`PublicKey::from_pem`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        PublicKey::from_pem(text).map(Self::new)
    }

    /// A recipient from a JWK, whose `alg` decides where it is there.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        match &jwk.algorithm {
            Some(name) => Self::with_algorithm(jwk.key.clone(), name.parse()?),
            None => Ok(Self::new(jwk.key.clone())),
        }
    }

    /// The public key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A private key that opens messages. Wiped by the cryptographic library when dropped; never
/// printed.
pub struct DecryptionKey {
    pub(super) private: Private,
    public: PublicKey,
}

pub(super) enum Private {
    Ec { curve: Curve, key: PrivateKey },
    Rsa(OaepPrivateDecryptingKey),
}

impl DecryptionKey {
    /// Reads the first private key in PEM: `PRIVATE KEY` (PKCS #8), `RSA PRIVATE KEY` (PKCS #1) or
    /// `EC PRIVATE KEY` (SEC 1).
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let mut refused = KeyError::Pem;
        for block in pem::read(text)? {
            match block.label.as_str() {
                "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                    return Self::from_der(&block.der);
                }
                "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
                label => refused = KeyError::unsupported(label),
            }
        }
        Err(refused)
    }

    /// Reads the same three forms in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        // The decrypting key takes PKCS #8 only; a PKCS #1 key goes through the key pair.
        let pair = KeyPair::from_pkcs8(der).or_else(|_| KeyPair::from_der(der));
        if let Ok(pair) = pair {
            return Self::from_rsa(&pair);
        }
        for curve in Curve::ALL {
            if let Ok(key) = PrivateKey::from_private_key_der(curve.agreement(), der) {
                return Self::from_ec(curve, key);
            }
        }
        Err(KeyError::Malformed)
    }

    /// A fresh P-256 key, and its private half in DER (SEC 1) for whoever keeps it sealed; [`Self::from_der`] reads it again.
    ///
    /// # Errors
    /// [`KeyError::Internal`] when the cryptographic library fails.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let curve = Curve::P256;
        let key = PrivateKey::generate(curve.agreement()).map_err(|_| KeyError::Internal)?;
        let der: EcPrivateKeyRfc5915Der<'_> = key.as_der().map_err(|_| KeyError::Internal)?;
        let der = Zeroizing::new(der.as_ref().to_vec());
        Ok((Self::from_ec(curve, key)?, der))
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn from_rsa(pair: &KeyPair) -> Result<Self, KeyError> {
        let public = PublicKey::from_der(pair.public_key().as_ref())?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Internal)?;
        let key =
            PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref()).map_err(|_| KeyError::unsupported("this RSA key"))?;
        let key = OaepPrivateDecryptingKey::new(key).map_err(|_| KeyError::Internal)?;
        Ok(Self { private: Private::Rsa(key), public })
    }

    fn from_ec(curve: Curve, key: PrivateKey) -> Result<Self, KeyError> {
        let public = key.compute_public_key().map_err(|_| KeyError::Internal)?;
        Ok(Self { public: PublicKey::from_ec(curve, public.as_ref())?, private: Private::Ec { curve, key } })
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecryptionKey([redacted], public {})", self.public)
    }
}

/// A P-256 key that lives as long as one conversation: the guest names its public half in its
/// evidence, and the answers are encrypted to it. It may open several.
#[derive(Debug)]
pub struct EphemeralKey(DecryptionKey);

impl EphemeralKey {
    /// Generates a key.
    pub fn generate() -> Result<Self, KeyError> {
        let curve = Curve::P256;
        let key = PrivateKey::generate(curve.agreement()).map_err(|_| KeyError::Internal)?;
        DecryptionKey::from_ec(curve, key).map(Self)
    }

    /// The private key in DER (SEC 1), for whoever keeps it sealed over a restart.
    pub fn to_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let Private::Ec { key, .. } = &self.0.private else { return Err(KeyError::Internal) };
        let der: EcPrivateKeyRfc5915Der<'_> = key.as_der().map_err(|_| KeyError::Internal)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// Reads what [`Self::to_der`] gave.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let curve = Curve::P256;
        let key = PrivateKey::from_private_key_der(curve.agreement(), der).map_err(|_| KeyError::Malformed)?;
        DecryptionKey::from_ec(curve, key).map(Self)
    }

    /// The public half as `tee-pubkey` carries it, with `alg` ECDH-ES+A256KW.
    pub fn jwk(&self) -> Jwk {
        Jwk { algorithm: Some(Algorithm::EcdhEsA256Kw.name().to_owned()), ..self.0.public.to_jwk() }
    }

    /// The JWK thumbprint of the public half.
    pub fn thumbprint(&self) -> String {
        self.0.public.thumbprint()
    }

    /// Decrypts an answer; see [`Jwe::decrypt`].
    pub fn decrypt(&self, message: &Jwe) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        message.decrypt(&self.0)
    }
}
