//! Paths inside the new root, resolved by the kernel so that no name and no symbolic link leads out of it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::error::UnpackError;
use super::limits::Limits;

/// A name inside the root: no `..`, no leading slash, bounded. Empty for the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct InnerPath(PathBuf);

impl InnerPath {
    /// Takes an entry's name. A leading slash means the root, as everywhere; `..` is refused.
    pub(super) fn parse(name: &[u8], limits: &Limits) -> Result<Self, UnpackError> {
        if name.len() > limits.path_bytes {
            return Err(UnpackError::entry(name, "its path is too long"));
        }
        if name.contains(&0) {
            return Err(UnpackError::entry(name, "its path has a NUL byte"));
        }
        let mut path = PathBuf::new();
        let mut depth = 0;
        for component in Path::new(OsStr::from_bytes(name)).components() {
            match component {
                Component::Normal(part) => {
                    path.push(part);
                    depth += 1;
                }
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(UnpackError::entry(name, "its path has `..` in it"));
                }
            }
        }
        if depth > limits.depth {
            return Err(UnpackError::entry(name, "its path has too many components"));
        }
        Ok(Self(path))
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.0
    }

    /// The directory and the name in it; `None` for the root.
    pub(super) fn split(&self) -> Option<(InnerPath, &OsStr)> {
        let name = self.0.file_name()?;
        Some((Self(self.0.parent().unwrap_or(Path::new("")).to_owned()), name))
    }
}

/// The new root.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// Whether the kernel has `openat2`.
    has_openat2: bool,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, UnpackError> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| UnpackError::file("open", path, errno))?;
        let probe = rustix::fs::openat2(&fd, ".", flags, Mode::empty(), ResolveFlags::IN_ROOT);
        Ok(Self { fd, has_openat2: probe.is_ok() })
    }

    /// Opens a directory, following symbolic links inside the root only.
    pub(super) fn directory(&self, path: &InnerPath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let name = if path.0.as_os_str().is_empty() { Path::new(".") } else { &path.0 };
        if self.has_openat2 {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            return rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), resolve);
        }
        self.walk(name)
    }

    /// Opens a directory through directories only: a symbolic link on the way is none.
    pub(super) fn directory_without_links(&self, path: &InnerPath) -> Result<OwnedFd, Errno> {
        let mut fd = subdirectory(&self.fd, OsStr::new("."))?;
        for part in path.0.components() {
            fd = subdirectory(&fd, part.as_os_str())?;
        }
        Ok(fd)
    }

    /// What `openat2` does, for kernels without it: component by component, links resolved here.
    fn walk(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
        let mut pending: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop_front() {
            let current = stack.last().map_or(self.fd.as_fd(), |fd| fd.as_fd());
            match part.as_bytes() {
                b"" | b"." => continue,
                b"/" => {
                    stack.clear();
                    continue;
                }
                b".." => {
                    stack.pop();
                    continue;
                }
                _ => {}
            }
            let fd = rustix::fs::openat(current, &part, flags, Mode::empty())?;
            match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
                FileType::Directory => stack.push(fd),
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                    let target = OsString::from_vec(target.into_bytes());
                    for part in Path::new(&target).components().rev() {
                        pending.push_front(part.as_os_str().to_owned());
                    }
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        match stack.pop() {
            Some(fd) => Ok(fd),
            None => {
                rustix::fs::openat(&self.fd, ".", OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            }
        }
    }
}

/// As many links as the kernel follows.
const LINKS_MAX: u32 = 40;

/// What is at `name` in `directory`; `None` where nothing is.
pub(super) fn look(directory: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A directory of the root opened for listing.
pub(super) fn list(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Opens the subdirectory `name` itself, never through a link.
pub(super) fn subdirectory(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}
