//! Tar archives: `oci-archive:` and `docker-archive:` read in place, `oci-archive:` written through a staging directory.

mod docker;
mod staging;
mod tar_index;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::docker::normalized_name;
pub(crate) use self::staging::StagedArchive;
use self::tar_index::TarIndex;
use crate::digest::Digest;
use crate::error::{Corruption, Error};
use crate::layout::{BLOBS, INDEX, MARKER, check_marker};
use crate::limits;
use crate::local::Extent;
use crate::local_images::LocalImages;
use crate::manifest::{Index, ManifestError};

/// An archive opened for reading. Its members are found once; blobs are read where they lie.
#[derive(Debug)]
pub(crate) struct Archive {
    name: String,
    index: Index,
    blobs: HashMap<Digest, Extent>,
}

impl Archive {
    /// Opens an OCI layout in a tar file.
    pub(crate) fn open_oci(path: &Path, name: String) -> Result<Self, Error> {
        let members = Members::open(path, &name)?;
        check_marker(&members.small(MARKER)?, &name)?;
        let index = Index::parse(&members.small(INDEX)?).map_err(|error| Error::corrupt(INDEX, &*name, error))?;
        let mut blobs = HashMap::new();
        for file in members.tar.files() {
            if let Some(digest) = digest_of_path(file)
                && let Some(extent) = members.extent(file)
            {
                blobs.insert(digest, extent);
            }
        }
        Ok(Self { name, index, blobs })
    }

    /// Opens what `docker save` or `skopeo copy … docker-archive:` wrote, seen as OCI images.
    pub(crate) fn open_docker(path: &Path, name: String) -> Result<Self, Error> {
        let members = Members::open(path, &name)?;
        let (index, blobs) = docker::read(&members)?;
        Ok(Self { name, index, blobs })
    }
}

impl LocalImages for Archive {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> Result<Index, Error> {
        Ok(self.index.clone())
    }

    fn extent(&self, digest: &Digest) -> Result<Extent, Error> {
        self.blobs
            .get(digest)
            .cloned()
            .ok_or_else(|| Error::NotFound { object: format!("blob {digest}"), store: self.name.clone() })
    }
}

/// The members of a tar file by path.
struct Members {
    name: String,
    path: PathBuf,
    file: Arc<File>,
    tar: TarIndex,
}

impl Members {
    fn open(path: &Path, name: &str) -> Result<Self, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { object: "archive".to_owned(), store: name.to_owned() });
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let tar = TarIndex::scan(&file).map_err(|error| match error {
            tar_index::ScanError::Read(error) => Error::io("read", path)(error),
            error => archive_problem(name, error.to_string()),
        })?;
        Ok(Self { name: name.to_owned(), path: path.to_owned(), file: Arc::new(file), tar })
    }

    /// Where a member lies; links are followed inside the archive.
    fn extent(&self, member: &str) -> Option<Extent> {
        let (offset, bytes) = self.tar.find(member)?;
        Some(Extent::File { file: self.file.clone(), path: self.path.clone(), offset, bytes })
    }

    /// A member of a few KiB, whole.
    fn small(&self, member: &str) -> Result<Bytes, Error> {
        let extent = self
            .extent(member)
            .ok_or_else(|| archive_problem(&self.name, format!("it has no `{}`", shortened(member))))?;
        if extent.bytes() > limits::MANIFEST_BYTES as u64 {
            let found = usize::try_from(extent.bytes()).unwrap_or(usize::MAX);
            return Err(Error::corrupt(shortened(member), &*self.name, ManifestError::Size { found }));
        }
        extent.read_at(0, limits::MANIFEST_BYTES)
    }
}

fn archive_problem(store: &str, problem: String) -> Error {
    Error::corrupt("archive", store, Corruption::Archive { problem })
}

/// Names from foreign bytes are cut before they go into messages.
fn shortened(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(200).collect()
}

fn digest_of_path(member: &str) -> Option<Digest> {
    let hex = member.strip_prefix(BLOBS)?.strip_prefix('/')?;
    format!("sha256:{hex}").parse().ok()
}
