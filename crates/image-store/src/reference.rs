//! Image references: a transport and a place, as skopeo, podman and buildah write them.
//!
//! [containers-transports(5)]: <https://github.com/containers/image/blob/main/docs/containers-transports.5.md>

mod registry;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use self::registry::{RegistryReference, is_tag};
use crate::digest::{Digest, ParseDigestError};

/// Where an image is. [`fmt::Display`] writes what [`FromStr`] reads.
///
/// ```
/// use image_store::ImageReference;
///
/// let reference: ImageReference = "docker://registry.example:5000/team/app:v1".parse()?;
/// assert_eq!(reference.transport(), "docker");
/// assert_eq!(reference.tag(), Some("v1"));
/// # Ok::<(), image_store::ParseReferenceError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ImageReference {
    /// `docker://HOST[:PORT]/NAME[:TAG][@DIGEST]`: a registry.
    Docker(RegistryReference),
    /// `docker-archive:FILE[:NAME:TAG]`: a file that `docker save` wrote. Read only.
    DockerArchive {
        /// The tar file.
        file: PathBuf,
        /// `NAME:TAG` of one image in it.
        name: Option<String>,
    },
    /// `oci:DIR[:TAG]` or `oci:DIR@DIGEST`: an OCI layout directory.
    Oci {
        /// The directory.
        directory: PathBuf,
        /// The image in it.
        image: Selector,
    },
    /// `oci-archive:FILE[:TAG]` or `oci-archive:FILE@DIGEST`: an OCI layout in a tar file.
    OciArchive {
        /// The tar file.
        file: PathBuf,
        /// The image in it.
        image: Selector,
    },
}

/// Which image of a layout is meant.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Selector {
    /// The one with this digest.
    Digest(Digest),
    /// The only one.
    Only,
    /// The one with this tag.
    Tag(String),
}

impl ImageReference {
    /// The transport's name without its colon.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Docker(_) => "docker",
            Self::DockerArchive { .. } => "docker-archive",
            Self::Oci { .. } => "oci",
            Self::OciArchive { .. } => "oci-archive",
        }
    }

    /// The tag, if the reference has one. A registry reference without tag and digest means `latest`.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Docker(reference) => reference.tag(),
            Self::DockerArchive { name, .. } => name.as_deref(),
            Self::Oci { image, .. } | Self::OciArchive { image, .. } => match image {
                Selector::Tag(tag) => Some(tag),
                Selector::Digest(_) | Selector::Only => None,
            },
        }
    }

    /// The digest, if the reference has one.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Docker(reference) => reference.digest(),
            Self::DockerArchive { .. } => None,
            Self::Oci { image, .. } | Self::OciArchive { image, .. } => match image {
                Selector::Digest(digest) => Some(*digest),
                Selector::Only | Selector::Tag(_) => None,
            },
        }
    }

    /// The local file or directory, if the transport has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Docker(_) => None,
            Self::DockerArchive { file, .. } | Self::OciArchive { file, .. } => Some(file),
            Self::Oci { directory, .. } => Some(directory),
        }
    }

    /// The same place, pinned to a digest: what to print after a tag was resolved.
    ///
    /// A `docker-archive:` has no digests of its own and stays as it is.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        match self.clone() {
            Self::Docker(reference) => Self::Docker(reference.with_digest(digest)),
            archive @ Self::DockerArchive { .. } => archive,
            Self::Oci { directory, .. } => Self::Oci { directory, image: Selector::Digest(digest) },
            Self::OciArchive { file, .. } => Self::OciArchive { file, image: Selector::Digest(digest) },
        }
    }
}

impl FromStr for ImageReference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("docker://") {
            return rest.parse().map(Self::Docker);
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (file, name) = split_path(rest, "docker-archive")?;
            if let Some(name) = name
                && !is_ref_name(name)
            {
                return Err(ParseReferenceError::Tag { tag: name.to_owned() });
            }
            return Ok(Self::DockerArchive { file: file.into(), name: name.map(str::to_owned) });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (file, image) = split_selector(rest, "oci-archive")?;
            return Ok(Self::OciArchive { file, image });
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (directory, image) = split_selector(rest, "oci")?;
            return Ok(Self::Oci { directory, image });
        }
        Err(ParseReferenceError::Transport { text: text.to_owned() })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(reference) => write!(formatter, "docker://{reference}"),
            Self::DockerArchive { file, name: None } => write!(formatter, "docker-archive:{}", file.display()),
            Self::DockerArchive { file, name: Some(name) } => {
                write!(formatter, "docker-archive:{}:{name}", file.display())
            }
            Self::Oci { directory, image } => write!(formatter, "oci:{}{image}", directory.display()),
            Self::OciArchive { file, image } => write!(formatter, "oci-archive:{}{image}", file.display()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => write!(formatter, "@{digest}"),
            Self::Only => Ok(()),
            Self::Tag(tag) => write!(formatter, ":{tag}"),
        }
    }
}

/// Why a text is no [`ImageReference`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseReferenceError {
    /// What stands after `@` is no digest.
    #[error("the digest in the image reference is wrong")]
    Digest(#[from] ParseDigestError),
    /// The host is not a name or address with an optional port.
    #[error("`{host}` is not a registry host, write `HOST[:PORT]`")]
    Host {
        /// The text in the host's place.
        host: String,
    },
    /// No path after the transport.
    #[error("`{transport}:` wants a path after it")]
    Path {
        /// The transport.
        transport: &'static str,
    },
    /// The repository is outside the grammar of the distribution specification.
    #[error("`{name}` is not a repository name, which is lower-case letters, digits, `.`, `_`, `-` and `/`")]
    Repository {
        /// The text in the name's place.
        name: String,
    },
    /// The tag is outside the grammar.
    #[error("`{tag}` is not a tag, which is up to 128 letters, digits, `.`, `_` and `-`")]
    Tag {
        /// The text in the tag's place.
        tag: String,
    },
    /// No transport that this crate knows.
    #[error(
        "`{text}` names no transport, write `docker://HOST/NAME[:TAG]`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or \
         `docker-archive:FILE[:NAME:TAG]`"
    )]
    Transport {
        /// The whole text.
        text: String,
    },
}

/// Whether a text may be `org.opencontainers.image.ref.name`: wider than a tag, since whole names are put there too.
pub(crate) fn is_ref_name(text: &str) -> bool {
    text.len() <= 512
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:@/+".contains(&byte))
}

fn split_selector(text: &str, transport: &'static str) -> Result<(PathBuf, Selector), ParseReferenceError> {
    if let Some((path, digest)) = text.rsplit_once('@')
        && (digest.starts_with("sha256:") || digest.starts_with("sha512:"))
    {
        let (path, tag) = split_path(path, transport)?;
        return match tag {
            None => Ok((path.into(), Selector::Digest(digest.parse()?))),
            Some(tag) => Err(ParseReferenceError::Tag { tag: format!("{tag}@{digest}") }),
        };
    }
    match split_path(text, transport)? {
        (path, None) => Ok((path.into(), Selector::Only)),
        (path, Some(tag)) if is_ref_name(tag) => Ok((path.into(), Selector::Tag(tag.to_owned()))),
        (_, Some(tag)) => Err(ParseReferenceError::Tag { tag: tag.to_owned() }),
    }
}

/// Paths hold no colon, as in the other tools.
fn split_path<'a>(text: &'a str, transport: &'static str) -> Result<(&'a str, Option<&'a str>), ParseReferenceError> {
    let (path, rest) = match text.split_once(':') {
        Some((path, rest)) => (path, Some(rest)),
        None => (text, None),
    };
    if path.is_empty() || path.contains('\0') {
        return Err(ParseReferenceError::Path { transport });
    }
    Ok((path, rest))
}

#[cfg(test)]
mod tests;
