//! The JSON serializations of a JWE (RFC 7516 §7.2), and the compact one (§7.1) for reading.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

use super::RECIPIENTS_MAX;
use crate::jwk::base64url;
use crate::strict_json;

/// An encrypted message. `Display`, `FromStr` and serde give and take its JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Jwe {
    /// base64url, as received: these bytes are authenticated.
    pub(super) protected: Option<String>,
    pub(super) unprotected: Option<Map<String, Value>>,
    pub(super) shares: Vec<Share>,
    /// base64url, as received.
    pub(super) aad: Option<String>,
    pub(super) iv: Vec<u8>,
    pub(super) ciphertext: Vec<u8>,
    pub(super) tag: Vec<u8>,
}

/// What one recipient needs to get at the content key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    form: Form,
    pub(super) header: Option<Map<String, Value>>,
    pub(super) encrypted_key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Flattened,
    General,
}

/// Why a text is no JWE.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseJweError {
    /// No base64url without padding where it must be.
    #[error("a part of the message is no base64url")]
    Base64,
    /// Not the JSON of a JWE, or no five parts in the compact form.
    #[error("the text is no encrypted message")]
    Json(#[source] Option<serde_json::Error>),
    /// More than [`super::RECIPIENTS_MAX`] recipients, or none, or both forms at once.
    #[error("the message's list of recipients is not usable")]
    Recipients,
    /// More than [`Jwe::TEXT_MAX`] bytes.
    #[error("the message is too long")]
    TooLong,
}

impl Jwe {
    /// The longest text that is read, in bytes.
    pub const TEXT_MAX: usize = 1024 * 1024;

    /// Reads the flattened, general or compact serialization.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseJweError> {
        if bytes.len() > Self::TEXT_MAX {
            return Err(ParseJweError::TooLong);
        }
        if bytes.trim_ascii_start().first() == Some(&b'{') {
            let raw: RawJwe = strict_json::from_slice(bytes).map_err(|e| ParseJweError::Json(Some(e)))?;
            raw.try_into()
        } else {
            let text = str::from_utf8(bytes).map_err(|_| ParseJweError::Json(None))?;
            Self::from_compact(text)
        }
    }

    /// The JSON serialization: flattened for one recipient, general for several, as it came.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The number of recipients.
    pub fn recipients(&self) -> usize {
        self.shares.len()
    }

    /// The names of the key algorithms, one for each recipient; `None` where there is none.
    pub fn algorithms(&self) -> Vec<Option<String>> {
        let shared = self.protected_header().unwrap_or_default();
        let find = |share: &Share| {
            [share.header.as_ref(), Some(&shared), self.unprotected.as_ref()]
                .into_iter()
                .flatten()
                .find_map(|header| header.get("alg").and_then(Value::as_str))
                .map(str::to_owned)
        };
        self.shares.iter().map(find).collect()
    }

    /// The decoded protected header; empty when there is none, `None` when it is no JSON object.
    pub(super) fn protected_header(&self) -> Option<Map<String, Value>> {
        let Some(protected) = &self.protected else {
            return Some(Map::new());
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(protected).ok()?;
        strict_json::from_slice(&bytes).ok()
    }

    fn from_compact(text: &str) -> Result<Self, ParseJweError> {
        let parts: Vec<&str> = text.trim().splitn(6, '.').collect();
        let [protected, encrypted_key, iv, ciphertext, tag] = parts[..] else {
            return Err(ParseJweError::Json(None));
        };
        decode(protected)?;
        Ok(Self {
            protected: Some(protected.to_owned()),
            unprotected: None,
            shares: vec![Share::flattened(decode(encrypted_key)?)],
            aad: None,
            iv: decode(iv)?,
            ciphertext: decode(ciphertext)?,
            tag: decode(tag)?,
        })
    }
}

impl Share {
    pub(super) fn flattened(encrypted_key: Vec<u8>) -> Self {
        Self { form: Form::Flattened, header: None, encrypted_key }
    }

    pub(super) fn general(header: Map<String, Value>, encrypted_key: Vec<u8>) -> Self {
        Self { form: Form::General, header: Some(header), encrypted_key }
    }
}

/// Member order as go-jose and the key broker write it.
#[derive(Deserialize, Serialize)]
struct RawJwe {
    #[serde(skip_serializing_if = "Option::is_none")]
    protected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unprotected: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipients: Option<Vec<RawRecipient>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aad: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted_key: Option<String>,
    #[serde(default)]
    iv: String,
    ciphertext: String,
    #[serde(default)]
    tag: String,
}

#[derive(Deserialize, Serialize)]
struct RawRecipient {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted_key: Option<String>,
}

impl TryFrom<RawJwe> for Jwe {
    type Error = ParseJweError;

    fn try_from(raw: RawJwe) -> Result<Self, ParseJweError> {
        let shares = match raw.recipients {
            // go-jose of 2022 repeats one `encrypted_key` beside `recipients`; it means nothing.
            Some(several) if raw.header.is_none() => {
                if several.is_empty() || several.len() > RECIPIENTS_MAX {
                    return Err(ParseJweError::Recipients);
                }
                several
                    .into_iter()
                    .map(|one| Share::read(Form::General, one.header, one.encrypted_key))
                    .collect::<Result<_, _>>()?
            }
            Some(_) => return Err(ParseJweError::Recipients),
            None => vec![Share::read(Form::Flattened, raw.header, raw.encrypted_key)?],
        };
        for text in [&raw.protected, &raw.aad].into_iter().flatten() {
            decode(text)?;
        }
        Ok(Self {
            protected: raw.protected,
            unprotected: raw.unprotected,
            shares,
            aad: raw.aad,
            iv: decode(&raw.iv)?,
            ciphertext: decode(&raw.ciphertext)?,
            tag: decode(&raw.tag)?,
        })
    }
}

impl Share {
    fn read(
        form: Form,
        header: Option<Map<String, Value>>,
        encrypted_key: Option<String>,
    ) -> Result<Self, ParseJweError> {
        Ok(Self { form, header, encrypted_key: decode(&encrypted_key.unwrap_or_default())? })
    }
}

impl From<&Jwe> for RawJwe {
    fn from(jwe: &Jwe) -> Self {
        let encrypted_key = |share: &Share| (!share.encrypted_key.is_empty()).then(|| base64url(&share.encrypted_key));
        let mut raw = Self {
            protected: jwe.protected.clone(),
            unprotected: jwe.unprotected.clone(),
            header: None,
            recipients: None,
            aad: jwe.aad.clone(),
            encrypted_key: None,
            iv: base64url(&jwe.iv),
            ciphertext: base64url(&jwe.ciphertext),
            tag: base64url(&jwe.tag),
        };
        match &jwe.shares[..] {
            [one] if one.form == Form::Flattened => {
                raw.header.clone_from(&one.header);
                raw.encrypted_key = encrypted_key(one);
            }
            several => {
                let recipient =
                    |share: &Share| RawRecipient { header: share.header.clone(), encrypted_key: encrypted_key(share) };
                raw.recipients = Some(several.iter().map(recipient).collect());
            }
        }
        raw
    }
}

impl FromStr for Jwe {
    type Err = ParseJweError;

    fn from_str(text: &str) -> Result<Self, ParseJweError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for Jwe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json().map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Jwe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.shares.is_empty() {
            return Err(ser::Error::custom("a message without recipients"));
        }
        RawJwe::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Jwe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawJwe::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, ParseJweError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseJweError::Base64)
}
