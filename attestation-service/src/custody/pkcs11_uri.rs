//! PKCS#11 URIs ([RFC 7512](https://www.rfc-editor.org/rfc/rfc7512)), as far as they name a key.

use std::fmt;
use std::fmt::Write as _;

use super::uri::MasterKeyUriError;

/// Which key of which token.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pkcs11Uri {
    pub(crate) token: Option<String>,
    pub(crate) manufacturer: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) serial: Option<String>,
    /// `CKA_LABEL`.
    pub(crate) object: Option<String>,
    /// `CKA_ID`.
    pub(crate) id: Option<Vec<u8>>,
}

impl Pkcs11Uri {
    /// Whether both may name one key: nothing that both say is said differently.
    pub(super) fn may_name_what(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<&T>, two: Option<&T>) -> bool {
            one.zip(two).is_none_or(|(one, two)| one == two)
        }
        let texts = |uri: &Self| {
            let Self { token, manufacturer, model, serial, object, id: _ } = uri.clone();
            [token, manufacturer, model, serial, object]
        };
        texts(self).iter().zip(&texts(other)).all(|(one, two)| agree(one.as_ref(), two.as_ref()))
            && agree(self.id.as_ref(), other.id.as_ref())
    }

    /// Reads what comes after `pkcs11:`.
    pub(super) fn parse(text: &str) -> Result<Self, MasterKeyUriError> {
        if let Some((_, query)) = text.split_once('?') {
            let name = query.split(['=', '&']).next().unwrap_or_default();
            return Err(malformed(format!(
                "`{name}` says how the token is reached, not which key it is: set `module` and `pin` in \
                 `[service.custody.pkcs11]`, or SEALIFT_PKCS11_MODULE and SEALIFT_PKCS11_PIN"
            )));
        }
        let mut uri = Self::default();
        let mut is_typed = false;
        for attribute in text.split(';') {
            let Some((name, value)) = attribute.split_once('=') else {
                return Err(malformed(format!("`{attribute}` is no attribute `NAME=VALUE` of a PKCS#11 URI")));
            };
            let bytes = decode(value).ok_or_else(|| malformed(format!("the value of `{name}` is malformed")))?;
            let is_first = match name {
                "id" => uri.id.replace(bytes).is_none(),
                "type" if value == "secret-key" => !std::mem::replace(&mut is_typed, true),
                "type" => return Err(malformed("a master key is of the type `secret-key`".to_owned())),
                _ => {
                    let place = uri.text(name).ok_or_else(|| {
                        malformed(format!("the attribute `{name}` of a PKCS#11 URI is not supported here"))
                    })?;
                    let text = String::from_utf8(bytes).map_err(|_| malformed(format!("`{name}` is not UTF-8")))?;
                    place.replace(text).is_none()
                }
            };
            if !is_first {
                return Err(malformed(format!("`{name}` is there twice")));
            }
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err(malformed("a PKCS#11 URI names a key by `object=` or `id=`".to_owned()));
        }
        Ok(uri)
    }

    fn text(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "token" => Some(&mut self.token),
            "manufacturer" => Some(&mut self.manufacturer),
            "model" => Some(&mut self.model),
            "serial" => Some(&mut self.serial),
            "object" => Some(&mut self.object),
            _ => None,
        }
    }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
            ("object", &self.object),
        ];
        let mut shown = String::from("pkcs11:");
        for (name, value) in texts {
            if let Some(value) = value {
                write!(shown, "{name}={};", encode(value.as_bytes(), is_plain))?;
            }
        }
        match &self.id {
            // As a matter of form, every byte of an identifier is written so.
            Some(id) => write!(shown, "id={}", encode(id, |_| false))?,
            None => drop(shown.pop()),
        }
        f.write_str(&shown)
    }
}

fn malformed(why: String) -> MasterKeyUriError {
    MasterKeyUriError::Pkcs11(why)
}

/// `pk11-pchar` of RFC 7512, section 2.3, without what stands for itself in no other place.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=&".contains(&byte)
}

fn encode(bytes: &[u8], is_plain: impl Fn(u8) -> bool) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if is_plain(*byte) {
            text.push(char::from(*byte));
        } else {
            // A string takes everything.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = after;
            }
            (byte, _) if is_plain(*byte) => bytes.push(*byte),
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uri_names_token_and_key() {
        let uri = Pkcs11Uri::parse("token=The%20Software%20PKCS%2311;type=secret-key;object=master;id=%01%ff").unwrap();
        assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11"));
        assert_eq!((uri.object.as_deref(), uri.id.as_deref()), (Some("master"), Some(&[1, 255][..])));
        assert_eq!(uri.to_string(), "pkcs11:token=The%20Software%20PKCS%2311;object=master;id=%01%FF");
    }

    #[test]
    fn what_names_no_key_or_says_more_is_refused_with_the_reason() {
        for (given, why) in [
            ("", "no attribute"),
            ("token=shop", "names a key by"),
            ("object=a;object=b", "twice"),
            ("object=a;type=secret-key;type=secret-key", "twice"),
            ("object=a;type=private", "secret-key"),
            ("object=a;slot-id=1", "`slot-id` of a PKCS#11 URI is not supported"),
            ("object=%4", "malformed"),
            ("object=%g0", "malformed"),
            ("object=a b", "malformed"),
            ("object=%ff", "not UTF-8"),
            ("object=a?pin-value=1234", "`pin-value` says how"),
            ("object=a?module-path=/tmp/evil.so", "SEALIFT_PKCS11_MODULE"),
        ] {
            let MasterKeyUriError::Pkcs11(said) = Pkcs11Uri::parse(given).unwrap_err() else { panic!("{given}") };
            assert!(said.contains(why), "{given}: {said}");
            assert!(!said.contains("1234"), "{said}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(
            token in of(any::<String>()), serial in of(any::<String>()), object in any::<String>(), id in of(vec(any::<u8>(), 0..9))
        ) {
            let uri = Pkcs11Uri { token, serial, object: Some(object), id, ..Pkcs11Uri::default() };
            let shown = uri.to_string();
            prop_assert!(shown.is_ascii());
            prop_assert_eq!(Pkcs11Uri::parse(shown.strip_prefix("pkcs11:").unwrap()), Ok(uri));
        }
    }
}
