//! Layers that are confined to a directory: what they hold was signed by people who cannot read it, so it must not reach the
//! files of others. No entry, whiteout or hard link of theirs is anywhere else, and no symbolic link of anybody leads them away.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;
use tar::EntryType;

use super::header::Header;
use super::{LayerWriter, shown};
use crate::unpack::error::UnpackError;
use crate::unpack::root::InnerPath;

/// What becomes of an entry.
pub(super) enum Bounds {
    /// It is applied as it is.
    Inside,
    /// A directory above: made where it is missing, left as it is where it is not.
    Above,
}

impl LayerWriter<'_> {
    /// Whether the layer may hold the entry.
    pub(super) fn bounds(&self, header: &Header) -> Result<Bounds, UnpackError> {
        let Some(confinement) = self.confinement else { return Ok(Bounds::Inside) };
        let (inner, path) = (confinement.inner(), header.path.as_path());
        let refused = |why| Err(UnpackError::entry(shown(header).as_os_str().as_bytes(), why));
        if inner.starts_with(path) {
            return match header.kind {
                EntryType::Directory if path == inner => Ok(Bounds::Inside),
                EntryType::Directory => Ok(Bounds::Above),
                _ => refused("its layer is confined to a directory, and this is another thing in its place"),
            };
        }
        if !path.starts_with(inner) {
            return refused("its layer is confined to another directory");
        }
        if header.kind == EntryType::Link && !InnerPath::parse(&header.link, self.limits)?.as_path().starts_with(inner)
        {
            return refused("it is a hard link out of the directory that its layer is confined to");
        }
        Ok(Bounds::Inside)
    }

    /// Opens a directory: where the layer is confined, through no symbolic link.
    pub(super) fn directory(&self, path: &InnerPath) -> Result<OwnedFd, Errno> {
        match self.confinement {
            Some(_) => self.root.directory_without_links(path),
            None => self.root.directory(path),
        }
    }
}
