//! crun on hosts whose control groups are a hybrid of versions 1 and 2, which it refuses: it gets a mount namespace of its
//! own with version 2 alone in it, and leaves the groups be.

use std::ffi::OsString;
use std::path::Path;

const SCRIPT: &str = "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";

/// The words that start crun here, before its own arguments.
pub(super) fn crun_prefix(program: &Path) -> Vec<OsString> {
    let program = program.as_os_str().to_owned();
    let is_hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    if !is_hybrid {
        return vec![program];
    }
    let mut words: Vec<OsString> = ["unshare", "-m", "sh", "-c", SCRIPT, "sh"].map(OsString::from).to_vec();
    words.push(program);
    words.push("--cgroup-manager=disabled".into());
    words
}
