//! OCI layout directories: `oci-layout`, `index.json`, `blobs/sha256/…`.
//!
//! [OCI image-spec, image layout]: <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>
//!
//! Blobs appear by rename under their digest, `index.json` by rename under an exclusive lock on `oci-layout`, and only
//! after everything that it refers to is there. Nothing is synced: a crash of the whole machine may lose what was written
//! last, and [`Layout::has`] compares sizes so that a rerun writes such a blob again.

mod sink;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::NamedTempFile;

pub(crate) use self::sink::LayoutSink;
use crate::descriptor::{Descriptor, REF_NAME};
use crate::digest::Digest;
use crate::error::{Corruption, Error, UsageError};
use crate::limits;
use crate::local::Extent;
use crate::local_images::LocalImages;
use crate::manifest::{Document, Index, ManifestError, RawManifest};
use crate::store::Place;

/// An OCI layout directory. All methods block.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    directory: PathBuf,
    name: String,
}

impl Layout {
    /// Opens a layout that is there.
    pub(crate) fn open(directory: &Path, name: String) -> Result<Self, Error> {
        let layout = Self { directory: directory.to_owned(), name };
        let marker = layout.directory.join(MARKER);
        match read_limited(&marker) {
            Ok(bytes) => check_marker(&bytes, &layout.name)?,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { object: "OCI layout".to_owned(), store: layout.name });
            }
            Err(error) => return Err(error),
        }
        Ok(layout)
    }

    /// Opens a layout to write into, making it where there is none, and clears what interrupted writers left.
    pub(crate) fn create(directory: &Path, name: String) -> Result<Self, Error> {
        let blobs = directory.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
        let layout = Self { directory: directory.to_owned(), name };
        let marker = directory.join(MARKER);
        if !marker.exists() {
            layout.write_marker(&marker)?;
        }
        check_marker(&read_limited(&marker)?, &layout.name)?;
        let _lock = layout.lock()?;
        if !directory.join(INDEX).exists() {
            layout.write_index(&Index::new(Vec::new()))?;
        }
        remove_stale(&blobs)?;
        remove_stale(directory)?;
        Ok(layout)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a blob is there with its full size.
    pub(crate) fn has(&self, digest: &Digest, bytes: u64) -> Result<bool, Error> {
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file() && metadata.len() == bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look at", path)(error)),
        }
    }

    /// Writes a manifest and, unless it is nested in another, names it in the index.
    pub(crate) fn put_manifest(&self, raw: &RawManifest, place: &Place) -> Result<(), Error> {
        self.check_complete(raw)?;
        let mut file = self.temporary()?;
        let path = file.path().to_owned();
        file.write_all(&raw.bytes).map_err(Error::io("write", path))?;
        self.keep(file, &raw.digest)?;
        let tag = match place {
            Place::Nested => return Ok(()),
            Place::Digest => None,
            Place::Tag(tag) => Some(tag),
        };
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let mut entry = raw.descriptor();
        match tag {
            Some(tag) => {
                index.manifests.retain(|old| old.ref_name() != Some(tag));
                entry.annotations.insert(REF_NAME.to_owned(), tag.clone());
            }
            None if index.manifests.iter().any(|old| old.digest == entry.digest) => return Ok(()),
            None => {}
        }
        index.manifests.retain(|old| !(old.digest == entry.digest && old.ref_name().is_none()));
        index.manifests.push(entry);
        self.write_index(&index)
    }

    /// Refuses a manifest whose parts are not in place yet.
    fn check_complete(&self, raw: &RawManifest) -> Result<(), Error> {
        let corrupt = |error: ManifestError| Error::corrupt(format!("manifest {}", raw.digest), &*self.name, error);
        let parts: Vec<Descriptor> = match raw.parse().map_err(corrupt)? {
            Document::Manifest(manifest) => manifest.layers.into_iter().chain([manifest.config]).collect(),
            // An index may name platforms that were left out of the copy, as `skopeo copy` does.
            Document::Index(_) => Vec::new(),
        };
        for part in parts {
            if part.urls.is_empty() && !self.has(&part.digest, part.size)? {
                return Err(UsageError::Incomplete { store: self.name.clone(), missing: part.digest }.into());
            }
        }
        Ok(())
    }

    fn write_index(&self, index: &Index) -> Result<(), Error> {
        let bytes: Bytes = index.to_bytes().map_err(|error| Error::corrupt(INDEX, &*self.name, error))?;
        self.replace(INDEX, &bytes)
    }

    /// Writes `oci-layout`, unless another writer was faster: the file that is locked must stay the same one.
    fn write_marker(&self, path: &Path) -> Result<(), Error> {
        let mut temporary = temporary_in(&self.directory)?;
        temporary.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(Error::io("write", path))?;
        match temporary.persist_noclobber(path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io("create", path)(error.error))
            }
            _ => Ok(()),
        }
    }

    /// Replaces a file of the layout in one step.
    fn replace(&self, file: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.directory.join(file);
        let mut temporary = temporary_in(&self.directory)?;
        temporary.write_all(bytes).map_err(Error::io("write", &path))?;
        temporary.persist(&path).map_err(|error| Error::io("replace", &path)(error.error))?;
        Ok(())
    }

    /// The lock that writers of `index.json` hold; it goes with the file handle.
    fn lock(&self) -> Result<File, Error> {
        let path = self.directory.join(MARKER);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(file)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(BLOBS).join(digest.hex())
    }

    /// A temporary file beside the blobs. Its lock tells other writers that it is in use.
    fn temporary(&self) -> Result<NamedTempFile, Error> {
        let file = temporary_in(&self.directory.join(BLOBS))?;
        file.as_file().lock().map_err(Error::io("lock", file.path()))?;
        Ok(file)
    }

    fn keep(&self, file: NamedTempFile, digest: &Digest) -> Result<(), Error> {
        let path = self.blob_path(digest);
        file.persist(&path).map_err(|error| Error::io("put in place", &path)(error.error))?;
        Ok(())
    }
}

impl LocalImages for Layout {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> Result<Index, Error> {
        let bytes = read_limited(&self.directory.join(INDEX))?;
        Index::parse(&bytes).map_err(|error| Error::corrupt(INDEX, &*self.name, error))
    }

    fn extent(&self, digest: &Digest) -> Result<Extent, Error> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound { object: format!("blob {digest}"), store: self.name.clone() });
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let bytes = file.metadata().map_err(Error::io("look at", &path))?.len();
        Ok(Extent::File { file: Arc::new(file), path, offset: 0, bytes })
    }
}

/// Checks the content of `oci-layout`.
pub(crate) fn check_marker(bytes: &[u8], store: &str) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    struct Marker {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let corrupt = |source: Corruption| Error::corrupt(MARKER, store, source);
    let marker: Marker = serde_json::from_slice(bytes).map_err(|error| corrupt(ManifestError::Json(error).into()))?;
    if marker.version.starts_with("1.") {
        return Ok(());
    }
    let problem = format!("layout version `{}` is not supported", marker.version.chars().take(32).collect::<String>());
    Err(corrupt(Corruption::Archive { problem }))
}

pub(crate) fn temporary_in(directory: &Path) -> Result<NamedTempFile, Error> {
    tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .suffix(TEMPORARY_SUFFIX)
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(Error::io("create a file in", directory))
}

/// Removes temporary files of writers that are gone: nobody locks them, and they are old enough for their writer to have
/// locked them long ago.
pub(crate) fn remove_stale(directory: &Path) -> Result<(), Error> {
    let now = SystemTime::now();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        let name = entry.file_name();
        let is_ours =
            name.to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX));
        if !is_ours {
            continue;
        }
        let path = entry.path();
        let is_old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > STALE_AFTER));
        if is_old && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            match fs::remove_file(&path) {
                Ok(()) => tracing::debug!(path = %path.display(), "removed a file of an interrupted writer"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", path)(error)),
            }
        }
    }
    Ok(())
}

fn read_limited(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    let limit = limits::MANIFEST_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// The file that makes a directory a layout.
pub(crate) const MARKER: &str = "oci-layout";
/// The file that lists the images.
pub(crate) const INDEX: &str = "index.json";
/// Where the blobs are.
pub(crate) const BLOBS: &str = "blobs/sha256";
/// How the names of temporary files and directories begin.
pub(crate) const TEMPORARY_PREFIX: &str = ".sealift-";
const TEMPORARY_SUFFIX: &str = ".partial";
/// How old an unlocked temporary file must be to be removed.
pub(crate) const STALE_AFTER: Duration = Duration::from_mins(1);
