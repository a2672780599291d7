//! Key ids: addresses of keys at a key broker, `kbs://HOST[:PORT]/<product>/image-key/<id>`.

use std::fmt;
use std::str::FromStr;

/// The address of a key at a key broker (Confidential Containers' resource URI), in the one
/// spelling that is accepted: `kbs://`, a host with an optional port or nothing, and three path
/// parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kid {
    text: String,
    /// Where the authority ends and the path begins in `text`.
    path_start: usize,
}

/// Why a text is no [`Kid`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseKidError {
    /// The host or the port is none.
    #[error("a key id has a host with an optional port, or nothing, after kbs://")]
    Host,
    /// More than 1024 bytes.
    #[error("a key id has 1024 bytes at most")]
    Length,
    /// Not exactly three parts, or a part with other characters than letters, digits and `._-`,
    /// or one that begins with a dot.
    #[error("a key id has three parts of letters, digits and ._- after its host")]
    Path,
    /// Another scheme.
    #[error("a key id begins with kbs://")]
    Scheme,
}

impl Kid {
    /// Puts a key id together. `authority` is `HOST[:PORT]`, or empty for whatever broker the
    /// guest is set up with.
    pub fn new(authority: &str, path: [&str; 3]) -> Result<Self, ParseKidError> {
        let [repository, kind, tag] = path;
        format!("{SCHEME}{authority}/{repository}/{kind}/{tag}").parse()
    }

    /// `HOST[:PORT]`, or nothing.
    pub fn authority(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_start).unwrap_or_default()
    }

    /// The path without its first slash: `product/image-key/id`.
    pub fn path(&self) -> &str {
        self.text.get(self.path_start + 1..).unwrap_or_default()
    }

    /// The three parts of the path: product, kind, id.
    pub fn parts(&self) -> [&str; 3] {
        let mut parts = self.path().split('/');
        [(); 3].map(|()| parts.next().unwrap_or_default())
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Kid {
    type Err = ParseKidError;

    fn from_str(text: &str) -> Result<Self, ParseKidError> {
        if text.len() > LENGTH_MAX {
            return Err(ParseKidError::Length);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(ParseKidError::Scheme)?;
        let (authority, path) = rest.split_once('/').ok_or(ParseKidError::Path)?;
        if !is_authority(authority) {
            return Err(ParseKidError::Host);
        }
        if path.split('/').count() != 3 || !path.split('/').all(is_part) {
            return Err(ParseKidError::Path);
        }
        Ok(Self { text: text.to_owned(), path_start: SCHEME.len() + authority.len() })
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Nothing, a name or IPv4 address, or an IPv6 address in brackets; then perhaps a port.
fn is_authority(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if rest.is_empty() => (None, None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let host_ok = host.is_none_or(|host| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        host.bytes().all(inner) && host.starts_with(|first: char| first.is_ascii_alphanumeric())
    });
    let port_ok = port
        .is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n != 0));
    host_ok && port_ok
}

fn is_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
}

const SCHEME: &str = "kbs://";
const LENGTH_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_port_and_parts_are_told_apart() {
        for (text, authority) in [
            ("kbs://keys.vendor.example:8443/shop/image-key/7f", "keys.vendor.example:8443"),
            ("kbs://127.0.0.1/shop/image-key/7f", "127.0.0.1"),
            ("kbs://[::1]:8080/shop/image-key/7f", "[::1]:8080"),
            ("kbs:///shop/image-key/7f", ""),
        ] {
            let kid: Kid = text.parse().unwrap();
            assert_eq!(kid.authority(), authority);
            assert_eq!(kid.path(), "shop/image-key/7f");
            assert_eq!(kid.parts(), ["shop", "image-key", "7f"]);
            assert_eq!(Kid::new(authority, kid.parts()), Ok(kid.clone()));
            assert_eq!(kid.to_string(), text);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for (text, error) in [
            ("https://a/b/c/d", ParseKidError::Scheme),
            ("KBS://a/b/c/d", ParseKidError::Scheme),
            ("kbs+pkcs11:///b/c/d", ParseKidError::Scheme),
            ("/b/c/d", ParseKidError::Scheme),
            ("kbs://a", ParseKidError::Path),
            ("kbs://a/b/c", ParseKidError::Path),
            ("kbs://a/b/c/d/e", ParseKidError::Path),
            ("kbs://a/b//d", ParseKidError::Path),
            ("kbs://a/../c/d", ParseKidError::Path),
            ("kbs://a/b/c/d?x=1", ParseKidError::Path),
            ("kbs://a/b/c/%41", ParseKidError::Path),
            ("kbs://a/b/c/d\"", ParseKidError::Path),
            ("kbs://user@a/b/c/d", ParseKidError::Host),
            ("kbs://a:/b/c/d", ParseKidError::Host),
            ("kbs://a:0/b/c/d", ParseKidError::Host),
            ("kbs://a:+1/b/c/d", ParseKidError::Host),
            ("kbs://a:65536/b/c/d", ParseKidError::Host),
            ("kbs://:80/b/c/d", ParseKidError::Host),
            ("kbs://[::1/b/c/d", ParseKidError::Host),
            ("kbs://[::1]80/b/c/d", ParseKidError::Host),
        ] {
            assert_eq!(text.parse::<Kid>(), Err(error), "{text}");
        }
        let long = format!("kbs:///a/b/{}", "c".repeat(1024));
        assert_eq!(long.parse::<Kid>(), Err(ParseKidError::Length));
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_it_is_or_refused(text in "kbs://[a-c:/.\\[\\]0-9é]{0,24}") {
            if let Ok(kid) = text.parse::<Kid>() {
                prop_assert_eq!(Kid::new(kid.authority(), kid.parts()), Ok(kid));
            }
        }
    }
}
