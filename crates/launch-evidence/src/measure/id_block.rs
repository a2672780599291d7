//! The ID block, which a guest owner signs ahead of a launch, and the ID authentication information beside it, as
//! the firmware and QEMU take them. Reading keys from files or the environment is the caller's matter.
//!
//! All numbers are little-endian (AMD 56860, SNP firmware ABI, tables of `SNP_LAUNCH_FINISH`).
//!
//! | offset | bytes | ID block | offset | bytes | ID authentication information |
//! |---|---|---|---|---|---|
//! | 0x00 | 48 | launch digest | 0x000 | 4 | algorithm of the ID key: 1, P-384 with SHA-384 |
//! | 0x30 | 16 | family id | 0x004 | 4 | algorithm of the author key |
//! | 0x40 | 16 | image id | 0x040 | 0x200 | the ID key's signature over the ID block |
//! | 0x50 | 4 | version: 1 | 0x240 | 0x404 | the ID key |
//! | 0x54 | 4 | guest SVN | 0x680 | 0x200 | the author key's signature over the ID key |
//! | 0x58 | 8 | policy | 0x880 | 0x404 | the author key |
//!
//! A key is the curve (4 bytes: 2, P-384) and its coordinates, a signature is `r` and `s`; each of these numbers is in
//! 72 bytes. What is not named is zero.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use sha2::{Digest as _, Sha384};
use zeroize::Zeroizing;

use crate::identity::{GuestId, KeyDigest, Measurement};

/// The version of the ID block.
const VERSION: u32 = 1;
/// ECDSA on P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
/// The curve P-384 in a key.
const P384: u32 = 2;
/// The bytes of a coordinate or a half of a signature on P-384.
const SCALAR: usize = 48;
/// The same, as it stands in a structure.
const SCALAR_FIELD: usize = 72;
/// A key and a signature.
const KEY: usize = 0x404;
const SIGNATURE: usize = 0x200;
/// Where things stand in the ID authentication information.
const AUTHOR_ALGORITHM_AT: usize = 0x004;
const BLOCK_SIGNATURE_AT: usize = 0x040;
const ID_KEY_AT: usize = 0x240;
const KEY_SIGNATURE_AT: usize = 0x680;
const AUTHOR_KEY_AT: usize = 0x880;
/// Bit 17 of a policy is one, bits 26 to 63 are zero.
const POLICY_ONE: u64 = 1 << 17;
const POLICY_RESERVED: u64 = !0 << 26;
/// The longest text of a key, in bytes.
const KEY_TEXT: usize = 64 * 1024;

/// Why a text is no key of a guest owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseOwnerKeyError {
    /// There is no PEM block of a private key in it, or a broken one.
    #[error("there is no `PRIVATE KEY` or `EC PRIVATE KEY` in PEM")]
    Pem,
    /// The key is encrypted with a passphrase.
    #[error("the key is encrypted with a passphrase")]
    Encrypted,
    /// A key of another kind or on another curve.
    #[error("it is no private key on P-384")]
    NotP384,
}

/// Why an ID block is not signed, or not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdBlockError {
    /// A policy that no firmware launches.
    #[error("the guest policy {bits:#x} must have bit 17 set and bits 26 to 63 clear")]
    Policy {
        /// The policy.
        bits: u64,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Sign,
    /// Another length, version, algorithm or curve, or a byte that has to be zero.
    #[error("the {what} is malformed")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// A signature that is not by the key beside it.
    #[error("the {what} does not verify")]
    Signature {
        /// Which.
        what: &'static str,
    },
}

/// A guest owner's private key on P-384: an ID key or an author key. Wiped by the cryptographic library when dropped;
/// never printed.
pub struct OwnerKey(EcdsaKeyPair);

impl OwnerKey {
    /// Reads a `PRIVATE KEY` (PKCS #8, RFC 5958) or an `EC PRIVATE KEY` (SEC 1, RFC 5915) in PEM. Text around it and
    /// OpenSSL's `EC PARAMETERS` are passed over.
    pub fn from_pem(text: &str) -> Result<Self, ParseOwnerKeyError> {
        if text.len() > KEY_TEXT {
            return Err(ParseOwnerKeyError::Pem);
        }
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(ParseOwnerKeyError::Encrypted);
        }
        let block = ["PRIVATE KEY", "EC PRIVATE KEY"].iter().find_map(|label| block(text, label));
        let block = block.ok_or(ParseOwnerKeyError::Pem)?;
        let (_, der) = der::pem::decode_vec(block.as_bytes()).map_err(|_| ParseOwnerKeyError::Pem)?;
        let der = Zeroizing::new(der);
        EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, &der)
            .map(Self)
            .map_err(|_| ParseOwnerKeyError::NotP384)
    }

    /// SHA-384 of the public key as the firmware lays it out: what reports say as `ID_KEY_DIGEST` or
    /// `AUTHOR_KEY_DIGEST`.
    pub fn digest(&self) -> KeyDigest {
        digest(&self.layout())
    }

    /// The public key as the firmware lays it out.
    fn layout(&self) -> [u8; KEY] {
        let mut key = [0; KEY];
        put(&mut key, 0, &P384.to_le_bytes());
        // 4, x, y (SEC 1, 2.3.3): big-endian.
        let coordinates = self.0.public_key().as_ref().get(1..).unwrap_or_default();
        for (half, at) in coordinates.chunks_exact(SCALAR).zip([4, 4 + SCALAR_FIELD]) {
            put_reversed(&mut key, at, half);
        }
        key
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE], IdBlockError> {
        let signed = self.0.sign(&SystemRandom::new(), message).map_err(|_| IdBlockError::Sign)?;
        let mut signature = [0; SIGNATURE];
        for (half, at) in signed.as_ref().chunks_exact(SCALAR).zip([0, SCALAR_FIELD]) {
            put_reversed(&mut signature, at, half);
        }
        Ok(signature)
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerKey([redacted], digest {})", self.digest())
    }
}

/// What a guest owner says ahead of a launch: with which digest and policy the guest may be launched, and what its
/// reports call it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdBlock {
    /// The digest that the launch must have.
    pub measurement: Measurement,
    /// `FAMILY_ID`, free to choose.
    pub family_id: GuestId,
    /// `IMAGE_ID`, free to choose.
    pub image_id: GuestId,
    /// `GUEST_SVN`, the security version: higher is newer.
    pub guest_svn: u32,
    /// The policy that the launch must have.
    pub policy: u64,
}

impl IdBlock {
    /// The length in bytes.
    pub const LEN: usize = 96;
    /// The policy that is usual: SMT allowed, the bit that is always one, nothing else.
    pub const DEFAULT_POLICY: u64 = 0x3_0000;

    /// Reads an ID block.
    ///
    /// # Errors
    /// [`IdBlockError::Malformed`] for another length or version, [`IdBlockError::Policy`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        const MALFORMED: IdBlockError = IdBlockError::Malformed { what: "ID block" };
        let bytes: &[u8; Self::LEN] = bytes.try_into().map_err(|_| MALFORMED)?;
        if number(bytes, 0x50) != Some(VERSION) {
            return Err(MALFORMED);
        }
        let block = Self {
            measurement: Measurement(array(bytes, 0x00).ok_or(MALFORMED)?),
            family_id: GuestId(array(bytes, 0x30).ok_or(MALFORMED)?),
            image_id: GuestId(array(bytes, 0x40).ok_or(MALFORMED)?),
            guest_svn: number(bytes, 0x54).ok_or(MALFORMED)?,
            policy: u64::from_le_bytes(array(bytes, 0x58).ok_or(MALFORMED)?),
        };
        block.check_policy().map(|()| block)
    }

    /// The block as firmware and QEMU (`id-block=`, in base64) take it.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        put(&mut bytes, 0x00, self.measurement.as_bytes());
        put(&mut bytes, 0x30, self.family_id.as_bytes());
        put(&mut bytes, 0x40, self.image_id.as_bytes());
        put(&mut bytes, 0x50, &VERSION.to_le_bytes());
        put(&mut bytes, 0x54, &self.guest_svn.to_le_bytes());
        put(&mut bytes, 0x58, &self.policy.to_le_bytes());
        bytes
    }

    /// Signs the block with the ID key, and the ID key with the author key where there is one.
    ///
    /// # Errors
    /// [`IdBlockError::Policy`] for a policy that no firmware launches, [`IdBlockError::Sign`].
    pub fn sign(&self, id_key: &OwnerKey, author_key: Option<&OwnerKey>) -> Result<IdAuthInfo, IdBlockError> {
        self.check_policy()?;
        let mut bytes = Box::new([0; IdAuthInfo::LEN]);
        let layout = id_key.layout();
        put(&mut *bytes, 0, &ECDSA_P384_SHA384.to_le_bytes());
        put(&mut *bytes, BLOCK_SIGNATURE_AT, &id_key.sign(&self.to_bytes())?);
        put(&mut *bytes, ID_KEY_AT, &layout);
        if let Some(author_key) = author_key {
            put(&mut *bytes, AUTHOR_ALGORITHM_AT, &ECDSA_P384_SHA384.to_le_bytes());
            put(&mut *bytes, KEY_SIGNATURE_AT, &author_key.sign(&layout)?);
            put(&mut *bytes, AUTHOR_KEY_AT, &author_key.layout());
        }
        Ok(IdAuthInfo(bytes))
    }

    fn check_policy(&self) -> Result<(), IdBlockError> {
        let holds = self.policy & POLICY_ONE != 0 && self.policy & POLICY_RESERVED == 0;
        if holds { Ok(()) } else { Err(IdBlockError::Policy { bits: self.policy }) }
    }
}

/// The ID authentication information: keys and signatures that make an ID block hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdAuthInfo(Box<[u8; Self::LEN]>);

impl IdAuthInfo {
    /// The length in bytes.
    pub const LEN: usize = 4096;

    /// Takes the bytes, which nothing has checked yet: see [`IdAuthInfo::verify`].
    ///
    /// # Errors
    /// [`IdBlockError::Malformed`] for another length.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        let bytes = Box::<[u8; Self::LEN]>::try_from(bytes.to_vec().into_boxed_slice());
        bytes.map(Self).map_err(|_| IdBlockError::Malformed { what: "ID authentication information" })
    }

    /// The bytes as firmware and QEMU (`id-auth=`, in base64) take them.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The digest of the ID key, as reports will carry it.
    pub fn id_key_digest(&self) -> KeyDigest {
        digest(self.part::<KEY>(ID_KEY_AT).as_slice())
    }

    /// The digest of the author key, where there is one.
    pub fn author_key_digest(&self) -> Option<KeyDigest> {
        self.has_author().then(|| digest(self.part::<KEY>(AUTHOR_KEY_AT).as_slice()))
    }

    /// Checks what the firmware checks at a launch: the signature over the block, and the author's over the ID key
    /// where there is one. Whose keys they are is for the caller to compare.
    ///
    /// # Errors
    /// [`IdBlockError::Malformed`], [`IdBlockError::Signature`].
    pub fn verify(&self, block: &IdBlock) -> Result<(), IdBlockError> {
        let algorithm = |at| u32::from_le_bytes(self.part(at));
        if algorithm(0) != ECDSA_P384_SHA384 {
            return Err(IdBlockError::Malformed { what: "algorithm of the ID key" });
        }
        let id_key = self.part::<KEY>(ID_KEY_AT);
        verify(&id_key, &block.to_bytes(), &self.part(BLOCK_SIGNATURE_AT), "signature over the ID block")?;
        if !self.has_author() {
            return Ok(());
        }
        if algorithm(AUTHOR_ALGORITHM_AT) != ECDSA_P384_SHA384 {
            return Err(IdBlockError::Malformed { what: "algorithm of the author key" });
        }
        verify(&self.part(AUTHOR_KEY_AT), &id_key, &self.part(KEY_SIGNATURE_AT), "signature over the ID key")
    }

    fn has_author(&self) -> bool {
        self.part::<KEY>(AUTHOR_KEY_AT).iter().any(|byte| *byte != 0)
    }

    /// Offsets are constants of this file, inside the structure.
    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        array(&*self.0, at).unwrap_or([0; N])
    }
}

fn verify(
    key: &[u8; KEY],
    message: &[u8],
    signature: &[u8; SIGNATURE],
    what: &'static str,
) -> Result<(), IdBlockError> {
    const MALFORMED: IdBlockError = IdBlockError::Malformed { what: "key" };
    if number(key, 0) != Some(P384) {
        return Err(MALFORMED);
    }
    let point = [vec![4], numbers(key.get(4..).unwrap_or_default()).ok_or(MALFORMED)?].concat();
    let signature = numbers(signature).ok_or(IdBlockError::Malformed { what })?;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(message, &signature)
        .map_err(|_| IdBlockError::Signature { what })
}

/// The two numbers of a key or signature, big-endian one after the other, if everything else is zero.
fn numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = bytes.split_at_checked(SCALAR_FIELD)?;
    let (second, rest) = rest.split_at_checked(SCALAR_FIELD)?;
    let mut numbers = Vec::with_capacity(2 * SCALAR);
    let mut is_zero = rest.iter().all(|byte| *byte == 0);
    for field in [first, second] {
        let (number, above) = field.split_at_checked(SCALAR)?;
        is_zero &= above.iter().all(|byte| *byte == 0);
        numbers.extend(number.iter().rev());
    }
    is_zero.then_some(numbers)
}

fn digest(key: &[u8]) -> KeyDigest {
    KeyDigest(Sha384::digest(key).into())
}

/// The PEM block of this label in `text`, boundaries included.
fn block<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let end = format!("-----END {label}-----");
    let (_, from) = text.split_at_checked(text.find(&format!("-----BEGIN {label}-----"))?)?;
    from.get(..from.find(&end)? + end.len())
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in to.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Puts a big-endian number as a little-endian one.
fn put_reversed(to: &mut [u8], at: usize, number: &[u8]) {
    for (to, from) in to.iter_mut().skip(at).zip(number.iter().rev()) {
        *to = *from;
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}
