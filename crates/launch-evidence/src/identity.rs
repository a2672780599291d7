//! Fixed-size values of evidence that people compare and write down: measurements, chip ids, key digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a [`Measurement`], [`ChipId`], [`KeyDigest`], [`GuestId`] or [`InitDataDigest`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseHexError {
    /// Another number of characters.
    #[error("expected {expected} hexadecimal digits, found {found} characters")]
    Length {
        /// How many digits the value has.
        expected: usize,
        /// How many characters were given.
        found: usize,
    },
    /// A character outside `0-9a-f`.
    #[error("expected lower-case hexadecimal digits only")]
    Digit,
}

/// Defines a newtype over an array of bytes whose one spelling is lower-case hexadecimal.
macro_rules! hexadecimal {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseHexError;

            fn from_str(text: &str) -> Result<Self, ParseHexError> {
                let found = text.chars().count();
                if found != 2 * $len {
                    return Err(ParseHexError::Length { expected: 2 * $len, found });
                }
                if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(ParseHexError::Digit);
                }
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseHexError::Digit)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hexadecimal! {
    /// A launch measurement: SHA-384 over what was in the guest's memory at launch. 96 lower-case
    /// hexadecimal digits.
    Measurement, 48
}

hexadecimal! {
    /// The `CHIP_ID` of a report: unique to a processor, zero where the platform masks it. 128 lower-case
    /// hexadecimal digits.
    ChipId, 64
}

hexadecimal! {
    /// The SHA-384 of an ID key or author key as reports carry it. 96 lower-case hexadecimal digits.
    KeyDigest, 48
}

hexadecimal! {
    /// A `FAMILY_ID` or `IMAGE_ID` of an ID block, which the guest's owner chooses. 32 lower-case hexadecimal
    /// digits.
    GuestId, 16
}

hexadecimal! {
    /// The SHA-256 of the initialisation data of a launch, as `HOST_DATA` carries it. 64 lower-case hexadecimal digits.
    InitDataDigest, 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let text = "ab".repeat(48);
        assert_eq!(text.parse::<Measurement>().unwrap().to_string(), text);
        assert_eq!("AB".repeat(48).parse::<Measurement>(), Err(ParseHexError::Digit));
        assert_eq!("ab".parse::<Measurement>(), Err(ParseHexError::Length { expected: 96, found: 2 }));
        assert_eq!("é".repeat(48).parse::<Measurement>(), Err(ParseHexError::Length { expected: 96, found: 48 }));
        assert_eq!("é".repeat(96).parse::<Measurement>(), Err(ParseHexError::Digit));
    }

    #[test]
    fn json_is_the_text() {
        let chip = ChipId([7; 64]);
        let json = serde_json::to_string(&chip).unwrap();
        assert_eq!(json, format!("\"{chip}\""));
        assert_eq!(serde_json::from_str::<ChipId>(&json).unwrap(), chip);
        assert!(serde_json::from_str::<ChipId>("\"00\"").is_err());
    }
}
