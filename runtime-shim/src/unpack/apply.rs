//! One layer's tar stream applied to the root: entries, whiteouts, owners, modes, attributes, times, as `umoci` does it.

mod confined;
mod entry;
mod header;
mod remove;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use release_protocol::Confinement;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::directories::TouchedDirectories;
use super::error::UnpackError;
use super::limits::{Entries, Limits};
use super::root::{InnerPath, Root};
use super::{Privilege, UnpackReport};
use confined::Bounds;
use header::Header;
use remove::remove_all;

/// Marks a removal: `.wh.NAME` takes NAME of lower layers away.
const WHITEOUT: &[u8] = b".wh.";
/// Takes away everything that lower layers have in the directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of AUFS's own; nobody means them.
const AUFS: &[u8] = b".wh..wh.";

/// The most directories that are kept open.
const OPEN_MAX: usize = 64;
/// Bytes that are copied at once.
const BUFFER: usize = 128 * 1024;

/// Applies one layer.
pub(super) struct LayerWriter<'a> {
    root: &'a Root,
    limits: &'a Limits,
    entries: &'a mut Entries,
    privilege: Privilege,
    report: &'a mut UnpackReport,
    /// Where everything of the layer has to be.
    confinement: Option<&'a Confinement>,
    directories: TouchedDirectories,
    /// What this layer made: (inode of the directory, name). Whiteouts do not touch it.
    made: HashSet<(u64, OsString)>,
    /// Directories that entries went into, so that the kernel resolves a path once for all its files. Forgotten whenever
    /// something is removed: a name may mean something else then.
    open: HashMap<InnerPath, Rc<Parent>>,
    buffer: Vec<u8>,
}

/// A directory of the root that is about to change.
struct Parent {
    fd: OwnedFd,
    inode: u64,
}

impl<'a> LayerWriter<'a> {
    pub(super) fn new(
        root: &'a Root,
        limits: &'a Limits,
        entries: &'a mut Entries,
        privilege: Privilege,
        report: &'a mut UnpackReport,
        confinement: Option<&'a Confinement>,
    ) -> Self {
        Self {
            root,
            limits,
            entries,
            privilege,
            report,
            confinement,
            directories: TouchedDirectories::default(),
            made: HashSet::new(),
            open: HashMap::new(),
            buffer: vec![0; BUFFER],
        }
    }

    /// Reads the archive to its end marker and applies every entry.
    pub(super) fn apply(mut self, stream: &mut dyn Read) -> Result<(), UnpackError> {
        let mut archive = tar::Archive::new(stream);
        let entries = archive.entries().map_err(|error| malformed(&error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| malformed(&error))?;
            self.entries.add(self.limits)?;
            let header = Header::read(&mut entry, self.limits)?;
            self.apply_entry(&header, &mut entry)?;
        }
        self.report.entries = self.entries.number();
        self.directories.finish(self.root)
    }

    fn apply_entry(&mut self, header: &Header, data: &mut dyn Read) -> Result<(), UnpackError> {
        if let Bounds::Above = self.bounds(header)? {
            return self.parent(&header.path).map(drop);
        }
        let Some((parent_path, name)) = header.path.split() else {
            return self.apply_root(header);
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.apply_whiteout(&parent_path, name);
        }
        let parent = self.parent(&parent_path)?;
        self.make(header, &parent, name, data)?;
        self.made.insert((parent.inode, name.to_owned()));
        Ok(())
    }

    /// The entry `./`: the root directory's own owner, mode and times.
    fn apply_root(&mut self, header: &Header) -> Result<(), UnpackError> {
        if header.kind != tar::EntryType::Directory {
            return Err(UnpackError::entry(b"/", "the root is a directory and nothing else"));
        }
        let root = InnerPath::default();
        let fd = self.root.directory(&root).map_err(|errno| UnpackError::file("open", "/", errno))?;
        self.finish_directory(header, &fd).map(drop)
    }

    fn apply_whiteout(&mut self, parent_path: &InnerPath, name: &OsStr) -> Result<(), UnpackError> {
        let is_opaque = name.as_bytes() == OPAQUE;
        if !is_opaque && name.as_bytes().starts_with(AUFS) {
            return Ok(());
        }
        let fd = match self.directory(parent_path) {
            Ok(fd) => fd,
            // Nothing is there to be hidden.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(UnpackError::file("open", parent_path.as_path(), errno)),
        };
        let parent = self.touch(parent_path, fd)?;
        self.open.clear();
        if is_opaque {
            return self.remove_lower_children(&parent, parent_path.as_path());
        }
        let hidden = OsStr::from_bytes(name.as_bytes().strip_prefix(WHITEOUT).unwrap_or_default());
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(UnpackError::entry(name.as_bytes(), "it takes nothing away"));
        }
        self.remove_lower(&parent, hidden, &parent_path.as_path().join(hidden))
    }

    /// Opens an entry's directory and makes it where it is missing.
    fn parent(&mut self, path: &InnerPath) -> Result<Rc<Parent>, UnpackError> {
        if let Some(parent) = self.open.get(path) {
            return Ok(parent.clone());
        }
        let fd = match self.directory(path) {
            Err(Errno::NOENT) => {
                self.make_missing(path)?;
                self.directory(path)
            }
            other => other,
        };
        let fd = fd.map_err(|errno| UnpackError::file("open", path.as_path(), errno))?;
        let parent = self.touch(path, fd)?;
        Ok(self.keep_open(path, parent))
    }

    fn keep_open(&mut self, path: &InnerPath, parent: Parent) -> Rc<Parent> {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let parent = Rc::new(parent);
        self.open.insert(path.clone(), parent.clone());
        parent
    }

    /// Takes away whatever is at an entry's name.
    fn clear(&mut self, header: &Header, parent: &Parent, name: &OsStr) -> Result<(), UnpackError> {
        self.open.clear();
        remove_all(&parent.fd, name, shown(header))
    }

    /// Directories that no entry of the archive names.
    fn make_missing(&mut self, path: &InnerPath) -> Result<(), UnpackError> {
        let Some((above, name)) = path.split() else { return Ok(()) };
        let above = self.parent(&above)?;
        match rustix::fs::mkdirat(&above.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                self.made.insert((above.inode, name.to_owned()));
                Ok(())
            }
            Err(errno) => Err(UnpackError::file("create", path.as_path(), errno)),
        }
    }

    /// Remembers a directory's times before they change, and opens it up to its owner where it is closed.
    fn touch(&mut self, path: &InnerPath, fd: OwnedFd) -> Result<Parent, UnpackError> {
        let failed = |errno| UnpackError::file("look at", path.as_path(), errno);
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        self.directories.touch(path, &stat);
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        if self.privilege == Privilege::User && !mode.contains(Mode::RWXU) {
            rustix::fs::chmodat(&fd, ".", mode | Mode::RWXU, AtFlags::empty()).map_err(failed)?;
            self.directories.restore_mode(stat.st_ino, mode);
        }
        Ok(Parent { fd, inode: stat.st_ino })
    }
}

fn malformed(error: &std::io::Error) -> UnpackError {
    UnpackError::Archive(error.to_string())
}

/// A path for messages.
fn shown(header: &Header) -> &Path {
    header.path.as_path()
}
