//! The one system call of the launcher that Rust cannot prove safe.
#![expect(unsafe_code, reason = "unshare(2) is unsafe where it takes file descriptors apart, which this call does not")]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Leaves the namespaces that `flags` name; never the table of file descriptors.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    let flags = flags - UnshareFlags::FILES;
    // SAFETY: only `CLONE_FILES` can make another thread's descriptors invalid, and it was taken out above.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}
