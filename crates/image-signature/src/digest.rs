//! Digests of blobs, `sha256:` and 64 lower-case hexadecimal digits, and the tag made from one.

use aws_lc_rs::digest::{SHA256, digest};

/// A text is no SHA-256 digest in its one spelling.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{found}` is not sha256: and 64 lower-case hexadecimal digits")]
pub struct DigestError {
    /// What was found, cut to 128 characters.
    pub found: String,
}

/// The tag at which the signature of a manifest is kept: `sha256-<hex>.sig`.
pub fn signature_tag(manifest_digest: &str) -> Result<String, DigestError> {
    Ok(format!("sha256-{}.sig", hex_part(manifest_digest)?))
}

/// The digest of `bytes`.
pub(crate) fn of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(PREFIX.len() + HEX_LEN);
    text.push_str(PREFIX);
    for byte in digest(&SHA256, bytes).as_ref() {
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or_default());
        }
    }
    text
}

/// The digits of a digest.
pub(crate) fn hex_part(text: &str) -> Result<&str, DigestError> {
    text.strip_prefix(PREFIX)
        .filter(|hex| hex.len() == HEX_LEN)
        .filter(|hex| hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or_else(|| DigestError { found: text.chars().take(128).collect() })
}

const PREFIX: &str = "sha256:";
const HEX_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_made_of_the_digest() {
        let empty = of(b"");
        assert_eq!(empty, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            signature_tag(&empty).unwrap(),
            "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.sig"
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = of(b"");
        for bad in [
            good.to_uppercase(),
            good.replace("sha256:", ""),
            good.replace("sha256", "sha512"),
            format!("{good}0"),
            good.replace("e3", "../"),
        ] {
            assert!(signature_tag(&bad).is_err(), "{bad}");
        }
    }
}
