//! Compact JWS (RFC 7515 §7.1) with ES256 and nothing else: tokens, licences, leases. `alg` is
//! never believed, `crit` is refused, base64url has exactly one spelling.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::jwk::{KeyError, base64url};
pub use crate::signing::{BadSignature, SigningKey, VerifyingKey};
use crate::strict_json;

/// The longest token that is read or written, in bytes.
pub const TOKEN_MAX: usize = 64 * 1024;

/// Why a token was not made or not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// `alg` is not ES256.
    #[error("the token's algorithm is not ES256")]
    Algorithm,
    /// The header has `crit`, or an extra member would replace `alg`, `typ` or `crit`.
    #[error("the token's header has a member that is not allowed here")]
    Header,
    /// Not three parts of unpadded base64url around a JSON object.
    #[error("the text is no compact JWS")]
    Malformed,
    /// The payload is not the JSON that was expected.
    #[error("the token's payload is not what it should be")]
    Payload(#[source] serde_json::Error),
    /// None of the given keys made the signature.
    #[error("none of the known keys signed the token")]
    Signature,
    /// The signing operation failed.
    #[error("the token could not be signed")]
    Sign(#[source] KeyError),
    /// More than [`TOKEN_MAX`] bytes.
    #[error("the token is longer than 64 KiB")]
    TooLong,
    /// `typ` is another one, or is missing: a token of another kind.
    #[error("the token's type is not `{expected}`")]
    Type {
        /// The type that the caller asked for.
        expected: String,
    },
}

/// What a token says, before anyone looked at its signature. Good for choosing keys, nothing else.
#[derive(Clone, Debug)]
pub struct UnverifiedJws {
    /// The protected header.
    pub header: Map<String, Value>,
    /// The payload's bytes.
    pub payload: Vec<u8>,
}

impl UnverifiedJws {
    /// Parses the payload as JSON without duplicate members.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        strict_json::from_slice(&self.payload).map_err(JwsError::Payload)
    }
}

/// A token whose signature was checked. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedJws {
    header: Map<String, Value>,
    payload: Vec<u8>,
    signer: String,
}

impl VerifiedJws {
    /// The protected header.
    pub fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// The payload's bytes, as signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The thumbprint of the key that made the signature.
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// Parses the payload as JSON without duplicate members.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        strict_json::from_slice(&self.payload).map_err(JwsError::Payload)
    }
}

/// Signs `payload` as a token of type `typ`; the header is `{"alg":"ES256","typ":…}`.
pub fn sign(typ: &str, payload: &impl Serialize, key: &SigningKey) -> Result<String, JwsError> {
    sign_with_header(typ, &Map::new(), payload, key)
}

/// Signs `payload` with further header members (`kid`, `jwk`, `x5c`, …).
///
/// # Errors
/// [`JwsError::Header`] when `extra` holds `alg`, `typ` or `crit`.
pub fn sign_with_header(
    typ: &str,
    extra: &Map<String, Value>,
    payload: &impl Serialize,
    key: &SigningKey,
) -> Result<String, JwsError> {
    if RESERVED.iter().any(|name| extra.contains_key(*name)) {
        return Err(JwsError::Header);
    }
    let mut header = Map::new();
    header.insert("alg".to_owned(), ALGORITHM.into());
    header.insert("typ".to_owned(), typ.into());
    header.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
    let header = serde_json::to_vec(&header).map_err(JwsError::Payload)?;
    let payload = serde_json::to_vec(payload).map_err(JwsError::Payload)?;
    let mut token = format!("{}.{}", base64url(&header), base64url(&payload));
    let signature = key.sign_fixed(token.as_bytes()).map_err(JwsError::Sign)?;
    token.push('.');
    token.push_str(&base64url(&signature));
    if token.len() > TOKEN_MAX {
        return Err(JwsError::TooLong);
    }
    Ok(token)
}

/// Checks that one of `keys` signed `token` and that its type is `typ`, letter for letter.
///
/// # Security
/// Times, audience and every other claim are the caller's to check.
pub fn verify(token: &str, typ: &str, keys: &[VerifyingKey]) -> Result<VerifiedJws, JwsError> {
    let parts = Parts::split(token)?;
    let unverified = parts.decode(typ)?;
    let signature = decode(parts.signature)?;
    let signer = keys
        .iter()
        .find(|key| key.verify_fixed(parts.signed.as_bytes(), &signature).is_ok())
        .ok_or(JwsError::Signature)?;
    Ok(VerifiedJws { header: unverified.header, payload: unverified.payload, signer: signer.thumbprint() })
}

/// Reads a token of type `typ` without checking its signature.
///
/// # Security
/// Everything in the answer is what the sender wants it to be.
pub fn decode_unverified(token: &str, typ: &str) -> Result<UnverifiedJws, JwsError> {
    let parts = Parts::split(token)?;
    let unverified = parts.decode(typ)?;
    decode(parts.signature)?;
    Ok(unverified)
}

struct Parts<'a> {
    /// Header and payload with the dot between them.
    signed: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > TOKEN_MAX {
            return Err(JwsError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        Ok(Self { signed, header, payload, signature })
    }

    fn decode(&self, typ: &str) -> Result<UnverifiedJws, JwsError> {
        let header: Map<String, Value> =
            strict_json::from_slice(&decode(self.header)?).map_err(|_| JwsError::Malformed)?;
        if header.get("alg").and_then(Value::as_str) != Some(ALGORITHM) {
            return Err(JwsError::Algorithm);
        }
        if header.contains_key("crit") {
            return Err(JwsError::Header);
        }
        if header.get("typ").and_then(Value::as_str) != Some(typ) {
            return Err(JwsError::Type { expected: typ.to_owned() });
        }
        Ok(UnverifiedJws { header, payload: decode(self.payload)? })
    }
}

/// A part with a dot in it, padding, or spare bits is refused by the decoder.
fn decode(part: &str) -> Result<Vec<u8>, JwsError> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed)
}

const ALGORITHM: &str = "ES256";
/// Members that the caller of [`sign_with_header`] may not set.
const RESERVED: [&str; 3] = ["alg", "typ", "crit"];

#[cfg(test)]
mod tests;
