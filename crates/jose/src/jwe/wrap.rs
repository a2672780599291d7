//! Key agreement, key derivation and key wrap: how a content key travels (RFC 7518 §4.3, §4.4,
//! §4.6; Concat KDF of NIST SP 800-56A; AES key wrap of RFC 3394).

mod aes;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::digest;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey,
    PublicKeyComponents,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::algorithm::{Algorithm, ContentEncryption};
use super::key::{DecryptionKey, Private, Recipient};
use super::{DecryptError, EncryptError};
use crate::jwk::{Curve, Jwk, Kind, PublicKey, coordinates};

/// The longest `apu` and `apv` that are read, in bytes.
const PARTY_INFO_MAX: usize = 512;

pub(super) struct Wrapped {
    pub(super) encrypted_key: Vec<u8>,
    pub(super) epk: Option<Epk>,
}

/// The sender's ephemeral public key, as the header carries it.
pub(super) struct Epk {
    curve: Curve,
    x: String,
    y: String,
}

impl Epk {
    fn new(curve: Curve, point: &[u8]) -> Self {
        let (x, y) = coordinates(point);
        Self { curve, x, y }
    }

    pub(super) fn to_json(&self) -> String {
        let (crv, x, y) = (self.curve.name(), &self.x, &self.y);
        format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
    }

    pub(super) fn to_value(&self) -> Value {
        serde_json::json!({ "crv": self.curve.name(), "kty": "EC", "x": self.x, "y": self.y })
    }
}

/// Makes a content key for a single recipient: a random one, or the agreed one of ECDH-ES.
pub(super) fn wrap_new(
    recipient: &Recipient,
    enc: ContentEncryption,
) -> Result<(Wrapped, Zeroizing<Vec<u8>>), EncryptError> {
    if recipient.algorithm() == Algorithm::EcdhEs {
        let (cek, epk) = agree_new(recipient.key(), enc.name(), enc.key_len())?;
        let wrapped = Wrapped { encrypted_key: Vec::new(), epk: Some(epk) };
        return Ok((wrapped, cek));
    }
    let mut cek = Zeroizing::new(vec![0; enc.key_len()]);
    aws_lc_rs::rand::fill(&mut cek).map_err(|_| EncryptError::Internal)?;
    Ok((wrap(recipient, &cek)?, cek))
}

/// Wraps a content key that several recipients share.
pub(super) fn wrap(recipient: &Recipient, cek: &[u8]) -> Result<Wrapped, EncryptError> {
    let algorithm = recipient.algorithm();
    if let Kind::Rsa { modulus, exponent } = recipient.key().kind() {
        return Ok(Wrapped { encrypted_key: rsa_encrypt(oaep(algorithm), modulus, exponent, cek)?, epk: None });
    }
    let len = algorithm.wrapping_key_len().ok_or(EncryptError::Recipients)?;
    let (kek, epk) = agree_new(recipient.key(), algorithm.name(), len)?;
    Ok(Wrapped { encrypted_key: aes::wrap(&kek, cek).ok_or(EncryptError::Internal)?, epk: Some(epk) })
}

/// Gets the content key of one recipient's share.
pub(super) fn unwrap(
    algorithm: Algorithm,
    enc: ContentEncryption,
    header: &Map<String, Value>,
    encrypted_key: &[u8],
    key: &DecryptionKey,
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let cek = match &key.private {
        Private::Rsa(private) if algorithm.is_rsa() => {
            let mut plain = Zeroizing::new(vec![0; private.min_output_size()]);
            let len = private
                .decrypt(oaep(algorithm), encrypted_key, &mut plain, None)
                .map_err(|_| DecryptError::Decryption)?
                .len();
            plain.truncate(len);
            plain
        }
        Private::Ec { curve, key } if !algorithm.is_rsa() => {
            let agreed = Agreed::read(header, *curve, key)?;
            match algorithm.wrapping_key_len() {
                None if encrypted_key.is_empty() => agreed.derive(enc.name(), enc.key_len())?,
                None => return Err(DecryptError::Decryption),
                Some(len) => {
                    let kek = agreed.derive(algorithm.name(), len)?;
                    aes::unwrap(&kek, encrypted_key).ok_or(DecryptError::Decryption)?
                }
            }
        }
        Private::Rsa(_) | Private::Ec { .. } => return Err(DecryptError::Unsupported),
    };
    if cek.len() != enc.key_len() {
        return Err(DecryptError::Decryption);
    }
    Ok(cek)
}

/// What one side of a key agreement knows.
struct Agreed {
    secret: Zeroizing<Vec<u8>>,
    apu: Vec<u8>,
    apv: Vec<u8>,
}

impl Agreed {
    fn read(header: &Map<String, Value>, curve: Curve, key: &PrivateKey) -> Result<Self, DecryptError> {
        let epk = header.get("epk").ok_or(DecryptError::Header)?;
        let epk: Jwk = serde_json::from_value(epk.clone()).map_err(|_| DecryptError::Header)?;
        let party = |name| match header.get(name) {
            None => Ok(Vec::new()),
            Some(value) => value
                .as_str()
                .filter(|text| text.len() <= PARTY_INFO_MAX)
                .and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok())
                .ok_or(DecryptError::Header),
        };
        let (apu, apv) = (party("apu")?, party("apv")?);
        match epk.key.kind() {
            Kind::Ec { curve: theirs, point } if *theirs == curve => {
                Ok(Self { secret: agree(curve, key, point).ok_or(DecryptError::Decryption)?, apu, apv })
            }
            _ => Err(DecryptError::Unsupported),
        }
    }

    fn derive(&self, id: &str, len: usize) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        concat_kdf(&self.secret, id, &self.apu, &self.apv, len).ok_or(DecryptError::Decryption)
    }
}

fn agree_new(key: &PublicKey, id: &str, len: usize) -> Result<(Zeroizing<Vec<u8>>, Epk), EncryptError> {
    let Kind::Ec { curve, point } = key.kind() else {
        return Err(EncryptError::Recipients);
    };
    let internal = |_| EncryptError::Internal;
    let private = PrivateKey::generate(curve.agreement()).map_err(internal)?;
    let public = private.compute_public_key().map_err(internal)?;
    let derived = agree(*curve, &private, point)
        .and_then(|secret| concat_kdf(&secret, id, &[], &[], len))
        .ok_or(EncryptError::Internal)?;
    Ok((derived, Epk::new(*curve, public.as_ref())))
}

fn agree(curve: Curve, private: &PrivateKey, point: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let peer = UnparsedPublicKey::new(curve.agreement(), point);
    agreement::agree(private, peer, (), |secret| Ok(Zeroizing::new(secret.to_vec()))).ok()
}

/// One round of the Concat KDF with SHA-256 (RFC 7518 §4.6.2), hence at most 32 bytes.
fn concat_kdf(secret: &[u8], id: &str, apu: &[u8], apv: &[u8], len: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&1_u32.to_be_bytes());
    hash.update(secret);
    for part in [id.as_bytes(), apu, apv] {
        hash.update(&u32::try_from(part.len()).ok()?.to_be_bytes());
        hash.update(part);
    }
    hash.update(&u32::try_from(len * 8).ok()?.to_be_bytes());
    let key = hash.finish();
    key.as_ref().get(..len).map(|key| Zeroizing::new(key.to_vec()))
}

fn oaep(algorithm: Algorithm) -> &'static OaepAlgorithm {
    match algorithm {
        Algorithm::RsaOaep256 => &OAEP_SHA256_MGF1SHA256,
        _ => &OAEP_SHA1_MGF1SHA1,
    }
}

fn rsa_encrypt(
    algorithm: &'static OaepAlgorithm,
    modulus: &[u8],
    exponent: &[u8],
    cek: &[u8],
) -> Result<Vec<u8>, EncryptError> {
    let components = PublicKeyComponents { n: modulus, e: exponent };
    let key: PublicEncryptingKey = components.try_into().map_err(|_| EncryptError::Internal)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| EncryptError::Internal)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    let len = key.encrypt(algorithm, cek, &mut encrypted, None).map_err(|_| EncryptError::Internal)?.len();
    encrypted.truncate(len);
    Ok(encrypted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7518, appendix C: its ephemeral and static keys, `enc` A128GCM, apu Alice, apv Bob.
    #[test]
    fn key_agreement_gives_the_key_of_rfc_7518_appendix_c() {
        let d = BASE64_URL_SAFE_NO_PAD.decode("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo").unwrap();
        let alice = PrivateKey::from_private_key(Curve::P256.agreement(), &d).unwrap();
        let bob: Jwk = serde_json::from_str(
            r#"{"kty":"EC","crv":"P-256","x":"weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
                "y":"e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck"}"#,
        )
        .unwrap();
        let Kind::Ec { curve, point } = bob.key.kind() else { panic!("an EC key") };
        let secret = agree(*curve, &alice, point).unwrap();
        let key = concat_kdf(&secret, "A128GCM", b"Alice", b"Bob", 16).unwrap();
        assert_eq!(crate::jwk::base64url(&key), "VqqN6vgjbSBcIijNcacQGg");
    }
}
