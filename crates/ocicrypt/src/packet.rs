//! The packet that Confidential Containers guests open: private options under a key-encryption key
//! that a key broker holds, in the annotation of the key provider `attestation-agent`. Version 1
//! is written; versions 1 and 2 ("0.1.0") are read, as the confidential data hub reads them.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

mod kid;

pub use self::kid::{Kid, ParseKidError};
use crate::options::PrivateOptions;
use crate::secret::KeyEncryptionKey;

/// The annotation of these packets.
pub const ANNOTATION: &str = "org.opencontainers.image.enc.keys.provider.attestation-agent";

/// Where tools put these packets that know the key provider as `sealift`. Read like the other; guests of others do not
/// look here.
pub const OWN_ANNOTATION: &str = "org.opencontainers.image.enc.keys.provider.sealift";

/// The longest packet that is read, in bytes of JSON; real ones have some 500.
const PACKET_MAX: usize = 16 * 1024;

/// Why a packet is no packet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// No standard base64 with padding.
    #[error("a key packet is no base64")]
    Base64,
    /// Not the JSON of a packet.
    #[error("a key packet is not what it should be")]
    Json(#[source] serde_json::Error),
    /// The initialization vector has not 12 bytes.
    #[error("a key packet has no initialization vector of 12 bytes")]
    Iv,
    /// The key id is none that a key broker serves.
    #[error("a key packet has an unusable key id")]
    Kid(#[from] ParseKidError),
    /// The cryptographic library or the random generator refused.
    #[error("the cryptographic library refused the operation")]
    Internal,
    /// More than 16 KiB.
    #[error("a key packet is too long")]
    TooLong,
}

/// One packet of the annotation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Packet {
    /// One that a key broker's key opens.
    Broker(BrokerPacket),
    /// One that is well-formed but not for us: another provider or way of wrapping. An error
    /// unless another packet opens the layer.
    Unsupported(UnsupportedPacket),
}

/// A packet whose key is served by a key broker, wrapped with AES-256-GCM.
#[derive(Clone)]
pub struct BrokerPacket {
    kid: Kid,
    wrapped: Vec<u8>,
    iv: [u8; NONCE_LEN],
}

/// What kept a packet from being a [`BrokerPacket`]. All texts are the image's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedPacket {
    /// The key id, which may follow the rules of another provider or of a broker's plugin.
    pub kid: String,
    /// The provider of the key; `kbs` is the one that is known.
    pub provider: String,
    /// The way of wrapping; `A256GCM` is the one that is known.
    pub wrap_type: Option<String>,
    /// The packet's version; `0.1.0` is the one that is known.
    pub version: String,
}

impl fmt::Display for UnsupportedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrap_type = self.wrap_type.as_deref().unwrap_or_default();
        let (version, provider) = (&self.version, &self.provider);
        let kid = &self.kid;
        write!(f, "key {kid:?}, version {version:?}, provider {provider:?}, wrap type {wrap_type:?}")
    }
}

impl BrokerPacket {
    /// Wraps `private` with a fresh initialization vector.
    pub fn seal(kid: &Kid, kek: &KeyEncryptionKey, private: &PrivateOptions) -> Result<Self, PacketError> {
        let mut iv = [0; NONCE_LEN];
        rand::fill(&mut iv).map_err(|_| PacketError::Internal)?;
        Self::seal_with_iv(kid, kek, private.to_json().as_bytes(), iv)
    }

    /// The key's address.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Opens the packet; `None` when it was made with another key or was changed.
    pub fn open(&self, kek: &KeyEncryptionKey) -> Option<Zeroizing<Vec<u8>>> {
        let mut plain = Zeroizing::new(self.wrapped.clone());
        let len = cipher(kek)?.open_in_place(Nonce::from(&self.iv), Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }

    /// The packet's JSON, version 1.
    pub fn to_json(&self) -> String {
        // Only base64 and the key id's restricted characters: nothing to escape.
        format!(
            r#"{{"kid":"{}","wrapped_data":"{}","iv":"{}","wrap_type":"{WRAP_TYPE}"}}"#,
            self.kid,
            BASE64_STANDARD.encode(&self.wrapped),
            BASE64_STANDARD.encode(self.iv),
        )
    }

    /// The packet as one element of the annotation.
    pub fn to_annotation(&self) -> String {
        BASE64_STANDARD.encode(self.to_json())
    }

    fn seal_with_iv(kid: &Kid, kek: &KeyEncryptionKey, plain: &[u8], iv: [u8; NONCE_LEN]) -> Result<Self, PacketError> {
        let mut wrapped = Zeroizing::new(Vec::with_capacity(plain.len() + AES_256_GCM.tag_len()));
        wrapped.extend_from_slice(plain);
        let tag = cipher(kek)
            .ok_or(PacketError::Internal)?
            .seal_in_place_separate_tag(Nonce::from(&iv), Aad::empty(), &mut wrapped)
            .map_err(|_| PacketError::Internal)?;
        wrapped.extend_from_slice(tag.as_ref());
        Ok(Self { kid: kid.clone(), wrapped: wrapped.to_vec(), iv })
    }
}

impl fmt::Debug for BrokerPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerPacket({})", self.kid)
    }
}

impl Packet {
    /// Reads one element of the annotation.
    pub fn from_annotation(element: &str) -> Result<Self, PacketError> {
        if element.len() > PACKET_MAX * 4 / 3 {
            return Err(PacketError::TooLong);
        }
        let json = BASE64_STANDARD.decode(element).map_err(|_| PacketError::Base64)?;
        Self::from_json(&json)
    }

    /// Reads a packet's JSON, version 1 or 2.
    pub fn from_json(json: &[u8]) -> Result<Self, PacketError> {
        if json.len() > PACKET_MAX {
            return Err(PacketError::TooLong);
        }
        let raw: RawPacket = serde_json::from_slice(json).map_err(PacketError::Json)?;
        let kid = raw.kid.parse();
        // `kbs+<plugin>://` is a key that the broker gets from elsewhere.
        let supported = raw.version == VERSION
            && raw.provider == PROVIDER
            && raw.wrap_type.as_deref() == Some(WRAP_TYPE)
            && kid != Err(ParseKidError::Scheme);
        if !supported {
            return Ok(Self::Unsupported(UnsupportedPacket {
                kid: raw.kid,
                provider: raw.provider,
                wrap_type: raw.wrap_type,
                version: raw.version,
            }));
        }
        let decode = |text: &str| BASE64_STANDARD.decode(text);
        let iv = decode(&raw.iv.unwrap_or_default()).map_err(|_| PacketError::Base64)?;
        Ok(Self::Broker(BrokerPacket {
            kid: kid?,
            wrapped: decode(&raw.wrapped_data).map_err(|_| PacketError::Base64)?,
            iv: iv.try_into().map_err(|_| PacketError::Iv)?,
        }))
    }
}

/// Version 2; version 1 is the same without the members that have a default.
#[derive(Deserialize, Serialize)]
struct RawPacket {
    #[serde(default = "default_version")]
    version: String,
    kid: String,
    wrapped_data: String,
    #[serde(default = "default_provider")]
    provider: String,
    iv: Option<String>,
    wrap_type: Option<String>,
    /// Settings and fields of key management services, which are other providers.
    #[serde(default, rename = "provider_settings")]
    _provider_settings: Value,
    #[serde(default, rename = "annotations")]
    _annotations: Value,
}

fn default_version() -> String {
    VERSION.to_owned()
}

fn default_provider() -> String {
    PROVIDER.to_owned()
}

fn cipher(kek: &KeyEncryptionKey) -> Option<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, kek.expose()).ok()?;
    Some(LessSafeKey::new(key))
}

const VERSION: &str = "0.1.0";
const PROVIDER: &str = "kbs";
/// The broker's clients know `A256CTR` as well, which authenticates nothing and is not opened.
const WRAP_TYPE: &str = "A256GCM";

#[cfg(test)]
mod tests;
