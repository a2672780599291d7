//! JWE (RFC 7516): a secret for one recipient or several, in the JSON forms that Go's ocicrypt
//! (go-jose) and Confidential Containers' key broker write and read; the compact form is read.
//!
//! The additional authenticated data are the bytes of `protected` as received, never a header
//! serialized again. The header is written in the order `alg`, `enc`, `epk{crv,kty,x,y}`, because
//! key broker clients do serialize it again.

mod algorithm;
mod key;
mod message;
mod wrap;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

pub use self::algorithm::{Algorithm, ContentEncryption};
pub use self::key::{DecryptionKey, EphemeralKey, Recipient};
use self::message::Share;
pub use self::message::{Jwe, ParseJweError};
use self::wrap::Epk;
use crate::jwk::base64url;

/// The most recipients that one message may have.
pub const RECIPIENTS_MAX: usize = 32;

/// Why nothing was encrypted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncryptError {
    /// The cryptographic library refused the operation.
    #[error("the cryptographic library refused the operation")]
    Internal,
    /// No recipient, more than [`RECIPIENTS_MAX`], or direct agreement (ECDH-ES) for several.
    #[error("a message has 1 to {RECIPIENTS_MAX} recipients, and one only with ECDH-ES")]
    Recipients,
}

/// Why nothing was decrypted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecryptError {
    /// No recipient's part opens with this key, or the message was changed. Which of the two is
    /// not told apart.
    #[error("the message does not open with this key")]
    Decryption,
    /// A header has a member that would have to be understood (`crit`, `zip`), is in two headers,
    /// or is malformed.
    #[error("the message's header has a member that is not allowed here")]
    Header,
    /// Every recipient's algorithm, or the content encryption, is one that is not supported, or is
    /// none for this kind of key.
    #[error("the message is not encrypted for a key of this kind")]
    Unsupported,
}

/// Encrypts `payload` with A256GCM and a fresh content key: flattened JSON for one recipient,
/// general JSON for several.
pub fn encrypt(payload: &[u8], recipients: &[Recipient]) -> Result<Jwe, EncryptError> {
    let enc = ContentEncryption::A256Gcm;
    if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX {
        return Err(EncryptError::Recipients);
    }
    let (protected, cek, shares) = match recipients {
        [recipient] => {
            let (wrapped, cek) = wrap::wrap_new(recipient, enc)?;
            let header = protected_header(recipient.algorithm(), enc, wrapped.epk.as_ref());
            (header, cek, vec![Share::flattened(wrapped.encrypted_key)])
        }
        several => {
            let mut cek = Zeroizing::new(vec![0; enc.key_len()]);
            aws_lc_rs::rand::fill(&mut cek).map_err(|_| EncryptError::Internal)?;
            let mut shares = Vec::with_capacity(several.len());
            for recipient in several {
                let wrapped = wrap::wrap(recipient, &cek)?;
                let mut header = Map::new();
                header.insert("alg".to_owned(), recipient.algorithm().name().into());
                if let Some(epk) = &wrapped.epk {
                    header.insert("epk".to_owned(), epk.to_value());
                }
                shares.push(Share::general(header, wrapped.encrypted_key));
            }
            (format!(r#"{{"enc":"{}"}}"#, enc.name()), cek, shares)
        }
    };
    let protected = base64url(protected.as_bytes());
    let mut iv = [0; IV_LEN];
    aws_lc_rs::rand::fill(&mut iv).map_err(|_| EncryptError::Internal)?;
    let mut ciphertext = payload.to_vec();
    let tag = content_key(enc, &cek)
        .ok_or(EncryptError::Internal)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(protected.as_bytes()), &mut ciphertext)
        .map_err(|_| EncryptError::Internal)?;
    Ok(Jwe {
        protected: Some(protected),
        unprotected: None,
        shares,
        aad: None,
        iv: iv.to_vec(),
        ciphertext,
        tag: tag.as_ref().to_vec(),
    })
}

impl Jwe {
    /// Decrypts the part of this message that is for `key`.
    ///
    /// # Errors
    /// See [`DecryptError`]; a wrong key and a changed message look alike.
    pub fn decrypt(&self, key: &DecryptionKey) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        let mut failure = DecryptError::Unsupported;
        for share in &self.shares {
            match self.decrypt_share(share, key) {
                Ok(plain) => return Ok(plain),
                Err(DecryptError::Unsupported) => {}
                Err(DecryptError::Header) => return Err(DecryptError::Header),
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    fn decrypt_share(&self, share: &Share, key: &DecryptionKey) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        let header = self.joined_header(share)?;
        if header.contains_key("crit") || header.contains_key("zip") {
            return Err(DecryptError::Header);
        }
        let name = |member| header.get(member).and_then(Value::as_str);
        let algorithm = name("alg").ok_or(DecryptError::Header)?;
        let enc = name("enc").ok_or(DecryptError::Header)?;
        let algorithm: Algorithm = algorithm.parse().map_err(|_| DecryptError::Unsupported)?;
        let enc: ContentEncryption = enc.parse().map_err(|_| DecryptError::Unsupported)?;

        let cek = wrap::unwrap(algorithm, enc, &header, &share.encrypted_key, key)?;
        let iv = Nonce::try_assume_unique_for_key(&self.iv).map_err(|_| DecryptError::Decryption)?;
        let mut aad = self.protected.clone().unwrap_or_default();
        if let Some(text) = &self.aad {
            aad.push('.');
            aad.push_str(text);
        }
        if self.tag.len() != TAG_LEN {
            return Err(DecryptError::Decryption);
        }
        let mut plain = Zeroizing::new([&self.ciphertext[..], &self.tag[..]].concat());
        let len = content_key(enc, &cek)
            .ok_or(DecryptError::Decryption)?
            .open_in_place(iv, Aad::from(aad.as_bytes()), &mut plain)
            .map_err(|_| DecryptError::Decryption)?
            .len();
        plain.truncate(len);
        Ok(plain)
    }

    /// The members of all three headers; one that is in two of them is an error (§7.2.1).
    fn joined_header(&self, share: &Share) -> Result<Map<String, Value>, DecryptError> {
        let mut joined = self.protected_header().ok_or(DecryptError::Header)?;
        for header in [&self.unprotected, &share.header].into_iter().flatten() {
            for (name, value) in header {
                if joined.insert(name.clone(), value.clone()).is_some() {
                    return Err(DecryptError::Header);
                }
            }
        }
        Ok(joined)
    }
}

fn protected_header(algorithm: Algorithm, enc: ContentEncryption, epk: Option<&Epk>) -> String {
    let (alg, enc) = (algorithm.name(), enc.name());
    match epk {
        Some(epk) => format!(r#"{{"alg":"{alg}","enc":"{enc}","epk":{}}}"#, epk.to_json()),
        None => format!(r#"{{"alg":"{alg}","enc":"{enc}"}}"#),
    }
}

fn content_key(enc: ContentEncryption, cek: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(enc.aead(), cek).ok().map(LessSafeKey::new)
}

const IV_LEN: usize = aws_lc_rs::aead::NONCE_LEN;
const TAG_LEN: usize = 16;

#[cfg(test)]
mod tests;
