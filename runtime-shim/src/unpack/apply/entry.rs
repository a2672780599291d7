//! One entry: the file, directory, link or device that is made of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::header::{FOREIGN_XATTRS, Header};
use super::{LayerWriter, Parent, shown};
use crate::unpack::Privilege;
use crate::unpack::error::UnpackError;
use crate::unpack::root::{InnerPath, is_directory, look, subdirectory};
use crate::unpack::sparse::SparseMap;

/// Runs of zeros of this size become holes in sparse files.
const BLOCK: usize = 4096;

/// What was made of an entry.
enum Made {
    /// A file, still empty.
    File(File),
    /// A hard link: it has its target's owner, mode and times.
    Link,
    /// Something without content.
    Node,
}

impl LayerWriter<'_> {
    /// Makes what the entry says at `name` in `parent`.
    pub(super) fn make(
        &mut self,
        header: &Header,
        parent: &Parent,
        name: &OsStr,
        data: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        match header.kind {
            // Global PAX records name nothing.
            EntryType::XGlobalHeader => return Ok(()),
            EntryType::Directory => return self.make_directory(header, parent, name),
            EntryType::Block | EntryType::Char if self.privilege == Privilege::User => {
                self.report.skipped_devices += 1;
                return self.clear(header, parent, name);
            }
            _ => {}
        }
        let made = if let Some(made) = self.create(header, parent, name)? {
            made
        } else {
            self.clear(header, parent, name)?;
            let occupied = || UnpackError::file("create", shown(header), Errno::EXIST);
            self.create(header, parent, name)?.ok_or_else(occupied)?
        };
        match made {
            Made::File(mut file) => {
                write_data(header, &mut file, data, &mut self.buffer)?;
                self.finish_open_file(header, parent, name, &file)
            }
            Made::Link => Ok(()),
            Made::Node => self.finish_node(header, parent, name),
        }
    }

    /// Makes it where nothing is; `None` where something is.
    fn create(&self, header: &Header, parent: &Parent, name: &OsStr) -> Result<Option<Made>, UnpackError> {
        let unknown = || UnpackError::entry(shown(header).as_os_str().as_bytes(), "its type is unknown");
        let made = match header.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&parent.fd, name, flags, Mode::from_raw_mode(0o600))
                    .map(|fd| Made::File(File::from(fd)))
            }
            EntryType::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&header.link), &parent.fd, name).map(|()| Made::Node)
            }
            EntryType::Link => return self.make_hard_link(header, parent, name),
            EntryType::Fifo => node(parent, name, FileType::Fifo, 0),
            EntryType::Block | EntryType::Char => {
                let kind =
                    if header.kind == EntryType::Block { FileType::BlockDevice } else { FileType::CharacterDevice };
                node(parent, name, kind, rustix::fs::makedev(header.device.0, header.device.1))
            }
            _ => return Err(unknown()),
        };
        unless_occupied(made).map_err(|errno| UnpackError::file("create", shown(header), errno))
    }

    fn make_directory(&mut self, header: &Header, parent: &Parent, name: &OsStr) -> Result<(), UnpackError> {
        let failed = |errno| UnpackError::file("create", shown(header), errno);
        let mode = Mode::from_raw_mode(0o700);
        if unless_occupied(rustix::fs::mkdirat(&parent.fd, name, mode)).map_err(failed)?.is_none()
            && !look(&parent.fd, name).map_err(failed)?.as_ref().is_some_and(is_directory)
        {
            self.clear(header, parent, name)?;
            rustix::fs::mkdirat(&parent.fd, name, mode).map_err(failed)?;
        }
        let fd = subdirectory(&parent.fd, name).map_err(failed)?;
        let inode = self.finish_directory(header, &fd)?;
        self.keep_open(&header.path, Parent { fd, inode });
        Ok(())
    }

    /// Owner and attributes now, times when the layer is complete. Gives the directory's inode.
    pub(super) fn finish_directory(&mut self, header: &Header, fd: &OwnedFd) -> Result<u64, UnpackError> {
        let failed = |errno| UnpackError::file("set the owner or mode of", shown(header), errno);
        if self.privilege == Privilege::Root {
            let owner = (Some(Uid::from_raw(header.uid)), Some(Gid::from_raw(header.gid)));
            rustix::fs::chownat(fd, ".", owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}/.", fd.as_raw_fd()));
        clear_xattrs(&path).map_err(failed)?;
        self.set_xattrs(header, || path)?;
        let closed = self.privilege == Privilege::User && !header.mode.contains(Mode::RWXU);
        let mode = if closed { header.mode | Mode::RWXU } else { header.mode };
        rustix::fs::chmodat(fd, ".", mode, AtFlags::empty()).map_err(failed)?;
        let inode = rustix::fs::fstat(fd).map_err(failed)?.st_ino;
        self.directories.set(&header.path, inode, header.times.clone(), closed.then_some(header.mode));
        Ok(inode)
    }

    fn make_hard_link(&self, header: &Header, parent: &Parent, name: &OsStr) -> Result<Option<Made>, UnpackError> {
        let target = InnerPath::parse(&header.link, self.limits)?;
        let refused = |why| UnpackError::entry(shown(header).as_os_str().as_bytes(), why);
        let Some((directory, target_name)) = target.split() else {
            return Err(refused("it is a hard link to the root"));
        };
        let failed = |errno: Errno| match errno {
            Errno::NOENT | Errno::NOTDIR => refused("it is a hard link to nothing"),
            errno => UnpackError::file("link", shown(header), errno),
        };
        let opened = match self.open.get(&directory) {
            Some(parent) => Ok(parent.clone()),
            None => self.directory(&directory).map(|fd| Rc::new(Parent { fd, inode: 0 })),
        };
        let target = opened.map_err(failed)?;
        let linked = rustix::fs::linkat(&target.fd, target_name, &parent.fd, name, AtFlags::empty());
        Ok(unless_occupied(linked).map_err(failed)?.map(|()| Made::Link))
    }

    /// Owner, attributes, mode and times, in the order in which one does not undo the other.
    fn finish_open_file(
        &mut self,
        header: &Header,
        parent: &Parent,
        name: &OsStr,
        file: &File,
    ) -> Result<(), UnpackError> {
        let failed = |errno| UnpackError::file("set the owner, mode or times of", shown(header), errno);
        if self.privilege == Privilege::Root {
            let owner = (Some(Uid::from_raw(header.uid)), Some(Gid::from_raw(header.gid)));
            rustix::fs::fchown(file, owner.0, owner.1).map_err(failed)?;
        }
        self.set_xattrs(header, || path_of(parent, name))?;
        rustix::fs::fchmod(file, header.mode).map_err(failed)?;
        rustix::fs::futimens(file, &header.times).map_err(failed)
    }

    /// The same by name.
    fn finish_node(&mut self, header: &Header, parent: &Parent, name: &OsStr) -> Result<(), UnpackError> {
        let failed = |errno| UnpackError::file("set the owner, mode or times of", shown(header), errno);
        if self.privilege == Privilege::Root {
            let owner = (Some(Uid::from_raw(header.uid)), Some(Gid::from_raw(header.gid)));
            rustix::fs::chownat(&parent.fd, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        self.set_xattrs(header, || path_of(parent, name))?;
        if header.kind != EntryType::Symlink {
            rustix::fs::chmodat(&parent.fd, name, header.mode, AtFlags::empty()).map_err(failed)?;
        }
        rustix::fs::utimensat(&parent.fd, name, &header.times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    fn set_xattrs(&mut self, header: &Header, path: impl FnOnce() -> PathBuf) -> Result<(), UnpackError> {
        if header.xattrs.is_empty() {
            return Ok(());
        }
        let path = path();
        for (key, value) in &header.xattrs {
            let set = rustix::fs::lsetxattr(&path, OsStr::from_bytes(key), value, XattrFlags::empty());
            match set {
                Ok(()) => {}
                // An ordinary user may not set these, and some file systems have none.
                Err(Errno::PERM | Errno::NOTSUP) if self.privilege == Privilege::User => {
                    self.report.skipped_xattrs += 1;
                }
                Err(errno) => return Err(UnpackError::file("set an extended attribute of", shown(header), errno)),
            }
        }
        Ok(())
    }
}

fn node(parent: &Parent, name: &OsStr, kind: FileType, device: u64) -> Result<Made, Errno> {
    rustix::fs::mknodat(&parent.fd, name, kind, Mode::from_raw_mode(0o600), device).map(|()| Made::Node)
}

/// `None` where something is in the way.
fn unless_occupied<T>(made: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(Errno::EXIST) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// For calls that take no directory.
fn path_of(parent: &Parent, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(parent.fd.as_raw_fd().to_string()).join(name)
}

/// A directory that a lower layer made loses its attributes when its entry comes again.
fn clear_xattrs(path: &Path) -> Result<(), Errno> {
    // Most have none, which is asked without a buffer.
    let length = match rustix::fs::llistxattr(path, &mut [0_u8; 0]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        Ok(length) => length,
        Err(errno) => return Err(errno),
    };
    let mut names = vec![0; length];
    let length = rustix::fs::llistxattr(path, &mut names)?;
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if FOREIGN_XATTRS.contains(&name) {
            continue;
        }
        match rustix::fs::lremovexattr(path, OsStr::from_bytes(name)) {
            Ok(()) | Err(Errno::PERM | Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn write_data(header: &Header, file: &mut File, data: &mut dyn Read, buffer: &mut [u8]) -> Result<(), UnpackError> {
    if let Some(sparse) = &header.sparse {
        return write_stretches(header, sparse.clone(), file, data, buffer);
    }
    let keep_holes = header.kind == EntryType::GNUSparse;
    let written = copy(header, data, file, buffer, keep_holes)?;
    if written != header.size {
        return Err(UnpackError::entry(shown(header).as_os_str().as_bytes(), "its data end early"));
    }
    Ok(())
}

/// Copies everything; gives the bytes copied. The archive's own errors and the disk's are told apart.
fn copy(
    header: &Header,
    data: &mut dyn Read,
    file: &mut File,
    buffer: &mut [u8],
    keep_holes: bool,
) -> Result<u64, UnpackError> {
    let failed = |error: io::Error| UnpackError::file("write", shown(header), error);
    let at_once = if keep_holes { BLOCK.min(buffer.len()) } else { buffer.len() };
    let (buffer, _) = buffer.split_at_mut(at_once);
    let mut written = 0;
    loop {
        let length = match data.read(buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(super::malformed(&error)),
        };
        let Some(block) = buffer.get(..length) else { break };
        if keep_holes && block.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(length).unwrap_or(i64::MAX))).map_err(failed)?;
        } else {
            file.write_all(block).map_err(failed)?;
        }
        written += length as u64;
    }
    if keep_holes {
        file.set_len(written).map_err(failed)?;
    }
    Ok(written)
}

fn write_stretches(
    header: &Header,
    mut sparse: SparseMap,
    file: &mut File,
    data: &mut dyn Read,
    buffer: &mut [u8],
) -> Result<(), UnpackError> {
    let failed = |error: io::Error| UnpackError::file("write", shown(header), error);
    sparse.read_map(data)?;
    file.set_len(sparse.size).map_err(failed)?;
    for &(offset, bytes) in &sparse.stretches {
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let written = copy(header, &mut data.take(bytes), file, buffer, false)?;
        if written != bytes {
            return Err(UnpackError::entry(shown(header).as_os_str().as_bytes(), "its data end early"));
        }
    }
    Ok(())
}
