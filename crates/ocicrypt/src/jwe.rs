//! Layer keys for public keys: the annotation in which Go's ocicrypt (skopeo, buildah) keeps a JWE
//! for one recipient or several. The annotation is a list, joined by `,`; every element is base64
//! of one JWE's JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jose::jwe::{self, EncryptError, Jwe, ParseJweError};
pub use jose::jwe::{DecryptionKey, Recipient};

use crate::options::PrivateOptions;

/// The annotation of these messages.
pub const ANNOTATION: &str = "org.opencontainers.image.enc.keys.jwe";

/// The longest element that is read, in bytes of JSON; 32 RSA recipients take some 30 KiB.
const MESSAGE_MAX: usize = 64 * 1024;

/// Why an element is no JWE.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JweError {
    /// No standard base64 with padding.
    #[error("an encrypted layer key is no base64")]
    Base64,
    /// The options could not be encrypted.
    #[error("the layer key could not be encrypted for its recipients")]
    Encrypt(#[from] EncryptError),
    /// Not a JWE.
    #[error("an encrypted layer key is no JWE")]
    Parse(#[from] ParseJweError),
    /// More than 64 KiB.
    #[error("an encrypted layer key is too long")]
    TooLong,
}

/// Encrypts `private` for all recipients in one message, as Go's ocicrypt does.
pub fn seal(private: &PrivateOptions, recipients: &[Recipient]) -> Result<Jwe, JweError> {
    Ok(jwe::encrypt(private.to_json().as_bytes(), recipients)?)
}

/// A message as one element of the annotation.
pub fn to_annotation(message: &Jwe) -> String {
    BASE64_STANDARD.encode(message.to_string())
}

/// Reads one element of the annotation.
pub fn from_annotation(element: &str) -> Result<Jwe, JweError> {
    if element.len() > MESSAGE_MAX * 4 / 3 {
        return Err(JweError::TooLong);
    }
    let json = BASE64_STANDARD.decode(element).map_err(|_| JweError::Base64)?;
    Ok(Jwe::parse(&json)?)
}
