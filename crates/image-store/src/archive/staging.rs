//! Writing `oci-archive:`: tar wants every size before the bytes, so blobs gather in a layout beside the target, which
//! becomes the archive at commit. Needs the space of the image twice for the time of the commit.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use tempfile::TempDir;

use crate::error::Error;
use crate::layout::{BLOBS, INDEX, Layout, MARKER, STALE_AFTER, TEMPORARY_PREFIX, remove_stale, temporary_in};

/// An archive that is being written. Dropped without commit, the staging directory goes and no file appears.
#[derive(Debug)]
pub(crate) struct StagedArchive {
    layout: Layout,
    target: PathBuf,
    /// The directory and its lock, until commit.
    staging: Mutex<Option<(TempDir, File)>>,
}

impl StagedArchive {
    pub(crate) fn create(target: &Path, name: String) -> Result<Self, Error> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        remove_stale(parent)?;
        remove_stale_staging(parent)?;
        let directory = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .suffix(STAGING_SUFFIX)
            .tempdir_in(parent)
            .map_err(Error::io("create a directory in", parent))?;
        let lock = File::open(directory.path()).map_err(Error::io("open", directory.path()))?;
        lock.lock().map_err(Error::io("lock", directory.path()))?;
        let layout = Layout::create(directory.path(), name)?;
        Ok(Self { layout, target: target.to_owned(), staging: Mutex::new(Some((directory, lock))) })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes the archive beside the target and renames it there. A second commit does nothing.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        let mut staging = self.staging.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some((directory, _lock)) = &*staging else { return Ok(()) };
        let parent = directory.path().parent().unwrap_or(Path::new("."));
        let file = temporary_in(parent)?;
        file.as_file().lock().map_err(Error::io("lock", file.path()))?;
        let mut archive = tar::Builder::new(file);
        append(&mut archive, directory.path(), MARKER)?;
        append(&mut archive, directory.path(), INDEX)?;
        let blobs = directory.path().join(BLOBS);
        let mut names = Vec::new();
        for entry in fs::read_dir(&blobs).map_err(Error::io("list", &blobs))? {
            let entry = entry.map_err(Error::io("list", &blobs))?;
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with(TEMPORARY_PREFIX)
            {
                names.push(format!("{BLOBS}/{name}"));
            }
        }
        names.sort_unstable();
        for name in names {
            append(&mut archive, directory.path(), &name)?;
        }
        let file = archive.into_inner().map_err(Error::io("write", &self.target))?;
        file.persist(&self.target).map_err(|error| Error::io("put in place", &self.target)(error.error))?;
        *staging = None;
        Ok(())
    }
}

/// Adds a file with nothing of this machine in its header: no owner, no time.
fn append(archive: &mut tar::Builder<impl Write>, directory: &Path, name: &str) -> Result<(), Error> {
    let path = directory.join(name);
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let bytes = file.metadata().map_err(Error::io("look at", &path))?.len();
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, file).map_err(Error::io("archive", path))
}

fn remove_stale_staging(parent: &Path) -> Result<(), Error> {
    let now = SystemTime::now();
    for entry in fs::read_dir(parent).map_err(Error::io("list", parent))? {
        let entry = entry.map_err(Error::io("list", parent))?;
        let name = entry.file_name();
        let is_ours =
            name.to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX) && name.ends_with(STAGING_SUFFIX));
        let is_old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > STALE_AFTER));
        let path = entry.path();
        if is_ours && is_old && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            fs::remove_dir_all(&path).map_err(Error::io("remove", path))?;
        }
    }
    Ok(())
}

const STAGING_SUFFIX: &str = ".staging";
