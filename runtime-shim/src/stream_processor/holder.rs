//! What a processor that fails leaves behind for a moment. containerd asks whether it has failed once its output ends, and the
//! kernel ends the output of a process before it tells anybody that the process has: so something else has that output, too,
//! until the processor was collected. Without it, containerd would at times take what came out for a layer, if for a wrong one.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid, test_kill_process};

/// The hidden first argument of a holder; the processor's id follows.
const HOLDER: &str = "__sealift-output-holder";
/// Whoever has not collected the processor by then waits for the end of its output first.
const MOST: Duration = Duration::from_secs(1);
/// How often it is looked for.
const AGAIN: Duration = Duration::from_millis(5);
/// containerd notes what it collected.
const NOTED: Duration = Duration::from_millis(50);

/// First act of main: takes over when this process is a holder, and tells its exit code; returns `None` otherwise.
pub(crate) fn intercepted() -> Option<u8> {
    let mut args = std::env::args().skip(1);
    if args.next()? != HOLDER {
        return None;
    }
    let processor = Pid::from_raw(args.next()?.parse().ok()?)?;
    let until = Instant::now() + MOST;
    // A process that has ended is there until it is collected.
    while Instant::now() < until && test_kill_process(processor).is_ok() {
        std::thread::sleep(AGAIN);
    }
    std::thread::sleep(NOTED);
    Some(0)
}

/// Starts one, with nothing of this process but its program and its output.
pub(super) fn leave() {
    let held = runtime_shim::launcher::close_on_exec().and_then(|()| {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sealift-shim").arg(HOLDER).arg(getpid().as_raw_nonzero().to_string());
        command.current_dir("/").env_clear().stdin(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(drop)
    });
    if let Err(error) = held {
        // The failure is told all the same; it may be that containerd does not see it.
        tracing::warn!(%error, "the output cannot be held");
    }
}
