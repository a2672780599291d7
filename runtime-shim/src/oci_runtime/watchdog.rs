//! A small process that stays with each container that holds a lease: when the agent is gone and the lease is over, it stops
//! the container. It hears of renewals from the agent, and finds an agent that was started again.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_line::{ExitCode, Failure, FailureContext as _};
use held_lease::BootTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::agent::client::AgentClient;
use crate::agent::process::{ContainerProcess, ProcessName};
use crate::agent::protocol::{Answer, ContainerName, read};
use crate::supervise::wait_until;

/// The hidden first argument of a watchdog.
const WATCHDOG: &str = "__sealift-watchdog";

/// How long a container has between SIGTERM and SIGKILL.
const DRAIN: Duration = Duration::from_secs(1);

/// The pause before the agent is looked for again.
const AGAIN: Duration = Duration::from_millis(500);

/// What a watchdog is told. None of it is secret.
#[derive(Debug, Deserialize, Serialize)]
#[expect(clippy::unsafe_derive_deserialize, reason = "no method is unsafe; the lint sees a macro's inside")]
pub(super) struct Watchdog {
    pub(super) socket: PathBuf,
    pub(super) container: ContainerName,
    pub(super) process: ProcessName,
    pub(super) runtime: Vec<String>,
    pub(super) stop_at_nanoseconds: u64,
}

/// First act of main: takes over when this process is a watchdog, and tells its exit code; returns `None` otherwise.
pub(crate) fn intercepted() -> Option<u8> {
    let mut args = std::env::args().skip(1);
    if args.next()? != WATCHDOG {
        return None;
    }
    let told: Watchdog = serde_json::from_str(&args.next()?).ok()?;
    // What is sent to the engine's terminal or group is not for it; that it leads a group already is as good.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(told.watch());
    Some(0)
}

impl Watchdog {
    /// Starts it beside the container, with nothing of this process but its program.
    pub(super) fn leave(&self) -> Result<(), Failure> {
        let cannot = || format!("cannot leave a watchdog with container {}", self.container.id);
        let told = serde_json::to_string(self).or_fail(ExitCode::Other, cannot)?;
        // Whoever waits for the engine's pipes would wait for the container's end.
        runtime_shim::launcher::close_on_exec().or_fail(ExitCode::Other, cannot)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sealift-shim").args([WATCHDOG, &told]).current_dir("/").env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(drop).or_fail(ExitCode::Other, cannot)
    }

    async fn watch(self) {
        // A container that is gone needs no watching.
        let Ok(Some(process)) = ContainerProcess::open(self.process) else { return };
        let (told, mut stop_at) = watch::channel(BootTime::from_nanoseconds(self.stop_at_nanoseconds));
        tokio::select! {
            () = process.gone() => return,
            () = self.follow(&told) => return,
            () = over(&mut stop_at) => {}
        }
        process.stop(&self.runtime, &self.container.id, DRAIN).await;
    }

    /// Hears of the container's deadlines for as long as there is an agent, and looks for one when there is none.
    async fn follow(&self, told: &watch::Sender<BootTime>) {
        let client = AgentClient::new(&self.socket);
        loop {
            if let Ok((deadline, mut stream)) = client.watch(self.container.clone()).await {
                told.send_replace(BootTime::from_nanoseconds(deadline));
                while let Ok(Answer::Deadline { stop_at_nanoseconds }) = read(&mut stream).await {
                    told.send_replace(BootTime::from_nanoseconds(stop_at_nanoseconds));
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Waits until the newest deadline is over.
async fn over(stop_at: &mut watch::Receiver<BootTime>) {
    loop {
        let deadline = *stop_at.borrow_and_update();
        tokio::select! {
            () = wait_until(deadline) => return,
            _ = stop_at.changed() => {}
        }
    }
}
