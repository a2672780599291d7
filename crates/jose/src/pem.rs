//! PEM blocks (RFC 7468) as OpenSSL writes them: several blocks in one text, text around them.
//! The decoded bytes may be a private key and are wiped when dropped.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::jwk::KeyError;

/// The longest PEM text that is read, in bytes; an RSA key of 8192 bits takes some 6,500.
const TEXT_MAX: usize = 64 * 1024;

/// One `-----BEGIN label-----` block.
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Reads all blocks of `text`.
pub(crate) fn read(text: &str) -> Result<Vec<Block>, KeyError> {
    if text.len() > TEXT_MAX {
        return Err(KeyError::TooLong);
    }
    let mut blocks = Vec::new();
    let mut open: Option<(String, Zeroizing<String>)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = boundary(line, "-----BEGIN ") {
            if open.is_some() {
                return Err(KeyError::Pem);
            }
            // Grown once: a reallocation would leave a copy of a private key behind.
            let body = Zeroizing::new(String::with_capacity(text.len()));
            open = Some((label.to_owned(), body));
        } else if let Some(label) = boundary(line, "-----END ") {
            match open.take() {
                Some((opened, body)) if opened == label => {
                    let der = BASE64_STANDARD.decode(body.as_bytes()).map_err(|_| KeyError::Pem)?;
                    blocks.push(Block { label: opened, der: Zeroizing::new(der) });
                }
                _ => return Err(KeyError::Pem),
            }
        } else if let Some((_, body)) = &mut open {
            if line.starts_with("Proc-Type:") && line.ends_with("ENCRYPTED") {
                return Err(KeyError::Encrypted);
            }
            if !line.contains(':') {
                body.push_str(line);
            }
        }
    }
    if open.is_some() || blocks.is_empty() {
        return Err(KeyError::Pem);
    }
    Ok(blocks)
}

/// Writes one block, 64 characters a line.
pub(crate) fn write(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64_STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 64));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

fn boundary<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.strip_prefix(prefix)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_around_blocks_and_carriage_returns_are_read() {
        let text = "Bag Attributes\r\n-----BEGIN A-----\r\nAAEC\r\nAwQ=\r\n-----END A-----\r\n\n\
                    -----BEGIN B-----\nBQ==\n-----END B-----";
        let blocks = read(text).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].label.as_str(), blocks[0].der.as_slice()), ("A", &[0, 1, 2, 3, 4][..]));
        assert_eq!((blocks[1].label.as_str(), blocks[1].der.as_slice()), ("B", &[5][..]));
    }

    #[test]
    fn a_traditional_encrypted_key_is_named_as_such() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAAA\n\
                    -----END RSA PRIVATE KEY-----\n";
        assert!(matches!(read(text), Err(KeyError::Encrypted)));
    }

    #[test]
    fn unbalanced_blocks_are_rejected() {
        for text in [
            "",
            "AAAA",
            "-----BEGIN A-----\nAAAA\n",
            "-----BEGIN A-----\nAAAA\n-----END B-----\n",
            "-----END A-----\n",
            "-----BEGIN A-----\n-----BEGIN A-----\n-----END A-----\n",
            "-----BEGIN A-----\nA\n-----END A-----\n",
        ] {
            assert!(matches!(read(text), Err(KeyError::Pem)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(der in proptest::collection::vec(any::<u8>(), 0..300)) {
            let blocks = read(&write("KEY", &der)).unwrap();
            prop_assert_eq!(blocks.len(), 1);
            prop_assert_eq!(blocks[0].der.as_slice(), der.as_slice());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(-----(BEGIN|END) [AB]-----|[A=:\n ]){0,40}") {
            let _ = read(&text);
        }
    }
}
