//! What is sealed in this process: AES-256-GCM under keys that are derived, one a purpose.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::CustodyError;

/// A key that this process holds. Wiped on drop, never printed.
pub struct HeldKey(Zeroizing<[u8; Self::LEN]>);

impl HeldKey {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// A fresh random key.
    pub fn generate() -> Result<Self, CustodyError> {
        let mut key = Zeroizing::new([0; Self::LEN]);
        rand::fill(key.as_mut_slice()).map_err(|_| CustodyError::Library)?;
        Ok(Self(key))
    }

    /// The key of these bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, CustodyError> {
        Ok(Self(Zeroizing::new(bytes.try_into().map_err(|_| CustodyError::Malformed)?)))
    }

    /// Reads the form that [`Self::to_text`] writes.
    pub fn from_text(text: &str) -> Result<Self, CustodyError> {
        Self::from_bytes(&Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| CustodyError::Malformed)?))
    }

    /// The base64 of the key, for its file.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// The raw key, to be sealed under another one.
    pub(crate) fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// A sealing key for one purpose, derived by HKDF-SHA256 (RFC 5869) with the purpose as `info`.
    pub fn sealer(&self, purpose: &'static str) -> Result<Sealer, CustodyError> {
        let mut derived = Zeroizing::new([0; Self::LEN]);
        Salt::new(HKDF_SHA256, b"sealift")
            .extract(self.0.as_slice())
            .expand(&[purpose.as_bytes()], DerivedLen)
            .and_then(|okm| okm.fill(derived.as_mut_slice()))
            .map_err(|_| CustodyError::Library)?;
        let key = UnboundKey::new(&AES_256_GCM, derived.as_slice()).map_err(|_| CustodyError::Library)?;
        Ok(Sealer(LessSafeKey::new(key)))
    }
}

impl fmt::Debug for HeldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldKey([redacted])")
    }
}

struct DerivedLen;

impl KeyType for DerivedLen {
    fn len(&self) -> usize {
        HeldKey::LEN
    }
}

/// Seals and opens small secrets with AES-256-GCM: 12-byte IV, ciphertext, 16-byte tag.
pub struct Sealer(LessSafeKey);

impl Sealer {
    /// Seals `plain`; `context` must be the same on opening.
    pub fn seal(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, CustodyError> {
        let mut iv = [0; NONCE_LEN];
        rand::fill(&mut iv).map_err(|_| CustodyError::Library)?;
        let mut body = plain.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), Aad::from(context), &mut body)
            .map_err(|_| CustodyError::Library)?;
        Ok([iv.as_slice(), &body].concat())
    }

    /// Opens what [`Self::seal`] made with the same `context`.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let (iv, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(CustodyError::Open)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain_len = self
            .0
            .open_in_place(Nonce::assume_unique_for_key(*iv), Aad::from(context), &mut body)
            .map_err(|_| CustodyError::Open)?
            .len();
        body.truncate(plain_len);
        Ok(body)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_in_its_context_and_under_its_key() {
        let key = HeldKey::generate().unwrap();
        let sealer = key.sealer("test").unwrap();
        let wrapped = sealer.seal(b"secret", b"key-1").unwrap();
        assert_eq!(sealer.open(&wrapped, b"key-1").unwrap().as_slice(), b"secret");
        assert!(sealer.open(&wrapped, b"key-2").is_err());
        assert!(key.sealer("other").unwrap().open(&wrapped, b"key-1").is_err());
        assert!(HeldKey::generate().unwrap().sealer("test").unwrap().open(&wrapped, b"key-1").is_err());
    }

    #[test]
    fn a_held_key_is_never_printed() {
        let key = HeldKey::generate().unwrap();
        let printed = format!("{key:?} {key:#?}");
        assert!(!printed.contains(key.to_text().as_str()) && printed.contains("[redacted]"));
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_secret_is_refused() {
        let sealer = HeldKey::generate().unwrap().sealer("test").unwrap();
        let wrapped = sealer.seal(b"secret", b"").unwrap();
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(matches!(sealer.open(&changed, b""), Err(CustodyError::Open)), "byte {at}");
        }
    }
}
