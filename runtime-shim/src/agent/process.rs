//! A container's first process: named so that a number used again is not mistaken for it, watched, stopped.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use held_lease::BootTime;
use runtime_shim::pidfd::ProcessDescriptor;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::supervise::wait_until;

/// A process by its number and when it was started.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ProcessName {
    pub(crate) pid: i32,
    /// In clock ticks since boot, as `/proc/PID/stat` has it.
    pub(crate) started_ticks: u64,
}

impl ProcessName {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is the program's name in parentheses, whatever is in it; the start is the 22nd.
        let field = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(19));
        let started_ticks = field.and_then(|field| field.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, started_ticks })
    }
}

/// A container's first process.
#[derive(Debug)]
pub(crate) struct ContainerProcess {
    descriptor: ProcessDescriptor,
}

impl ContainerProcess {
    /// Takes hold of it; `None` when it is gone.
    pub(crate) fn open(name: ProcessName) -> io::Result<Option<Self>> {
        let Some(descriptor) = ProcessDescriptor::open(name.pid)? else { return Ok(None) };
        // Whoever has the number now, it is this one that is held.
        match ProcessName::of(name.pid) {
            Ok(now) if now == name => {}
            _ => return Ok(None),
        }
        Ok(Some(Self { descriptor }))
    }

    /// Waits until it is gone.
    pub(crate) async fn gone(&self) {
        // An error is no reason to believe in its end.
        while self.descriptor.ended().await.is_err() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// SIGTERM, and when the time is over SIGKILL for everything in the container, through the runtime that made it and
    /// without it.
    pub(crate) async fn stop(&self, runtime: &[String], id: &str, drain: Duration) {
        self.signal(Signal::TERM);
        tokio::select! {
            () = self.gone() => {}
            () = wait_until(BootTime::now().plus(drain)) => {}
        }
        loop {
            // Also when the first process is gone: without a namespace of their own the others would go on.
            kill_all(runtime, id).await;
            self.signal(Signal::KILL);
            if tokio::time::timeout(LOOK_AGAIN, self.gone()).await.is_ok() {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = self.descriptor.signal(signal) {
            tracing::error!(%error, "a container cannot be signalled");
        }
    }
}

/// Has the runtime kill all processes of its container; what it says of one that is gone is of no interest.
async fn kill_all(runtime: &[String], id: &str) {
    let Some((program, words)) = runtime.split_first() else { return };
    let mut command = tokio::process::Command::new(program);
    command.args(words).args(["kill", "--all", id, "KILL"]).kill_on_drop(true);
    let killed = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match tokio::time::timeout(KILL_WAIT, killed).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, program, "the OCI runtime cannot be run"),
        Err(_) => tracing::error!(program, "the OCI runtime does not end"),
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long a runtime may take to kill before it is done without it.
const KILL_WAIT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[tokio::test]
    async fn a_process_is_stopped_and_seen_to_be_gone() {
        let mut child = sleeper();
        let name = ProcessName::of(i32::try_from(child.id()).unwrap()).unwrap();
        let process = ContainerProcess::open(name).unwrap().unwrap();
        process.stop(&["/nonexistent".to_owned()], "id", Duration::from_secs(10)).await;
        process.gone().await;
        assert!(!child.wait().unwrap().success());
        assert!(ContainerProcess::open(name).unwrap().is_none());
    }

    #[tokio::test]
    async fn another_process_of_the_same_number_is_not_it() {
        let mut child = sleeper();
        let name = ProcessName::of(i32::try_from(child.id()).unwrap()).unwrap();
        let earlier = ProcessName { started_ticks: name.started_ticks - 1, ..name };
        assert!(ContainerProcess::open(earlier).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
