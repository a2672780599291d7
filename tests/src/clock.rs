//! Programs whose clock another one sets: libfaketime in a place of its own.

use std::process::{Command, Stdio};

use crate::peer::peer;

/// Before `exec`: the semaphores of libfaketime are named by process numbers and outlive a process that is killed, so that a later one of the same
/// number would not start.
const PRIVATE_MEMORY: &str = "mount -t tmpfs clock /dev/shm && exec \"$@\"";

/// `program` with its clock set to `time` (as libfaketime has it, `+3h`), in namespaces of its own; `--net` is one more of them.
///
/// # Panics
/// When a peer is absent.
#[must_use]
pub fn by_clock(program: &Command, time: &str, namespaces: &[&str]) -> Command {
    // Looked for here, since it is `unshare` that is started.
    let faketime = peer("faketime");
    let mut command = peer("unshare");
    command.arg("--mount").args(namespaces).args(["sh", "-c", PRIVATE_MEMORY, "sh"]);
    command.arg(faketime.get_program()).args(["--exclude-monotonic", "-f", time]);
    command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}
