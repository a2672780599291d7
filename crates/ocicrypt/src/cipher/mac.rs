//! HMAC-SHA-256 over a layer's ciphertext, on streams that are hashed together with others.

use std::fmt;

use sha256_lanes::{Lane, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CipherError;
use crate::secret::{LayerKey, scrub_stack};

/// An HMAC-SHA-256 over a layer's ciphertext, from its public options. It is public, but an
/// attacker who is told the right one for a forged layer has won, so it is not printed either.
#[derive(Clone, Copy)]
pub struct Mac([u8; Self::LEN]);

impl Mac {
    /// The length, in bytes.
    pub const LEN: usize = 32;

    /// A MAC as read from the options.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, to be written into the options.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl ConstantTimeEq for Mac {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac([redacted])")
    }
}

/// HMAC-SHA-256 ([RFC 2104]) over a stream, keyed with a layer key.
///
/// [RFC 2104]: https://www.rfc-editor.org/rfc/rfc2104#section-2
pub struct HmacStream {
    inner: Sha256,
    outer: Sha256,
}

impl HmacStream {
    /// Starts over a new stream.
    pub fn new(key: &LayerKey) -> Self {
        let stream = Self { inner: keyed(key, INNER_PAD), outer: keyed(key, OUTER_PAD) };
        scrub_stack();
        stream
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// The next bytes, to be hashed together with other streams.
    pub fn lane<'a>(&'a mut self, bytes: &'a [u8]) -> Lane<'a> {
        self.inner.lane(bytes)
    }

    /// The MAC of all bytes so far.
    pub fn finish(self) -> Mac {
        let Self { inner, mut outer } = self;
        outer.update(&inner.finish());
        Mac(outer.finish())
    }

    /// Compares the MAC of all bytes with `expected`, in constant time.
    ///
    /// # Errors
    /// [`CipherError::Authentication`].
    pub fn verify(self, expected: &Mac) -> Result<(), CipherError> {
        if bool::from(self.finish().ct_eq(expected)) { Ok(()) } else { Err(CipherError::Authentication) }
    }
}

impl fmt::Debug for HmacStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacStream([redacted])")
    }
}

/// A stream that began with a block of the key. What is left of the block is wiped.
#[inline(never)]
fn keyed(key: &LayerKey, pad: u8) -> Sha256 {
    let mut block = Zeroizing::new([pad; Sha256::BLOCK]);
    for (byte, key) in block.iter_mut().zip(key.expose()) {
        *byte ^= key;
    }
    let mut stream = Sha256::new();
    stream.update(&block[..]);
    stream
}

const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;
