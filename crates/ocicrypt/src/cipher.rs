//! Layer ciphers. A cipher is chosen by the name in the public options; the format knows one,
//! `AES_256_CTR_HMAC_SHA256`: AES-256 in counter mode, then HMAC-SHA-256 over the ciphertext with
//! the same key. Chunks of any length are changed in place.
//!
//! For a pipeline, `split` separates the half that needs the key stream from the half that reads
//! ciphertext, so that the two run on different threads.

mod aes_ctr;
mod mac;

use std::fmt;

use sha256_lanes::Lane;

pub use self::aes_ctr::CtrStream;
pub use self::mac::{HmacStream, Mac};
pub use crate::digest::{Digest, ParseDigestError};
use crate::options::{PrivateOptions, PublicOptions};
pub use crate::secret::{KeyEncryptionKey, KeyLengthError, LayerKey, Nonce, RandomError};

/// The name of the one cipher that the format has.
pub const AES_256_CTR_HMAC_SHA256: &str = "AES_256_CTR_HMAC_SHA256";

/// Why a layer was not encrypted or decrypted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CipherError {
    /// The ciphertext, its HMAC or the key is not the right one. Which of them is not told.
    #[error("the layer does not match its HMAC")]
    Authentication,
    /// The cryptographic library refused the operation.
    #[error("the cryptographic library refused the operation")]
    Internal,
    /// The random generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// No cipher of this name.
    #[error("the layer cipher `{name}` is not known here")]
    UnknownCipher {
        /// The name, from the public options.
        name: String,
    },
}

/// A way of encrypting layers. One that works on authenticated chunks would be a second
/// implementation, with its own name.
pub trait LayerCipher: fmt::Debug + Send + Sync {
    /// The name in the public options.
    fn name(&self) -> &'static str;

    /// Starts to encrypt a layer, with a fresh random key and nonce.
    fn encryptor(&self) -> Result<LayerEncryptor, CipherError>;

    /// Starts to decrypt the layer that `public` and `private` describe.
    fn decryptor(&self, public: &PublicOptions, private: PrivateOptions) -> Result<LayerDecryptor, CipherError>;
}

/// Finds a cipher by its name.
///
/// # Errors
/// [`CipherError::UnknownCipher`].
pub fn by_name(name: &str) -> Result<&'static dyn LayerCipher, CipherError> {
    match name {
        AES_256_CTR_HMAC_SHA256 => Ok(&AesCtrHmac),
        _ => Err(CipherError::UnknownCipher { name: name.chars().take(NAME_SHOWN_MAX).collect() }),
    }
}

/// [`AES_256_CTR_HMAC_SHA256`].
#[derive(Debug)]
struct AesCtrHmac;

impl LayerCipher for AesCtrHmac {
    fn name(&self) -> &'static str {
        AES_256_CTR_HMAC_SHA256
    }

    fn encryptor(&self) -> Result<LayerEncryptor, CipherError> {
        LayerEncryptor::with_key(LayerKey::generate()?, Nonce::generate()?)
    }

    fn decryptor(&self, public: &PublicOptions, private: PrivateOptions) -> Result<LayerDecryptor, CipherError> {
        Ok(LayerDecryptor {
            ctr: CtrStream::new(&private.key, &private.nonce)?,
            check: DecryptionCheck {
                mac: HmacStream::new(&private.key),
                expected: public.hmac,
                digest: private.digest,
            },
        })
    }
}

/// Encrypts one layer.
#[derive(Debug)]
pub struct LayerEncryptor {
    ctr: CtrStream,
    seal: EncryptionSeal,
}

impl LayerEncryptor {
    /// A given key and nonce serve known-answer tests only: a pair may never encrypt twice.
    fn with_key(key: LayerKey, nonce: Nonce) -> Result<Self, CipherError> {
        Ok(Self { ctr: CtrStream::new(&key, &nonce)?, seal: EncryptionSeal { mac: HmacStream::new(&key), key, nonce } })
    }

    /// Encrypts the next chunk in place.
    pub fn apply(&mut self, chunk: &mut [u8]) -> Result<(), CipherError> {
        self.ctr.apply(chunk)?;
        self.seal.update(chunk);
        Ok(())
    }

    /// Ends the layer. `plain_digest` is the digest of the layer as it went in: compressed, if it
    /// is, and not its `diff_id`.
    pub fn finish(self, plain_digest: Digest) -> (PublicOptions, PrivateOptions) {
        self.seal.finish(plain_digest)
    }

    /// Both halves, for two threads: the key stream first, then the seal over its output.
    pub fn split(self) -> (CtrStream, EncryptionSeal) {
        (self.ctr, self.seal)
    }
}

/// The half of an encryptor that reads the ciphertext, and makes the options at the end.
#[derive(Debug)]
pub struct EncryptionSeal {
    mac: HmacStream,
    key: LayerKey,
    nonce: Nonce,
}

impl EncryptionSeal {
    /// Takes in the next chunk of ciphertext.
    pub fn update(&mut self, ciphertext: &[u8]) {
        self.mac.update(ciphertext);
    }

    /// The next chunk of ciphertext, to be hashed together with other streams.
    pub fn lane<'a>(&'a mut self, ciphertext: &'a [u8]) -> Lane<'a> {
        self.mac.lane(ciphertext)
    }

    /// See [`LayerEncryptor::finish`].
    pub fn finish(self, plain_digest: Digest) -> (PublicOptions, PrivateOptions) {
        let public = PublicOptions { hmac: self.mac.finish() };
        let private = PrivateOptions { key: self.key, nonce: self.nonce, digest: plain_digest };
        (public, private)
    }
}

/// Decrypts one layer.
///
/// # Security
/// What comes out before [`Self::finish`] said yes is unauthenticated: counter mode lets an
/// attacker flip any plain bit. Keep it where nothing acts on it.
#[derive(Debug)]
pub struct LayerDecryptor {
    ctr: CtrStream,
    check: DecryptionCheck,
}

impl LayerDecryptor {
    /// Decrypts the next chunk in place.
    pub fn apply(&mut self, chunk: &mut [u8]) -> Result<(), CipherError> {
        self.check.update(chunk);
        self.ctr.apply(chunk)
    }

    /// Ends the layer: verifies the HMAC over all ciphertext, and only then gives the digest that
    /// the plain layer was promised to have. Comparing it is the caller's duty.
    ///
    /// skopeo promises the digest of the layer that it read, and may have compressed it since:
    /// where the decrypted bytes have another digest, the uncompressed ones may have it.
    ///
    /// # Errors
    /// [`CipherError::Authentication`].
    pub fn finish(self) -> Result<Digest, CipherError> {
        self.check.finish()
    }

    /// Both halves, for two threads: the check reads ciphertext before the key stream changes it.
    pub fn split(self) -> (CtrStream, DecryptionCheck) {
        (self.ctr, self.check)
    }
}

/// The half of a decryptor that reads the ciphertext and gives the verdict.
#[derive(Debug)]
#[must_use = "a layer whose check was not finished is unauthenticated"]
pub struct DecryptionCheck {
    mac: HmacStream,
    expected: Mac,
    digest: Digest,
}

impl DecryptionCheck {
    /// Takes in the next chunk of ciphertext.
    pub fn update(&mut self, ciphertext: &[u8]) {
        self.mac.update(ciphertext);
    }

    /// The next chunk of ciphertext, to be hashed together with other streams.
    pub fn lane<'a>(&'a mut self, ciphertext: &'a [u8]) -> Lane<'a> {
        self.mac.lane(ciphertext)
    }

    /// See [`LayerDecryptor::finish`].
    pub fn finish(self) -> Result<Digest, CipherError> {
        self.mac.verify(&self.expected)?;
        Ok(self.digest)
    }
}

/// How much of an unknown cipher's name goes into a message.
const NAME_SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests;
