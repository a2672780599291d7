//! One entry: its header read into checked values, and the file made of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::remove::remove_all;
use super::{LayerWriter, Parent, shown};
use crate::unpack::Privilege;
use crate::unpack::error::UnpackError;
use crate::unpack::limits::Limits;
use crate::unpack::root::{InnerPath, is_directory, look, subdirectory};
use crate::unpack::sparse::SparseMap;

/// What stands before an attribute's name in PAX records.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// Attributes that belong to the host, not to an image.
const FOREIGN_XATTRS: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];
/// How many bytes are copied at once; runs of zeros of this size become holes in sparse files.
const BLOCK: usize = 4096;

/// A PAX record: key and value.
type Record = (Vec<u8>, Vec<u8>);

/// An entry's header, checked.
pub(super) struct Header {
    pub(super) path: InnerPath,
    pub(super) kind: EntryType,
    link: Vec<u8>,
    mode: Mode,
    uid: u32,
    gid: u32,
    times: Timestamps,
    size: u64,
    device: (u32, u32),
    xattrs: Vec<Record>,
    sparse: Option<SparseMap>,
}

impl Header {
    pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>, limits: &Limits) -> Result<Self, UnpackError> {
        let records = records(entry)?;
        let sparse = SparseMap::from_records(&records)?;
        let raw_name = match sparse.as_ref().and_then(|sparse| sparse.name.clone()) {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let path = InnerPath::parse(&raw_name, limits)?;
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        if link.len() > limits.path_bytes || link.contains(&0) {
            return Err(UnpackError::entry(&raw_name, "its link is too long or has a NUL byte"));
        }
        let header = entry.header();
        let absurd = |_: io::Error| UnpackError::entry(&raw_name, "its header has numbers that are none");
        let mut kind = header.entry_type();
        // Archives older than POSIX mark directories by the name alone.
        if kind == EntryType::Regular && raw_name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let find = |key: &[u8]| records.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_slice());
        let id = |key: &[u8], field: io::Result<u64>| -> Result<u32, UnpackError> {
            let value = match find(key) {
                Some(text) => decimal(text).ok_or(()),
                None => field.map_err(|_| ()),
            };
            value
                .and_then(|id| u32::try_from(id).map_err(|_| ()))
                .map_err(|()| UnpackError::entry(&raw_name, "its owner is no number of 32 bits"))
        };
        let size = sparse.as_ref().map_or_else(|| entry.size(), |sparse| sparse.size);
        if size > limits.file_bytes {
            return Err(UnpackError::Limit { what: "bytes in one file", limit: limits.file_bytes });
        }
        let mtime = match find(b"mtime").map(pax_time) {
            Some(Some(time)) => time,
            Some(None) => return Err(UnpackError::entry(&raw_name, "its time is none")),
            None => {
                let seconds = i64::try_from(header.mtime().map_err(absurd)?).unwrap_or(i64::MAX);
                Timespec { tv_sec: seconds, tv_nsec: 0 }
            }
        };
        let device = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or_default();
        Ok(Self {
            path,
            kind,
            link,
            mode: Mode::from_raw_mode(header.mode().map_err(absurd)? & 0o7777),
            uid: id(b"uid", header.uid())?,
            gid: id(b"gid", header.gid())?,
            times: Timestamps { last_access: mtime, last_modification: mtime },
            size,
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: xattrs(&records, &raw_name, limits)?,
            sparse,
        })
    }
}

fn records<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<Record>, UnpackError> {
    let Some(extensions) = entry.pax_extensions().map_err(|error| super::malformed(&error))? else {
        return Ok(Vec::new());
    };
    extensions
        .map(|extension| {
            let extension = extension.map_err(|error| super::malformed(&error))?;
            Ok((extension.key_bytes().to_vec(), extension.value_bytes().to_vec()))
        })
        .collect()
}

fn xattrs(records: &[Record], name: &[u8], limits: &Limits) -> Result<Vec<Record>, UnpackError> {
    let xattrs: Vec<Record> = records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
        .filter(|(key, _)| !FOREIGN_XATTRS.contains(&key.as_slice()))
        .collect();
    if xattrs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > limits.xattr_bytes {
        return Err(UnpackError::entry(name, "its extended attributes are too long"));
    }
    Ok(xattrs)
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `SECONDS[.FRACTION]`, negative before 1970.
fn pax_time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanoseconds });
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
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
            _ => remove_all(&parent.fd, name, shown(header))?,
        }
        let failed = |errno: Errno| UnpackError::file("create", shown(header), errno);
        match header.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                write_file(header, parent, name, data)?;
            }
            EntryType::Symlink => {
                let target = OsStr::from_bytes(&header.link);
                rustix::fs::symlinkat(target, &parent.fd, name).map_err(failed)?;
            }
            // A hard link has its target's owner, mode and times.
            EntryType::Link => return self.make_hard_link(header, parent, name),
            EntryType::Fifo => {
                rustix::fs::mknodat(&parent.fd, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(failed)?;
            }
            EntryType::Block | EntryType::Char => {
                if self.privilege == Privilege::User {
                    self.report.skipped_devices += 1;
                    return Ok(());
                }
                let kind =
                    if header.kind == EntryType::Block { FileType::BlockDevice } else { FileType::CharacterDevice };
                let device = rustix::fs::makedev(header.device.0, header.device.1);
                rustix::fs::mknodat(&parent.fd, name, kind, Mode::from_raw_mode(0o600), device).map_err(failed)?;
            }
            _ => return Err(UnpackError::entry(shown(header).as_os_str().as_bytes(), "its type is unknown")),
        }
        self.finish_file(header, parent, name)
    }

    fn make_directory(&mut self, header: &Header, parent: &Parent, name: &OsStr) -> Result<(), UnpackError> {
        let failed = |errno| UnpackError::file("create", shown(header), errno);
        let stat = look(&parent.fd, name).map_err(failed)?;
        if !stat.as_ref().is_some_and(is_directory) {
            remove_all(&parent.fd, name, shown(header))?;
            rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o700)).map_err(failed)?;
        }
        let fd = subdirectory(&parent.fd, name).map_err(failed)?;
        self.finish_directory(header, &fd)
    }

    /// Owner and attributes now, times when the layer is complete.
    pub(super) fn finish_directory(&mut self, header: &Header, fd: &OwnedFd) -> Result<(), UnpackError> {
        let failed = |errno| UnpackError::file("set the owner or mode of", shown(header), errno);
        if self.privilege == Privilege::Root {
            let owner = (Some(Uid::from_raw(header.uid)), Some(Gid::from_raw(header.gid)));
            rustix::fs::chownat(fd, ".", owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}/.", fd.as_raw_fd()));
        clear_xattrs(&path).map_err(failed)?;
        self.set_xattrs(header, &path)?;
        let closed = self.privilege == Privilege::User && !header.mode.contains(Mode::RWXU);
        let mode = if closed { header.mode | Mode::RWXU } else { header.mode };
        rustix::fs::chmodat(fd, ".", mode, AtFlags::empty()).map_err(failed)?;
        let inode = rustix::fs::fstat(fd).map_err(failed)?.st_ino;
        self.directories.set(&header.path, inode, header.times.clone(), closed.then_some(header.mode));
        Ok(())
    }

    fn make_hard_link(&mut self, header: &Header, parent: &Parent, name: &OsStr) -> Result<(), UnpackError> {
        let target = InnerPath::parse(&header.link, self.limits)?;
        let refused = |why| UnpackError::entry(shown(header).as_os_str().as_bytes(), why);
        let Some((directory, target_name)) = target.split() else {
            return Err(refused("it is a hard link to the root"));
        };
        let failed = |errno: Errno| match errno {
            Errno::NOENT | Errno::NOTDIR => refused("it is a hard link to nothing"),
            errno => UnpackError::file("link", shown(header), errno),
        };
        let directory = self.root.directory(&directory).map_err(failed)?;
        rustix::fs::linkat(&directory, target_name, &parent.fd, name, AtFlags::empty()).map_err(failed)
    }

    /// Owner, attributes, mode and times, in the order in which one does not undo the other.
    fn finish_file(&mut self, header: &Header, parent: &Parent, name: &OsStr) -> Result<(), UnpackError> {
        let failed = |errno| UnpackError::file("set the owner, mode or times of", shown(header), errno);
        if self.privilege == Privilege::Root {
            let owner = (Some(Uid::from_raw(header.uid)), Some(Gid::from_raw(header.gid)));
            rustix::fs::chownat(&parent.fd, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        let path = Path::new("/proc/self/fd").join(parent.fd.as_raw_fd().to_string()).join(name);
        self.set_xattrs(header, &path)?;
        if header.kind != EntryType::Symlink {
            rustix::fs::chmodat(&parent.fd, name, header.mode, AtFlags::empty()).map_err(failed)?;
        }
        rustix::fs::utimensat(&parent.fd, name, &header.times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    fn set_xattrs(&mut self, header: &Header, path: &Path) -> Result<(), UnpackError> {
        for (key, value) in &header.xattrs {
            let set = rustix::fs::lsetxattr(path, OsStr::from_bytes(key), value, XattrFlags::empty());
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

/// A directory that a lower layer made loses its attributes when its entry comes again.
fn clear_xattrs(path: &Path) -> Result<(), Errno> {
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
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

fn write_file(header: &Header, parent: &Parent, name: &OsStr, data: &mut dyn Read) -> Result<(), UnpackError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| UnpackError::file("create", shown(header), errno))?;
    let mut file = File::from(fd);
    if let Some(sparse) = &header.sparse {
        return write_stretches(header, sparse.clone(), &mut file, data);
    }
    let keep_holes = header.kind == EntryType::GNUSparse;
    let written = copy(header, data, &mut file, keep_holes)?;
    if written != header.size {
        return Err(UnpackError::entry(shown(header).as_os_str().as_bytes(), "its data end early"));
    }
    Ok(())
}

/// Copies everything; gives the bytes copied. The archive's own errors and the disk's are told apart.
fn copy(header: &Header, data: &mut dyn Read, file: &mut File, keep_holes: bool) -> Result<u64, UnpackError> {
    let failed = |error: io::Error| UnpackError::file("write", shown(header), error);
    let mut buffer = vec![0; if keep_holes { BLOCK } else { 32 * BLOCK }];
    let mut written = 0;
    loop {
        let length = match data.read(&mut buffer) {
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
) -> Result<(), UnpackError> {
    let failed = |error: io::Error| UnpackError::file("write", shown(header), error);
    sparse.read_map(data)?;
    file.set_len(sparse.size).map_err(failed)?;
    for &(offset, bytes) in &sparse.stretches {
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let written = copy(header, &mut data.take(bytes), file, false)?;
        if written != bytes {
            return Err(UnpackError::entry(shown(header).as_os_str().as_bytes(), "its data end early"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_times_keep_nanoseconds_and_the_past() {
        let time = |text: &str| pax_time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(time("12.000000345"), Some((12, 345)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("x"), None);
        assert_eq!(time("1.x"), None);
    }
}
