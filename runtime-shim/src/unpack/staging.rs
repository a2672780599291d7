//! The staging directory: beside the target, the caller's alone, gone unless it is committed.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::UnpackError;

#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    /// The private directory that holds the tree, so that nobody else walks into it while it is unverified.
    holder: Option<PathBuf>,
    tree: PathBuf,
}

impl Staging {
    pub(super) fn create(target: &Path) -> Result<Self, UnpackError> {
        if target.symlink_metadata().is_ok() {
            return Err(UnpackError::Exists(target.to_owned()));
        }
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let holder = parent.join(format!(".{name}.partial-{}", uuid::Uuid::new_v4().simple()));
        let failed = |source| UnpackError::file("create", &holder, source);
        fs::create_dir_all(parent).map_err(failed)?;
        fs::DirBuilder::new().mode(0o700).create(&holder).map_err(failed)?;
        let tree = holder.join("tree");
        let staging = Self { target: target.to_owned(), holder: Some(holder.clone()), tree };
        fs::DirBuilder::new().mode(0o755).create(&staging.tree).map_err(failed)?;
        Ok(staging)
    }

    pub(super) fn path(&self) -> &Path {
        &self.tree
    }

    pub(super) fn commit(mut self) -> Result<(), UnpackError> {
        fs::rename(&self.tree, &self.target).map_err(|source| UnpackError::file("create", &self.target, source))?;
        if let Some(holder) = self.holder.take() {
            fs::remove_dir(&holder).map_err(|source| UnpackError::file("remove", holder, source))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(holder) = self.holder.take()
            && let Err(error) = remove_tree(&holder)
        {
            tracing::warn!(%error, path = %holder.display(), "cannot remove a staging directory");
        }
    }
}

/// Removes a tree, also where its own directories forbid it to an ordinary user.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_directories(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_directories(path: &Path) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(metadata.permissions().mode() | 0o700))?;
        for entry in fs::read_dir(path)? {
            open_directories(&entry?.path())?;
        }
    }
    Ok(())
}
