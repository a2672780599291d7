//! Taking things away: what an entry replaces, and what a whiteout hides of lower layers.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{LayerWriter, Parent};
use crate::unpack::error::UnpackError;
use crate::unpack::root::{is_directory, list, look, subdirectory};

impl LayerWriter<'_> {
    /// Removes `name` as far as lower layers made it.
    pub(super) fn remove_lower(&mut self, parent: &Parent, name: &OsStr, shown: &Path) -> Result<(), UnpackError> {
        let failed = |errno| UnpackError::file("remove", shown, errno);
        let Some(stat) = look(&parent.fd, name).map_err(failed)? else { return Ok(()) };
        if !self.made.contains(&(parent.inode, name.to_owned())) && !is_directory(&stat) {
            return rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty()).map_err(failed);
        }
        if !is_directory(&stat) {
            return Ok(());
        }
        let fd = subdirectory(&parent.fd, name).map_err(failed)?;
        let directory = Parent { inode: stat.st_ino, fd };
        self.remove_lower_children(&directory, shown)?;
        if self.made.contains(&(parent.inode, name.to_owned())) {
            return Ok(());
        }
        match rustix::fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR) {
            // This layer put something into it: it stays, with that alone.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Removes everything in a directory that lower layers made.
    pub(super) fn remove_lower_children(&mut self, directory: &Parent, shown: &Path) -> Result<(), UnpackError> {
        let names = list(&directory.fd).map_err(|error| UnpackError::file("list", shown, error))?;
        for name in names {
            self.remove_lower(directory, &name, &shown.join(&name))?;
        }
        Ok(())
    }
}

/// Removes whatever is at `name`, so that an entry can be made there: a tree by its own directories, never through a link.
pub(super) fn remove_all(parent: &OwnedFd, name: &OsStr, shown: &Path) -> Result<(), UnpackError> {
    let failed = |errno| UnpackError::file("remove", shown, errno);
    let Some(stat) = look(parent, name).map_err(failed)? else { return Ok(()) };
    if !is_directory(&stat) {
        return rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed);
    }
    let directory = subdirectory(parent, name).map_err(failed)?;
    for child in list(&directory).map_err(|error| UnpackError::file("list", shown, error))? {
        remove_all(&directory, &child, &shown.join(&child))?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed)
}
