//! SHA-256 digests in the OCI form `sha256:<64 lower-case hexadecimal digits>` (image-spec,
//! descriptor, "Digests").

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

/// A SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; Self::LEN]);

/// Why a text is no [`Digest`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a digest is written sha256: and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError;

impl Digest {
    /// The length, in bytes.
    pub const LEN: usize = 32;

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut value = [0; Self::LEN];
        value.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(value)
    }

    /// The raw digest.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let digits = text.strip_prefix(PREFIX).ok_or(ParseDigestError)?.as_bytes();
        if digits.len() != 2 * Self::LEN {
            return Err(ParseDigestError);
        }
        let mut value = [0; Self::LEN];
        for (byte, pair) in value.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let nibble = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(ParseDigestError),
                };
                *byte = *byte << 4 | nibble;
            }
        }
        Ok(Self(value))
    }
}

const PREFIX: &str = "sha256:";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_read() {
        let good = Digest::of(b"").to_string();
        assert_eq!(good, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for bad in [
            good.to_uppercase(),
            good.replace("sha256", "sha512"),
            format!("{good}0"),
            good.replace('e', "g"),
            good.replace("sha256:", ""),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(ParseDigestError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 32]) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }
    }
}
