//! Names that travel in paths: products and resources. Parsed once, strict ever after.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseNameError {
    /// Empty or longer than [`ProductName::MAX_LEN`].
    #[error("a name has 1 to {} characters, this has {found}", ProductName::MAX_LEN)]
    Length {
        /// Its length in bytes.
        found: usize,
    },
    /// A character outside `a-z 0-9 . _ -`, or a first one outside `a-z 0-9`.
    #[error("a name is made of a-z, 0-9, `.`, `_` and `-` and starts with a letter or digit")]
    Character,
}

/// The name of a product: `a-z 0-9 . _ -`, 1 to 63 characters, starting with a letter or digit.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"))]
#[serde(try_from = "String", into = "String")]
pub struct ProductName(String);

impl ProductName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProductName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_name(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ProductName {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProductName> for String {
    fn from(name: ProductName) -> Self {
        name.0
    }
}

impl fmt::Display for ProductName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_name(text: &str) -> Result<(), ParseNameError> {
    if text.is_empty() || text.len() > ProductName::MAX_LEN {
        return Err(ParseNameError::Length { found: text.len() });
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = text.bytes();
    if !bytes.next().is_some_and(allowed) || !bytes.all(|byte| allowed(byte) || b"._-".contains(&byte)) {
        return Err(ParseNameError::Character);
    }
    Ok(())
}

/// Why a text is not a resource path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResourcePathError {
    /// Not three parts.
    #[error("a resource path has three parts, `<product>/<type>/<tag>`")]
    Parts,
    /// One part is no name.
    #[error("a part of the resource path is no name")]
    Name(#[source] ParseNameError),
}

/// `<product>/<type>/<tag>` as the key broker protocol has it; image keys have the type `image-key`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ResourcePath {
    /// The product that the resource belongs to.
    pub product: ProductName,
    /// What kind of resource it is.
    pub kind: String,
    /// Which one.
    pub tag: String,
}

impl ResourcePath {
    /// The type of image keys.
    pub const IMAGE_KEY: &str = "image-key";

    /// The path of the image key `key_id` of `product`.
    pub fn image_key(product: ProductName, key_id: &str) -> Result<Self, ResourcePathError> {
        check_name(key_id).map_err(ResourcePathError::Name)?;
        Ok(Self { product, kind: Self::IMAGE_KEY.to_owned(), tag: key_id.to_owned() })
    }
}

impl FromStr for ResourcePath {
    type Err = ResourcePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        let (Some(product), Some(kind), Some(tag), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ResourcePathError::Parts);
        };
        let product = product.parse().map_err(ResourcePathError::Name)?;
        check_name(kind).map_err(ResourcePathError::Name)?;
        check_name(tag).map_err(ResourcePathError::Name)?;
        Ok(Self { product, kind: kind.to_owned(), tag: tag.to_owned() })
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.product, self.kind, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_could_leave_a_path_are_refused() {
        for text in ["", ".", "..", "-a", "a/b", "A", "a b", "a%2f", "é", &"a".repeat(64)] {
            assert!(text.parse::<ProductName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_resource_path_has_exactly_three_parts() {
        assert_eq!("p/image-key".parse::<ResourcePath>(), Err(ResourcePathError::Parts));
        assert_eq!("p/image-key/k/x".parse::<ResourcePath>(), Err(ResourcePathError::Parts));
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(text in "[a-z0-9._/-]{0,40}") {
            if let Ok(path) = text.parse::<ResourcePath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<ResourcePath>();
            let _ = text.parse::<ProductName>();
        }
    }
}
