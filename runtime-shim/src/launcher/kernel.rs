//! The two things of the launcher that Rust cannot prove safe.
#![expect(
    unsafe_code,
    reason = "unshare(2) and borrowing a descriptor by number are unsafe; each says why it is sound here"
)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Leaves the namespaces that `flags` name; never the table of file descriptors.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    let flags = flags - UnshareFlags::FILES;
    // SAFETY: only `CLONE_FILES` can make another thread's descriptors invalid, and it was taken out above.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Keeps the program that is executed next from inheriting anything but stdin, stdout and stderr, whatever this process was
/// given.
/// Call it while `/proc` is there.
pub fn close_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number <= 2 {
            continue;
        }
        // SAFETY: the descriptor is borrowed for two calls that neither close nor use what it refers to; one that has been
        // closed meanwhile (the listing's own) makes them fail with EBADF.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let set = fcntl_getfd(descriptor).and_then(|flags| fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC));
        match set {
            Ok(()) | Err(Errno::BADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
