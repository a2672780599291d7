//! What a kernel leaves to its first process: the root, the kernel's own file systems, modules, the clock.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use release_protocol::guest::path;
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::time::{ClockId, clock_gettime, clock_settime};

use super::context;

/// How long a device may take to appear after its module was loaded.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the initial RAM disk a mount of its own and that the root: no workload could be given another root while this is
/// the kernel's own one (`pivot_root(2)` refuses it).
pub(super) fn leave_kernel_root() -> io::Result<()> {
    let failed = |errno: Errno| context("leave the kernel's own root")(errno.into());
    mount_bind("/", path::ROOT).map_err(failed)?;
    rustix::process::chdir(path::ROOT).map_err(failed)?;
    mount_move(".", "/").map_err(failed)?;
    rustix::process::chroot(".").map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

/// Mounts the kernel's file systems, and memory for what is written.
pub(super) fn mount_all() -> io::Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let files = MountFlags::NOSUID | MountFlags::NODEV;
    let mounts = [
        ("proc", "/proc", quiet, None),
        ("sysfs", "/sys", quiet, None),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, None),
        ("tmpfs", "/run", files, Some(c"mode=755")),
        ("tmpfs", "/tmp", files, Some(c"mode=1777")),
        // The workload's files: memory of the guest alone. Its set-user-id programs and devices are the image's own affair.
        ("tmpfs", "/var/lib/sealift", MountFlags::empty(), Some(c"mode=700,size=75%")),
    ];
    for (kind, target, flags, data) in mounts {
        mount(kind, target, kind, flags, data).map_err(|errno| context(format!("mount {target}"))(errno.into()))?;
    }
    match mount("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, None) {
        // A kernel without control groups: nothing here needs them.
        Ok(()) | Err(Errno::NODEV | Errno::NOENT) => Ok(()),
        Err(errno) => Err(context("mount /sys/fs/cgroup")(errno.into())),
    }
}

/// Mounts the file system through which launch evidence is asked for, where the kernel has it.
pub(super) fn mount_configfs() -> io::Result<()> {
    const TARGET: &str = "/sys/kernel/config";
    if !Path::new(TARGET).exists() {
        return Ok(());
    }
    mount("configfs", TARGET, "configfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(|errno| context(format!("mount {TARGET}"))(errno.into()))
}

/// Loads modules in this order.
pub(super) fn load_modules(names: &[String]) -> io::Result<()> {
    for name in names {
        let failed = |error| context(format!("load the module {name}"))(error);
        let file = fs::File::open(Path::new(path::MODULES).join(name)).map_err(failed)?;
        match rustix::system::finit_module(&file, c"", 0) {
            // Loaded before; or hardware that is not there, such as a report device on a machine that is no confidential guest.
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Ok(())
}

/// Sets a clock that shows a time before `earliest` (seconds since 1970) to that time.
pub(super) fn correct_clock(earliest: i64) -> io::Result<()> {
    if clock_gettime(ClockId::Realtime).tv_sec >= earliest {
        return Ok(());
    }
    clock_settime(ClockId::Realtime, Timespec { tv_sec: earliest, tv_nsec: 0 })
        .map_err(|errno| context("set the clock")(errno.into()))
}

/// Looks until `found` gives something.
pub(super) fn wait_for<T>(what: &str, found: impl Fn() -> Option<T>) -> io::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("this machine has no {what}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
