//! What can go wrong with an image store, told apart by who has to act.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::reference::ParseReferenceError;

/// A failure of an image store. [`Error::kind`] sorts the variants for exit codes and retries.
///
/// Messages never hold credentials, nor query strings of URLs (which may carry signatures of storage services).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A blob or manifest is not what its descriptor says, or cannot be read as what it claims to be.
    #[error("{object} in `{store}` is corrupt")]
    Corrupt {
        /// What was read, as `blob sha256:…` or `manifest sha256:…`.
        object: Box<str>,
        /// The reference of the store.
        store: Box<str>,
        /// What is wrong with it.
        #[source]
        source: Corruption,
    },
    /// The registry wants other credentials, or none suffice (401, 403).
    #[error("`{store}` denied the request to {action} (HTTP {status}{})", remark(detail))]
    Denied {
        /// The registry and repository.
        store: String,
        /// What was tried, as `read blob sha256:…`.
        action: String,
        /// 401 or 403, or the status of the token service.
        status: u16,
        /// The registry's own words, cut and freed of control characters; may be empty.
        detail: String,
    },
    /// The local file system failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as `read` or `create`.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store does not have it (404, no such file).
    #[error("`{store}` has no {object}")]
    NotFound {
        /// What was looked for, as `tag v1` or `blob sha256:…`.
        object: String,
        /// The reference of the store.
        store: String,
    },
    /// The text is no image reference.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The registry answered with a status that fits neither success nor another variant (a refused manifest, say).
    #[error("`{store}` refused to {action} (HTTP {status}{})", remark(detail))]
    Refused {
        /// The registry and repository.
        store: String,
        /// What was tried.
        action: String,
        /// The status.
        status: u16,
        /// The registry's own words, cut and freed of control characters; may be empty.
        detail: String,
    },
    /// No usable answer: network failure, 5xx, 429, after all retries. Worth another try later.
    #[error("`{store}` is unavailable: cannot {action}")]
    Unavailable {
        /// The registry and repository.
        store: String,
        /// What was tried.
        action: String,
        /// The last failure.
        #[source]
        source: Unavailability,
    },
    /// The request cannot be served as it was put.
    #[error(transparent)]
    Usage(#[from] UsageError),
}

/// What is wrong with bytes that came from a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// An archive is not laid out as its transport says.
    #[error("{problem}")]
    Archive {
        /// What is wrong.
        problem: String,
    },
    /// The bytes hash to something else.
    #[error("its digest is {found}, not {wanted}")]
    Digest {
        /// The digest of what was read.
        found: Digest,
        /// The digest asked for.
        wanted: Digest,
    },
    /// The manifest, index or layout file cannot be read.
    #[error("it cannot be read")]
    Manifest(#[from] ManifestError),
    /// The registry broke the distribution protocol.
    #[error("the registry broke the protocol: {problem}")]
    Protocol {
        /// How.
        problem: String,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("it has {found} bytes, not {wanted}")]
    Size {
        /// Bytes found; a lower bound where reading stopped at the first byte too many.
        found: u64,
        /// Bytes announced by the descriptor.
        wanted: u64,
    },
}

/// Why there was no usable answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailability {
    /// The connection failed or broke.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The registry said that it cannot now (5xx, 429).
    #[error("it answered HTTP {status}")]
    Status {
        /// The status of the last answer.
        status: u16,
    },
    /// Nothing moved for the time that [`crate::StoreOptions::idle_timeout`] allows.
    #[error("nothing moved for {seconds} s")]
    Timeout {
        /// Seconds waited.
        seconds: u64,
    },
}

/// A request that cannot be served as it was put.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// Neither tag nor digest, and the store holds several images.
    #[error("`{store}` holds several images, name one: {}", tags.join(", "))]
    Ambiguous {
        /// The reference of the store.
        store: String,
        /// The tags to choose from.
        tags: Vec<String>,
    },
    /// An auth file or credential helper cannot be used.
    #[error("cannot use the credentials in `{}`: {problem}", path.display())]
    Credentials {
        /// The auth file.
        path: PathBuf,
        /// What is wrong, without any secret.
        problem: String,
    },
    /// A root certificate cannot be used.
    #[error("extra root certificate {number} cannot be used")]
    Certificate {
        /// Its place in the options, from 1.
        number: usize,
    },
    /// A manifest names blobs that are not there yet.
    #[error("`{store}` lacks {missing}, which the manifest names: write it first")]
    Incomplete {
        /// The reference of the store.
        store: String,
        /// The digest that is missing.
        missing: Digest,
    },
    /// The reference to write to has a digest, and what is written has another.
    #[error("`{store}` names a digest, but what is written has digest {found}: name a tag")]
    Pinned {
        /// The reference of the store.
        store: String,
        /// The digest of what was to be written.
        found: Digest,
    },
    /// A range outside the blob.
    #[error("bytes {start} to {end} are no part of a blob of {size} bytes")]
    Range {
        /// First byte.
        start: u64,
        /// Byte after the last.
        end: u64,
        /// Bytes of the blob.
        size: u64,
    },
    /// A manifest that is to say something about another one names none.
    #[error("the manifest names no subject")]
    NoSubject,
    /// The transport can be read but not written, or the store was opened for reading.
    #[error("`{store}` cannot be written: {reason}")]
    ReadOnly {
        /// The reference of the store.
        store: String,
        /// Why, and what to use in its place.
        reason: &'static str,
    },
    /// A tag outside the grammar.
    #[error("`{tag}` is not a tag")]
    Tag {
        /// The text given.
        tag: String,
    },
    /// [`crate::BlobWriter::complete`] on a blob that the caller said to hash.
    #[error("the digest of the blob was to come from the caller")]
    Unhashed,
    /// The bytes that were written are not those that were announced: a bug of the caller.
    #[error(
        "the blob that was written has digest {found} and {found_bytes} bytes, announced were {wanted} and {wanted_bytes} bytes"
    )]
    Written {
        /// Digest of what was written.
        found: Digest,
        /// Bytes written.
        found_bytes: u64,
        /// Digest announced.
        wanted: Digest,
        /// Bytes announced.
        wanted_bytes: u64,
    },
}

/// Who has to act on an [`Error`], for exit codes and retries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The image is broken: a bad input, or a verification failure where a digest did not match.
    Corrupt,
    /// The registry denied access.
    Denied,
    /// This machine's file system failed.
    Local,
    /// There is no such image, tag or blob.
    NotFound,
    /// The registry refused a request that was well-formed for us.
    Refused,
    /// Network or registry; the same call may succeed later.
    Unavailable,
    /// The caller asked for something that cannot be.
    Usage,
}

impl Error {
    /// Sorts the error by who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Io { .. } => ErrorKind::Local,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Reference(_) | Self::Usage(_) => ErrorKind::Usage,
        }
    }

    /// Whether bytes did not match the digest or size that named them, as opposed to not being readable at all.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Corrupt { source: Corruption::Digest { .. } | Corruption::Size { .. }, .. })
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn corrupt(
        object: impl Into<Box<str>>,
        store: impl Into<Box<str>>,
        source: impl Into<Corruption>,
    ) -> Self {
        Self::Corrupt { object: object.into(), store: store.into(), source: source.into() }
    }
}

/// For readers that need an [`io::Read`] shape; [`io::Error::get_ref`] gives the [`Error`] back.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::Denied => io::ErrorKind::PermissionDenied,
            ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::Usage => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

fn remark(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}
