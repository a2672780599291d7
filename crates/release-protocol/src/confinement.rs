//! To which directory a layer is confined. Stands as an annotation of the layer in the signed manifest, so that everybody
//! who signs it sees where the layers may put files that only others can read; the shim holds them to it.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// The annotation of a layer that names the directory.
pub const CONFINED_ANNOTATION: &str = "io.sealift.confined-to";

/// A directory of the image that a layer is confined to: absolute, not the root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Confinement(PathBuf);

/// Why a text names no such directory.
#[derive(Debug, thiserror::Error, Eq, PartialEq)]
#[error("a layer is confined to an absolute path below the root, without `.` and `..`")]
pub struct ParseConfinementError;

impl Confinement {
    /// The directory, relative to the root of the image.
    pub fn inner(&self) -> &Path {
        self.0.strip_prefix("/").unwrap_or(&self.0)
    }

    /// Whether one of the two directories is in the other, or is the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }
}

impl FromStr for Confinement {
    type Err = ParseConfinementError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = Path::new(text);
        let mut components = path.components();
        let is_below_root = components.next() == Some(Component::RootDir) && components.clone().next().is_some();
        let is_plain = components.all(|component| matches!(component, Component::Normal(_)));
        // Written in one way only: `//a/./b/` is another way to write `/a/b`.
        let is_normal = path.components().collect::<PathBuf>().as_os_str() == text;
        if is_below_root && is_plain && is_normal && !text.contains('\0') {
            Ok(Self(path.to_owned()))
        } else {
            Err(ParseConfinementError)
        }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_written_in_one_way_and_is_not_the_root() {
        let directory: Confinement = "/partners/a".parse().unwrap();
        assert_eq!((directory.to_string().as_str(), directory.inner()), ("/partners/a", Path::new("partners/a")));
        for text in ["", "/", "partners/a", "/partners/a/", "//partners", "/partners/./a", "/partners/../a", "/a\0b"] {
            assert_eq!(text.parse::<Confinement>(), Err(ParseConfinementError), "{text}");
        }
    }

    #[test]
    fn directories_overlap_where_one_is_in_the_other() {
        let [a, inside, beside]: [Confinement; 3] = ["/p/a", "/p/a/x", "/p/ab"].map(|text| text.parse().unwrap());
        assert!(a.overlaps(&a) && a.overlaps(&inside) && inside.overlaps(&a));
        assert!(!a.overlaps(&beside) && !beside.overlaps(&a));
    }
}
