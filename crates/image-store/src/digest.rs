//! SHA-256 digests of blobs and manifests in the one spelling the OCI image specification registers for them.
//!
//! [OCI image-spec, descriptor, "Digests"]: <https://github.com/opencontainers/image-spec/blob/v1.1.0/descriptor.md#digests>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha256_lanes::{Lane, Sha256};

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
///
/// The specification also registers SHA-512; no tool here writes it, so it is refused with an error of its own.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; Self::LEN]);

impl Digest {
    /// Bytes of a SHA-256 hash.
    pub const LEN: usize = 32;

    /// Hashes bytes that are already in memory. For streams see [`Hasher`].
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest from the hash itself.
    pub const fn from_hash(hash: [u8; Self::LEN]) -> Self {
        Self(hash)
    }

    /// The hash itself.
    pub const fn hash(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The 64 hexadecimal digits without the algorithm: the file name of a blob in an OCI layout.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(2 * Self::LEN);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, encoded) = text.split_once(':').ok_or(ParseDigestError::Form)?;
        if algorithm != "sha256" {
            return Err(ParseDigestError::Algorithm { found: algorithm.chars().take(32).collect() });
        }
        if encoded.len() != 2 * Self::LEN {
            return Err(ParseDigestError::Length { found: encoded.len() });
        }
        let mut hash = [0; Self::LEN];
        for (byte, pair) in hash.iter_mut().zip(encoded.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(ParseDigestError::Form) };
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not a [`Digest`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDigestError {
    /// Another algorithm than SHA-256, such as `sha512`.
    #[error("digest algorithm `{found}` is not supported, only `sha256` is")]
    Algorithm {
        /// The algorithm named, cut to 32 characters.
        found: String,
    },
    /// A character outside `0-9a-f`.
    #[error("a sha256 digest is lower-case hexadecimal")]
    Character,
    /// No `:` between algorithm and hash.
    #[error("a digest is written `sha256:` and 64 hexadecimal digits")]
    Form,
    /// Not 64 digits.
    #[error("a sha256 digest has 64 hexadecimal digits, this has {found} characters")]
    Length {
        /// Characters found after `sha256:`.
        found: usize,
    },
}

/// SHA-256 over a stream.
///
/// Uses the processor's SHA extensions where it has them (about 1.5 GB/s on one core). Async callers feed it at most
/// [`Hasher::STEP`] bytes between two await points, which keeps each poll under 100 microseconds.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// The most bytes that an async task hashes in one poll.
    pub const STEP: usize = 128 * 1024;

    /// Adds bytes to the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The next bytes, to be hashed together with other streams: two or three take little longer than one.
    pub fn lane<'a>(&'a mut self, bytes: &'a [u8]) -> Lane<'a> {
        self.0.lane(bytes)
    }

    /// Bytes seen so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// The digest of all bytes seen.
    pub fn finish(self) -> Digest {
        Digest(self.0.finish())
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn nibble(character: u8) -> Result<u8, ParseDigestError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(ParseDigestError::Character),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// FIPS 180-4 example of the empty message.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_answer() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Hasher::default().finish(), Digest::of(b""));
    }

    #[test]
    fn upper_case_is_refused() {
        let text = EMPTY.replace("e3b0", "E3B0");
        assert_eq!(text.parse::<Digest>(), Err(ParseDigestError::Character));
    }

    #[test]
    fn sha512_is_refused_by_name() {
        let text = format!("sha512:{}", "0".repeat(128));
        assert_eq!(text.parse::<Digest>(), Err(ParseDigestError::Algorithm { found: "sha512".to_owned() }));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert_eq!("sha256:ab".parse::<Digest>(), Err(ParseDigestError::Length { found: 2 }));
        assert_eq!(format!("{EMPTY}0").parse::<Digest>(), Err(ParseDigestError::Length { found: 65 }));
        assert_eq!("e3b0".parse::<Digest>(), Err(ParseDigestError::Form));
    }

    proptest! {
        #[test]
        fn every_digest_survives_a_round_trip(hash: [u8; 32]) {
            let digest = Digest::from_hash(hash);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }

        #[test]
        fn what_parses_prints_the_same(text in "\\PC*|sha256:[0-9a-fA-F]{60,68}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
