//! What a master key is called. A name says which key it is, and never how it is reached: addresses, modules, PINs and tokens
//! stand in the settings or the environment of each service, so that whoever may only name a key cannot have the service
//! load code or send its token elsewhere.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::pkcs11_uri::Pkcs11Uri;

/// The name of a master key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum MasterKeyUri {
    /// `env://NAME`: a variable of the service's environment.
    Environment(String),
    /// `file:PATH`: a file of the service's machine.
    File(FileName),
    /// `pkcs11:…` (RFC 7512): an AES key of a token, which does not leave it.
    Pkcs11(Pkcs11Uri),
    /// `openbao://[MOUNT/]KEY` or `vault://[MOUNT/]KEY`: a key of a Transit secrets engine, which does not leave it.
    Transit(TransitKey),
}

/// Why a text names no master key.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MasterKeyUriError {
    /// Of no kind that is known.
    #[error(
        "a master key is named by `file:PATH`, `env://NAME`, `pkcs11:…`, `openbao://[MOUNT/]KEY` or `vault://[MOUNT/]KEY`"
    )]
    Kind,
    /// The name of a file is empty, or leads out of the home's folder.
    #[error("`file:` is followed by a path, absolute or below the home's folder `service`")]
    Path,
    /// Not the name of a variable.
    #[error("`env://` is followed by the name of a variable: letters, digits and `_`")]
    Variable,
    /// Not the name of a Transit key.
    #[error(
        "a Transit key is named by `{0}://[MOUNT/]KEY`, of letters, digits, `.`, `_` and `-`; the server's address stands in the \
         settings or in the environment"
    )]
    Transit(&'static str),
    /// A PKCS#11 URI that is malformed, or that names no key.
    #[error("{0}")]
    Pkcs11(String),
}

impl FromStr for MasterKeyUri {
    type Err = MasterKeyUriError;

    fn from_str(text: &str) -> Result<Self, MasterKeyUriError> {
        if text.starts_with('/') {
            return FileName::new(text).map(Self::File);
        }
        match text.split_once(':') {
            Some(("env", rest)) => variable(rest).map(Self::Environment),
            // RFC 8089: with an empty authority, or with none.
            Some(("file", rest)) => match rest.strip_prefix("//") {
                Some(path) if !path.starts_with('/') => Err(MasterKeyUriError::Path),
                path => FileName::new(path.unwrap_or(rest)).map(Self::File),
            },
            Some(("pkcs11", rest)) => Pkcs11Uri::parse(rest).map(Self::Pkcs11),
            Some(("openbao", rest)) => TransitKey::new(TransitKind::OpenBao, rest).map(Self::Transit),
            Some(("vault", rest)) => TransitKey::new(TransitKind::Vault, rest).map(Self::Transit),
            _ => Err(MasterKeyUriError::Kind),
        }
    }
}

impl TryFrom<String> for MasterKeyUri {
    type Error = MasterKeyUriError;

    fn try_from(text: String) -> Result<Self, MasterKeyUriError> {
        text.parse()
    }
}

impl From<MasterKeyUri> for String {
    fn from(uri: MasterKeyUri) -> Self {
        uri.to_string()
    }
}

impl fmt::Display for MasterKeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "env://{name}"),
            Self::File(name) => name.fmt(f),
            Self::Pkcs11(uri) => uri.fmt(f),
            Self::Transit(key) => key.fmt(f),
        }
    }
}

impl Default for MasterKeyUri {
    /// The file that a home has where nothing else is said.
    fn default() -> Self {
        Self::File(FileName(PathBuf::from("master.key")))
    }
}

impl MasterKeyUri {
    /// Whether it is a file below the home's folder: one of that name is in every home, and each is another key.
    pub fn is_in_home(&self) -> bool {
        matches!(self, Self::File(name) if name.is_homes())
    }
}

fn variable(rest: &str) -> Result<String, MasterKeyUriError> {
    let name = rest.strip_prefix("//").unwrap_or_default();
    let is_name =
        |(at, byte): (usize, u8)| byte == b'_' || byte.is_ascii_alphabetic() || at > 0 && byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().enumerate().all(is_name) {
        return Err(MasterKeyUriError::Variable);
    }
    Ok(name.to_owned())
}

/// The path of a file that holds a master key: absolute, or below the home's folder `service`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileName(PathBuf);

impl FileName {
    fn new(text: &str) -> Result<Self, MasterKeyUriError> {
        let path = Path::new(text);
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::RootDir);
        if text.is_empty()
            || text.ends_with('/')
            || text.starts_with("//")
            || text.chars().any(char::is_control)
            || !path.components().all(is_plain)
            // `a/./b` and `a//b` are other spellings of what has one.
            || path.components().collect::<PathBuf>().as_os_str() != path.as_os_str()
        {
            return Err(MasterKeyUriError::Path);
        }
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether it is below the home's folder, and the service's to make and to move.
    pub(crate) fn is_homes(&self) -> bool {
        self.0.is_relative()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.0.display())
    }
}

/// Whose Transit engine: which settings and variables say how it is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TransitKind {
    OpenBao,
    Vault,
}

impl TransitKind {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::OpenBao => "openbao",
            Self::Vault => "vault",
        }
    }
}

/// The name of a Transit key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransitKey {
    pub(crate) kind: TransitKind,
    /// Where the engine is mounted.
    pub(crate) mount: String,
    pub(crate) key: String,
}

impl TransitKey {
    /// Where Transit is mounted unless somebody chose another place.
    const MOUNT: &str = "transit";

    fn new(kind: TransitKind, rest: &str) -> Result<Self, MasterKeyUriError> {
        let malformed = MasterKeyUriError::Transit(kind.scheme());
        let Some(path) = rest.strip_prefix("//") else { return Err(malformed) };
        let is_part = |part: &str| {
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            !matches!(part, "" | "." | "..") && part.bytes().all(is_known)
        };
        if path.len() > 512 || !path.split('/').all(is_part) {
            return Err(malformed);
        }
        let (mount, key) = path.rsplit_once('/').unwrap_or((Self::MOUNT, path));
        Ok(Self { kind, mount: mount.to_owned(), key: key.to_owned() })
    }
}

impl fmt::Display for TransitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.kind.scheme(), self.mount, self.key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Result<String, MasterKeyUriError> {
        text.parse::<MasterKeyUri>().map(|uri| uri.to_string())
    }

    #[test]
    fn every_kind_of_name_has_one_spelling() {
        for (given, kept) in [
            ("file:master.key", "file:master.key"),
            ("file:/run/secrets/master.key", "file:/run/secrets/master.key"),
            ("file:///run/secrets/master.key", "file:/run/secrets/master.key"),
            ("/run/secrets/master.key", "file:/run/secrets/master.key"),
            ("env://MASTER_KEY", "env://MASTER_KEY"),
            ("openbao://sealift", "openbao://transit/sealift"),
            ("openbao://transit/sealift", "openbao://transit/sealift"),
            ("vault://team/transit/sealift", "vault://team/transit/sealift"),
            ("pkcs11:object=sealift;token=shop", "pkcs11:token=shop;object=sealift"),
        ] {
            assert_eq!(shown(given).as_deref(), Ok(kept));
            assert_eq!(shown(kept).as_deref(), Ok(kept));
        }
        assert_eq!(MasterKeyUri::default().to_string(), "file:master.key");
    }

    #[test]
    fn what_names_no_master_key_is_refused() {
        for (given, why) in [
            ("", MasterKeyUriError::Kind),
            ("master.key", MasterKeyUriError::Kind),
            ("-", MasterKeyUriError::Kind),
            ("https://bao.example/transit", MasterKeyUriError::Kind),
            ("file:", MasterKeyUriError::Path),
            ("file:../master.key", MasterKeyUriError::Path),
            ("file:/a/../b", MasterKeyUriError::Path),
            ("file:./a", MasterKeyUriError::Path),
            ("file://host/a", MasterKeyUriError::Path),
            ("file:a\nb", MasterKeyUriError::Path),
            ("env:NAME", MasterKeyUriError::Variable),
            ("env://1NAME", MasterKeyUriError::Variable),
            ("openbao:sealift", MasterKeyUriError::Transit("openbao")),
            ("openbao://bao.example:8200/transit/sealift", MasterKeyUriError::Transit("openbao")),
            ("vault://transit/../sys", MasterKeyUriError::Transit("vault")),
            ("vault://transit/", MasterKeyUriError::Transit("vault")),
        ] {
            assert_eq!(shown(given), Err(why), "{given}");
        }
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_parser_and_what_it_takes_it_shows_so_that_it_takes_it_again(
            text in "(file:|env://|pkcs11:|openbao://|vault://|)[ -~é]{0,40}"
        ) {
            if let Ok(uri) = text.parse::<MasterKeyUri>() {
                prop_assert_eq!(uri.to_string().parse::<MasterKeyUri>(), Ok(uri));
            }
        }
    }
}
