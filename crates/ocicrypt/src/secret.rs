//! The two symmetric keys and the nonce: fixed sizes, wiped on drop, never printed. Each lies in one place of the heap: a value
//! that is moved leaves its bytes behind where it was, and nobody wipes those.

use std::fmt;

use aws_lc_rs::rand;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize as _, Zeroizing};

/// The system's random generator failed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the random generator failed")]
pub struct RandomError;

/// A key has another length than it must have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a key of {expected} bytes was expected, this one has {found}")]
pub struct KeyLengthError {
    /// The length of such a key, in bytes.
    pub expected: usize,
    /// The length that was given, in bytes.
    pub found: usize,
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        pub struct $name(Box<Zeroizing<[u8; $len]>>);

        impl $name {
            /// The length, in bytes.
            pub const LEN: usize = $len;

            /// A new random one.
            pub fn generate() -> Result<Self, RandomError> {
                Self::try_init(|bytes| rand::fill(bytes).map_err(|_| RandomError))
            }

            /// Fills a new one in place, so that no copy is left on the stack.
            pub fn try_init<E>(
                fill: impl FnOnce(&mut [u8; $len]) -> Result<(), E>,
            ) -> Result<Self, E> {
                let mut bytes = Box::new(Zeroizing::new([0; $len]));
                fill(&mut bytes)?;
                Ok(Self(bytes))
            }

            /// The raw bytes. Every caller is a place to review: `grep expose`.
            pub fn expose(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = KeyLengthError;

            fn try_from(bytes: &[u8]) -> Result<Self, KeyLengthError> {
                Self::try_init(|key| {
                    if bytes.len() != key.len() {
                        return Err(KeyLengthError {
                            expected: key.len(),
                            found: bytes.len(),
                        });
                    }
                    key.copy_from_slice(bytes);
                    Ok(())
                })
            }
        }

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> Choice {
                self.0[..].ct_eq(&other.0[..])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

secret! {
    /// The AES-256 and HMAC key of one layer; the format has one key for both.
    LayerKey, 32
}

secret! {
    /// The AES-256 key that wraps the private options of an image's layers (KEK).
    KeyEncryptionKey, 32
}

secret! {
    /// The initial counter block of a layer's AES-CTR, big-endian. Not secret in itself, but a part
    /// of the private options, so it is treated as they are.
    Nonce, 16
}

/// Overwrites what functions that have returned left on the stack: key schedules that were moved on their way to the heap.
#[inline(never)]
pub(crate) fn scrub_stack() {
    let mut area = [0_u8; SCRUBBED_BYTES];
    area.zeroize();
    std::hint::black_box(&area);
}

/// Well above what setting up a cipher takes of the stack, in debug builds too; a thread has 2 MiB.
const SCRUBBED_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let bytes = [0xab; 32];
        let key = LayerKey::try_from(&bytes[..]).unwrap();
        let kek = KeyEncryptionKey::try_from(&bytes[..]).unwrap();
        let nonce = Nonce::try_from(&bytes[..16]).unwrap();
        let text = format!("{key:?} {key:#?} {kek:?} {kek:#?} {nonce:?} {nonce:#?}");
        for leak in ["171", "ab", "AB"] {
            assert!(!text.contains(leak), "{text}");
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        let error = LayerKey::try_from(&[0; 31][..]).unwrap_err();
        assert_eq!(error, KeyLengthError { expected: 32, found: 31 });
    }

    #[test]
    fn two_generated_keys_differ() {
        let (a, b) = (LayerKey::generate().unwrap(), LayerKey::generate().unwrap());
        assert!(!bool::from(a.ct_eq(&b)));
    }
}
