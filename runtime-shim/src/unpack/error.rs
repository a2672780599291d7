//! What can go wrong while a layer is unpacked.

use std::io;
use std::path::PathBuf;

/// Which of a layer's checks failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The HMAC over the ciphertext.
    Authentication,
    /// The size and digest of the ciphertext that the image's manifest names.
    Ciphertext,
    /// The compressed stream: damaged, cut, or followed by something else.
    Compression,
    /// The digest of the plain tar stream that the image's config names.
    DiffId,
    /// The digest of the plain layer that was sealed with its key.
    PlainDigest,
}

impl What {
    fn text(self) -> &'static str {
        match self {
            Self::Authentication => "its ciphertext was changed (HMAC)",
            Self::Ciphertext => "its ciphertext is not what the image's manifest names (size, digest)",
            Self::Compression => "its compressed stream is damaged, cut, or followed by other bytes",
            Self::DiffId => "its content is not what the image's config names (diff_id)",
            Self::PlainDigest => "its plain bytes are not those that were sealed (digest in the private options)",
        }
    }
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// A check of the layer failed.
    #[error("the layer does not verify: {}", .0.text())]
    Check(What),
    /// The layer could not be read; the source says whether the store, the network or the digest is to blame.
    #[error("the layer cannot be read")]
    Read(#[source] io::Error),
    /// The cipher refused.
    #[error("the layer cannot be decrypted")]
    Cipher(#[source] ocicrypt::cipher::CipherError),
    /// The archive is malformed.
    #[error("the layer's archive is malformed: {0}")]
    Archive(String),
    /// An entry's name or link leads outside, or is none.
    #[error("the entry `{name}` is refused: {why}")]
    Entry {
        /// Its name as far as it can be shown.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than a limit allows.
    #[error("the layer is refused: more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The target exists.
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
    /// The file system failed.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what, inside the root file system where it is relative.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plain layer could not be passed on.
    #[error("the plain layer cannot be passed on")]
    Write(#[source] io::Error),
    /// A thread of the pipeline panicked.
    #[error("a stage of the unpacking pipeline failed")]
    Stage,
}

/// Which layer of an image was not unpacked, and why.
#[derive(Debug, thiserror::Error)]
#[error("layer {layer} cannot be unpacked")]
pub struct LayerError {
    /// Its place, counted from 0.
    pub layer: usize,
    /// Why.
    #[source]
    pub error: UnpackError,
}

impl UnpackError {
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::File { action, path: path.into(), source: source.into() }
    }

    pub(super) fn entry(name: &[u8], why: &'static str) -> Self {
        Self::Entry { name: String::from_utf8_lossy(name).chars().take(200).collect(), why }
    }
}
