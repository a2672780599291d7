//! Directories whose times and modes are set once their layer is complete, since children change them under way.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::error::UnpackError;
use super::root::{InnerPath, Root};

/// What a directory shall look like in the end.
#[derive(Debug)]
struct Pending {
    path: InnerPath,
    times: Timestamps,
    mode: Option<Mode>,
}

/// The directories that a layer touched, by inode.
#[derive(Debug, Default)]
pub(super) struct TouchedDirectories(HashMap<u64, Pending>);

impl TouchedDirectories {
    /// Remembers how a directory was before its first child of this layer.
    pub(super) fn touch(&mut self, path: &InnerPath, stat: &Stat) {
        self.0.entry(stat.st_ino).or_insert_with(|| Pending { path: path.clone(), times: times_of(stat), mode: None });
    }

    /// A directory that was opened up for its owner gets this mode back.
    pub(super) fn restore_mode(&mut self, inode: u64, mode: Mode) {
        if let Some(pending) = self.0.get_mut(&inode) {
            pending.mode.get_or_insert(mode);
        }
    }

    /// A directory's own entry decides.
    pub(super) fn set(&mut self, path: &InnerPath, inode: u64, times: Timestamps, mode: Option<Mode>) {
        self.0.insert(inode, Pending { path: path.clone(), times, mode });
    }

    /// Sets what was remembered, deepest directories first.
    pub(super) fn finish(self, root: &Root) -> Result<(), UnpackError> {
        let mut pending: Vec<(u64, Pending)> = self.0.into_iter().collect();
        pending.sort_by_key(|(_, pending)| std::cmp::Reverse(pending.path.as_path().components().count()));
        for (inode, pending) in pending {
            let directory = match root.directory(&pending.path) {
                Ok(directory) => directory,
                // Removed or replaced later in the layer.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(UnpackError::file("open", pending.path.as_path(), errno)),
            };
            let failed = |errno| UnpackError::file("set the times of", pending.path.as_path(), errno);
            if rustix::fs::fstat(&directory).map_err(failed)?.st_ino != inode {
                continue;
            }
            set_times(&directory, &pending.times).map_err(failed)?;
            if let Some(mode) = pending.mode {
                rustix::fs::chmodat(&directory, ".", mode, AtFlags::empty()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn set_times(directory: &OwnedFd, times: &Timestamps) -> Result<(), Errno> {
    rustix::fs::utimensat(directory, ".", times, AtFlags::empty())
}

fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
    }
}

/// The kernel's field is unsigned on some architectures and signed on others; its value is below 10^9.
fn nanoseconds<T: TryInto<i64>>(field: T) -> i64 {
    field.try_into().unwrap_or_default()
}
