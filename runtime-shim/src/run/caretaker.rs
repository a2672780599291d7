//! A small process beside `run` that outlives it: where `run` is gone before its workload is, killed or short of memory, this
//! kills the workload and removes what was decrypted. It knows by the end of a pipe whose other end `run` alone has.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use command_line::{ExitCode, Failure, FailureContext as _};
use runtime_shim::runtime;
use runtime_shim::unpack::remove_tree;

use super::runtime_state;
use crate::secrets;

/// The hidden first argument of a caretaker.
const CARETAKER: &str = "__sealift-caretaker";

/// While this is there, the caretaker waits.
pub(super) struct Caretaker {
    _pipe: Option<ChildStdin>,
}

impl Caretaker {
    /// Starts it, before anything is decrypted into `instance`.
    pub(super) fn leave(instance: &Path) -> Result<Self, Failure> {
        let cannot = || "cannot start the process that cleans up when this one is killed".to_owned();
        let instance = std::path::absolute(instance).or_fail(ExitCode::Other, cannot)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sealift-shim").arg(CARETAKER).arg(instance).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().or_fail(ExitCode::Other, cannot)?;
        Ok(Self { _pipe: child.stdin.take() })
    }
}

/// Takes over when this process is a caretaker, and tells its exit code; returns `None` otherwise.
pub(crate) fn intercepted() -> Option<u8> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != CARETAKER {
        return None;
    }
    let instance = PathBuf::from(args.next()?);
    // What kills the group of `run` does not kill this.
    let _ = rustix::process::setsid();
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let Some(id) = instance.file_name().and_then(|name| name.to_str()) else { return Some(1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(runtime::kill_left(&instance, id, &runtime_state(&instance)));
    secrets::remove_left(&instance);
    match remove_tree(&instance) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Some(1),
        _ => Some(0),
    }
}
