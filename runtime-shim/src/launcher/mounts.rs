//! The workload's view of the file system. What it needs of the host is opened before the new root is entered, and every
//! path after that is looked up inside it, so no link of the image can lead a mount outside.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind_recursive,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};

use super::context;

const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// What the bundle says of the file system.
pub(super) struct View<'a> {
    pub(super) rootfs: &'a Path,
    /// The working directory, made where the image has none.
    pub(super) directory: &'a str,
    /// Files of the host and where they are bound, read-only.
    pub(super) binds: Vec<(&'a str, &'a str)>,
    pub(super) is_read_only: bool,
    /// Hidden from the workload; a kernel without one of them has nothing to hide.
    pub(super) masked: Vec<&'a str>,
    pub(super) read_only: Vec<&'a str>,
}

/// Makes the bundle's file system the root, with /proc, /dev and /sys in it.
pub(super) fn enter(view: &View<'_>) -> io::Result<()> {
    let rootfs = view.rootfs;
    let failed = |what: &'static str| move |errno: Errno| context(what)(errno.into());
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("take the mounts apart from the host's"))?;
    mount_bind_recursive(rootfs, rootfs).map_err(failed("mount the root file system"))?;
    let devices = open_devices()?;
    let binds = view.binds.iter().map(|(source, destination)| {
        let file = open(source, OpenTreeFlags::empty());
        Ok((file.map_err(|errno| context(format!("open `{source}`"))(errno.into()))?, *destination))
    });
    let binds = binds.collect::<io::Result<Vec<_>>>()?;
    let sys = open("/sys", OpenTreeFlags::AT_RECURSIVE).map_err(failed("open /sys"))?;
    std::env::set_current_dir(rootfs).map_err(context("enter the root file system"))?;
    // The old root lies on top of the new one's directory until it is detached below; lookups of `/` do not see it.
    rustix::process::pivot_root(".", ".").map_err(failed("change the root"))?;

    // /proc first: a user namespace may mount it only while another one is in sight.
    make_directory("/proc")?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", quiet, None).map_err(failed("mount /proc"))?;
    mount_devices(devices)?;
    make_directory("/sys")?;
    move_mount(&sys, "", CWD, "/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed("mount /sys"))?;
    for path in mounted_under_sys()? {
        mount_remount(&path, MountFlags::BIND | MountFlags::RDONLY | quiet, "")
            .map_err(|errno| context(format!("close {path}"))(errno.into()))?;
    }
    for (file, destination) in binds {
        bind_file(&file, destination, quiet)?;
    }
    hide(view, quiet)?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("let go of the old root"))?;
    std::env::set_current_dir("/").map_err(context("enter the root"))?;
    fs::create_dir_all(view.directory).map_err(context(format!("make `{}`", view.directory)))?;
    if view.is_read_only {
        let kept = inherited("/").map_err(failed("look at the root file system"))?;
        mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | kept, "")
            .map_err(failed("close the root file system"))?;
    }
    Ok(())
}

/// What a mount already forbids; a user namespace may not allow it again.
fn inherited(path: &str) -> Result<MountFlags, Errno> {
    let flags = rustix::fs::statvfs(path)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ];
    Ok(pairs.into_iter().filter(|(has, _)| flags.contains(*has)).map(|(_, kept)| kept).collect())
}

/// /sys and what the host mounted below it (control groups, configfs): each is a mount to close of its own.
fn mounted_under_sys() -> io::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(context("list the mounts"))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.filter(|point| *point == "/sys" || point.starts_with("/sys/")).map(ToOwned::to_owned).collect())
}

fn open(path: &str, more: OpenTreeFlags) -> Result<OwnedFd, Errno> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | more)
}

fn open_devices() -> io::Result<Vec<(&'static str, OwnedFd)>> {
    DEVICES
        .iter()
        .map(|name| {
            let path = format!("/dev/{name}");
            let device =
                open(&path, OpenTreeFlags::empty()).map_err(|errno| context(format!("open {path}"))(errno.into()))?;
            Ok((*name, device))
        })
        .collect()
}

fn mount_devices(devices: Vec<(&'static str, OwnedFd)>) -> io::Result<()> {
    let failed = |what: &'static str| move |errno: Errno| context(what)(errno.into());
    make_directory("/dev")?;
    mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID | MountFlags::STRICTATIME, Some(c"mode=755,size=65536k"))
        .map_err(failed("mount /dev"))?;
    for (name, device) in devices {
        let path = format!("/dev/{name}");
        fs::File::create(&path).map_err(context(format!("make {path}")))?;
        move_mount(&device, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| context(format!("mount {path}"))(errno.into()))?;
    }
    for directory in ["/dev/pts", "/dev/shm"] {
        fs::create_dir(directory).map_err(context(format!("make {directory}")))?;
    }
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "/dev/pts", "devpts", quiet, Some(c"newinstance,ptmxmode=0666,mode=0620"))
        .map_err(failed("mount /dev/pts"))?;
    mount("shm", "/dev/shm", "tmpfs", quiet | MountFlags::NODEV, Some(c"mode=1777,size=65536k"))
        .map_err(failed("mount /dev/shm"))?;
    for (target, link) in LINKS {
        symlink(target, link).map_err(context(format!("make {link}")))?;
    }
    Ok(())
}

/// Binds a file over one that is made where the image has none.
fn bind_file(file: &OwnedFd, destination: &str, quiet: MountFlags) -> io::Result<()> {
    let failed = || context(format!("bind `{destination}`"));
    if let Some(parent) = Path::new(destination).parent() {
        fs::create_dir_all(parent).map_err(failed())?;
    }
    if !Path::new(destination).is_file() {
        fs::File::create_new(destination).map_err(failed())?;
    }
    move_mount(file, "", CWD, destination, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .and_then(|()| mount_remount(destination, MountFlags::BIND | MountFlags::RDONLY | quiet, ""))
        .map_err(|errno| failed()(errno.into()))
}

fn hide(view: &View<'_>, quiet: MountFlags) -> io::Result<()> {
    for &path in &view.masked {
        let hidden = match fs::metadata(path) {
            Err(_) => continue,
            Ok(metadata) if metadata.is_dir() => {
                mount("tmpfs", path, "tmpfs", quiet | MountFlags::RDONLY, Some(c"size=0k,nr_inodes=1"))
            }
            Ok(_) => rustix::mount::mount_bind("/dev/null", path),
        };
        hidden.map_err(|errno| context(format!("hide {path}"))(errno.into()))?;
    }
    for &path in view.read_only.iter().filter(|path| Path::new(path).exists()) {
        mount_bind_recursive(path, path)
            .and_then(|()| mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | quiet, ""))
            .map_err(|errno| context(format!("close {path}"))(errno.into()))?;
    }
    Ok(())
}

/// Makes a directory where the image has none.
fn make_directory(path: &str) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(context(format!("make {path}"))),
    }
}
