//! The options of an encrypted layer: public ones in an annotation of their own, private ones
//! wrapped for whoever may open the layer. Both are JSON, written byte for byte as Go's ocicrypt
//! does (`blockcipher.PublicLayerBlockCipherOptions` and `PrivateLayerBlockCipherOptions`).

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::cipher::{AES_256_CTR_HMAC_SHA256, CipherError, Digest, LayerKey, Mac, Nonce, by_name};

/// The annotation of the public options.
pub const ANNOTATION: &str = "org.opencontainers.image.enc.pubopts";

/// The longest options that are read, in bytes of JSON; real ones have some 200.
const JSON_MAX: usize = 4096;

/// Why options were not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// No standard base64 with padding.
    #[error("the options are no base64")]
    Base64,
    /// The cipher is not known.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The digest of the plain layer is missing or is not SHA-256.
    #[error("the private options have no SHA-256 digest of the plain layer")]
    Digest,
    /// Not the JSON of these options, or a member that they do not have.
    #[error("the options are not what they should be")]
    Json,
    /// The key, the nonce or the HMAC has another length, or is missing.
    #[error("the member `{member}` of the options does not have {expected} bytes")]
    Length {
        /// The member's name.
        member: &'static str,
        /// The length that it must have, in bytes.
        expected: usize,
    },
    /// A nonce, or any other cipher option, among the public options. They are the attacker's to
    /// write, and other tools prefer them to the private ones.
    #[error("the public options have the cipher option `{name}`, which belongs to the private ones")]
    PublicCipherOption {
        /// The option's name.
        name: String,
    },
    /// More than 4 KiB.
    #[error("the options are too long")]
    TooLong,
}

/// What everyone may know of an encrypted layer. Whoever stores the image can change it.
#[derive(Clone, Copy, Debug)]
pub struct PublicOptions {
    pub(crate) hmac: Mac,
}

impl PublicOptions {
    /// Options of a layer with this HMAC over its ciphertext.
    pub fn new(hmac: Mac) -> Self {
        Self { hmac }
    }

    /// The name of the layer cipher.
    pub fn cipher(&self) -> &'static str {
        AES_256_CTR_HMAC_SHA256
    }

    /// The HMAC over the ciphertext.
    pub fn hmac(&self) -> &Mac {
        &self.hmac
    }

    /// Reads the annotation's value.
    pub fn from_annotation(value: &str) -> Result<Self, OptionsError> {
        if value.len() > JSON_MAX * 4 / 3 {
            return Err(OptionsError::TooLong);
        }
        let json = BASE64_STANDARD.decode(value).map_err(|_| OptionsError::Base64)?;
        Self::from_json(&json)
    }

    /// The annotation's value.
    pub fn to_annotation(&self) -> String {
        BASE64_STANDARD.encode(self.to_json())
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// [`OptionsError::PublicCipherOption`] for any cipher option; no cipher has a public one.
    pub fn from_json(json: &[u8]) -> Result<Self, OptionsError> {
        if json.len() > JSON_MAX {
            return Err(OptionsError::TooLong);
        }
        let raw: RawPublic<'_> = serde_json::from_slice(json).map_err(|_| OptionsError::Json)?;
        if let Some(name) = raw.cipheroptions.unwrap_or_default().into_iter().map(|(name, _)| name).next() {
            return Err(OptionsError::PublicCipherOption { name });
        }
        by_name(&raw.cipher)?;
        let mut hmac = [0; Mac::LEN];
        decode("hmac", raw.hmac.as_deref(), &mut hmac)?;
        Ok(Self::new(Mac::from_bytes(hmac)))
    }

    /// The JSON.
    pub fn to_json(&self) -> String {
        format!(
            r#"{{"cipher":"{}","hmac":"{}","cipheroptions":{{}}}}"#,
            self.cipher(),
            BASE64_STANDARD.encode(self.hmac.as_bytes())
        )
    }
}

/// What opens a layer. Wiped on drop, never printed.
pub struct PrivateOptions {
    pub(crate) key: LayerKey,
    pub(crate) nonce: Nonce,
    pub(crate) digest: Digest,
}

impl PrivateOptions {
    /// The digest that the decrypted layer must have. Believe it after the HMAC only.
    pub fn plain_digest(&self) -> Digest {
        self.digest
    }

    /// Reads the JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, OptionsError> {
        if json.len() > JSON_MAX {
            return Err(OptionsError::TooLong);
        }
        let raw: RawPrivate<'_> = serde_json::from_slice(json).map_err(|_| OptionsError::Json)?;
        let digest = raw.digest.parse().map_err(|_| OptionsError::Digest)?;
        let key = LayerKey::try_init(|key| decode("symkey", raw.symkey.as_deref(), key))?;
        let options = raw.cipheroptions;
        let nonce = options.as_ref().and_then(|options| options.nonce.as_deref());
        let nonce = Nonce::try_init(|bytes| decode("nonce", nonce, bytes))?;
        Ok(Self { key, nonce, digest })
    }

    /// The JSON, which is what gets wrapped.
    pub fn to_json(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(BASE64_STANDARD.encode(self.key.expose()));
        let nonce = Zeroizing::new(BASE64_STANDARD.encode(self.nonce.expose()));
        let digest = self.digest.to_string();
        // Grown once: a reallocation would leave a copy behind.
        let mut json = Zeroizing::new(String::with_capacity(JSON_MAX));
        for part in
            [r#"{"symkey":""#, &key, r#"","digest":""#, &digest, r#"","cipheroptions":{"nonce":""#, &nonce, r#""}}"#]
        {
            json.push_str(part);
        }
        json
    }
}

impl fmt::Debug for PrivateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateOptions([redacted])")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublic<'a> {
    #[serde(borrow)]
    cipher: Cow<'a, str>,
    #[serde(borrow)]
    hmac: Option<Cow<'a, str>>,
    cipheroptions: Option<Map<String, Value>>,
}

/// Base64 has no characters that JSON escapes, so that all three stay slices of the input, which
/// is wiped by its owner.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrivate<'a> {
    #[serde(borrow)]
    symkey: Option<Cow<'a, str>>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
    #[serde(borrow)]
    cipheroptions: Option<RawCipherOptions<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCipherOptions<'a> {
    #[serde(borrow)]
    nonce: Option<Cow<'a, str>>,
}

/// Decodes exactly `target.len()` bytes.
fn decode(member: &'static str, text: Option<&str>, target: &mut [u8]) -> Result<(), OptionsError> {
    let length = OptionsError::Length { member, expected: target.len() };
    let Some(text) = text else {
        return Err(length);
    };
    // The decoder wants room for its estimate, which is rounded up to whole groups of three.
    let mut room = Zeroizing::new([0; ROOM]);
    if text.len() > ROOM / 3 * 4 {
        return Err(length);
    }
    let len = BASE64_STANDARD.decode_slice(text, &mut room[..]).map_err(|_| OptionsError::Base64)?;
    if len != target.len() {
        return Err(length);
    }
    target.copy_from_slice(&room[..len]);
    Ok(())
}

/// The longest member has 32 bytes.
const ROOM: usize = 48;

#[cfg(test)]
mod tests;
