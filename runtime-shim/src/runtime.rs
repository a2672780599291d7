//! Starting a bundle: through runc or crun, or the embedded launcher; waiting, signalling, killing.

mod cgroup;
mod trial;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::process::{Child, Command};

use crate::launcher::{self, LaunchFailure};

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// The first of runc and crun that can make this very container here, else the embedded launcher.
    Auto,
    /// crun
    Crun,
    /// The launcher inside this program.
    Embedded,
    /// runc
    Runc,
}

/// Why a workload did not start, or could not be handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The runtime that was asked for is not installed.
    #[error("`{0}` is not on this machine's PATH")]
    Absent(&'static str),
    /// The runtime could not be started.
    #[error("cannot start `{name}`")]
    Start {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// User namespaces are forbidden here.
    #[error(
        "this system forbids user namespaces: run as root, allow them (`user.max_user_namespaces`, \
         `kernel.unprivileged_userns_clone`, or the security module's rule), or choose a runtime by `--runtime` ({0})"
    )]
    NoUserNamespaces(String),
    /// The embedded launcher failed before the workload ran.
    #[error("the embedded runtime could not start the workload: {0}")]
    Launch(String),
    /// The runtime could not be waited for or signalled.
    #[error("cannot {action} the workload")]
    Handle {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A workload that runs.
#[derive(Debug)]
pub struct Running {
    kind: Kind,
    child: Child,
    status: Option<u8>,
}

#[derive(Debug)]
enum Kind {
    /// The launcher, with the bundle in which it leaves word when it fails.
    Embedded { bundle: PathBuf },
    /// runc or crun: its name, the words before its own arguments, the state directory, the container's id.
    External { name: &'static str, prefix: Vec<OsString>, state: PathBuf, id: String },
}

/// Starts the bundle. The workload has this process's stdin, stdout and stderr.
pub async fn start(choice: RuntimeChoice, bundle: &Path, id: &str, state_dir: &Path) -> Result<Running, RuntimeError> {
    match choice {
        RuntimeChoice::Runc => external("runc", bundle, id, state_dir),
        RuntimeChoice::Crun => external("crun", bundle, id, state_dir),
        RuntimeChoice::Embedded => embedded(bundle),
        RuntimeChoice::Auto => {
            for name in ["runc", "crun"] {
                if let Some(program) = find(name)
                    && trial::can_make(name, &program, bundle, id, state_dir).await
                {
                    return external(name, bundle, id, state_dir);
                }
            }
            embedded(bundle)
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn external(name: &'static str, bundle: &Path, id: &str, state: &Path) -> Result<Running, RuntimeError> {
    let program = find(name).ok_or(RuntimeError::Absent(name))?;
    let failed = |source| RuntimeError::Start { name, source };
    std::fs::create_dir_all(state).map_err(failed)?;
    let prefix = prefix(name, &program);
    std::fs::write(bundle.join(STARTED_BY), name).map_err(failed)?;
    let child = command(&prefix, state)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(id)
        // The runtime is stopped through us, not by the terminal as well.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let kind = Kind::External { name, prefix, state: state.to_owned(), id: id.to_owned() };
    Ok(Running { kind, child, status: None })
}

/// Kills what runc or crun runs of a bundle whose starter is gone, and removes their state. The embedded launcher's workload has
/// gone with its starter. What fails has failed: nobody is there to be told.
pub async fn kill_left(bundle: &Path, id: &str, state: &Path) {
    let name = std::fs::read_to_string(bundle.join(STARTED_BY)).unwrap_or_default();
    let Some((name, program)) =
        ["runc", "crun"].into_iter().find(|known| *known == name).and_then(|name| Some((name, find(name)?)))
    else {
        return;
    };
    let prefix = prefix(name, &program);
    // What was being started at that moment may not be known to it yet.
    for pause in [Duration::ZERO, KILL_AGAIN, KILL_AGAIN] {
        tokio::time::sleep(pause).await;
        let _ = ask(&prefix, state, &["delete", "--force", id]).await;
    }
}

/// The words that start the runtime, before its own arguments.
fn prefix(name: &str, program: &Path) -> Vec<OsString> {
    if name == "crun" { cgroup::crun_prefix(program) } else { vec![program.as_os_str().to_owned()] }
}

fn command(prefix: &[OsString], state: &Path) -> Command {
    let (program, words) =
        prefix.split_first().map_or((OsString::new(), &[][..]), |(program, words)| (program.clone(), words));
    let mut command = Command::new(program);
    command.args(words).arg("--root").arg(state);
    command
}

fn embedded(bundle: &Path) -> Result<Running, RuntimeError> {
    let child = Command::new("/proc/self/exe")
        .arg(launcher::STAGE_ONE)
        .arg(bundle)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| RuntimeError::Start { name: "embedded", source })?;
    Ok(Running { kind: Kind::Embedded { bundle: bundle.to_owned() }, child, status: None })
}

impl Running {
    /// What runs it.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Embedded { .. } => "embedded",
            Kind::External { name, .. } => name,
        }
    }

    /// Waits for the end; gives the exit code, 128 + n after signal n. May be dropped and called again.
    pub async fn wait(&mut self) -> Result<u8, RuntimeError> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = self.child.wait().await.map_err(|source| RuntimeError::Handle { action: "wait for", source })?;
        if let Kind::Embedded { bundle } = &self.kind {
            match launcher::failure(bundle) {
                None => {}
                Some(LaunchFailure::NoUserNamespaces(cause)) => return Err(RuntimeError::NoUserNamespaces(cause)),
                Some(LaunchFailure::Other(cause)) => return Err(RuntimeError::Launch(cause)),
            }
        }
        self.status = Some(code(status));
        Ok(code(status))
    }

    /// Sends a signal to the workload.
    pub async fn signal(&self, signal: Signal) -> Result<(), RuntimeError> {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
            return Ok(());
        };
        let target = match &self.kind {
            // Only the runtime itself would die of it, and the workload would go on without one.
            Kind::External { .. } if signal == Signal::KILL => return self.ask(&["kill"], &["KILL"]).await,
            // The runtime passes signals on.
            Kind::External { .. } => Some(pid),
            Kind::Embedded { .. } => workload_when_there(pid).await,
        };
        match target.map(|target| kill_process(target, signal)) {
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => Ok(()),
            Some(Err(errno)) => Err(RuntimeError::Handle { action: "signal", source: errno.into() }),
        }
    }

    /// Kills everything in the container and removes the runtime's state.
    pub async fn kill(&mut self) -> Result<(), RuntimeError> {
        // What has only just been started may have nothing to kill yet: asked again until it is over.
        loop {
            match self.kind {
                // The first process of the namespace takes all others with it.
                Kind::Embedded { .. } => self.signal(Signal::KILL).await?,
                Kind::External { .. } => self.ask(&["delete", "--force"], &[]).await?,
            }
            if let Ok(ended) = tokio::time::timeout(KILL_AGAIN, self.wait()).await {
                return ended.map(drop);
            }
        }
    }

    /// Has the runtime do something to its container; what it says of one that is not there is of no interest.
    async fn ask(&self, before: &[&str], after: &[&str]) -> Result<(), RuntimeError> {
        let Kind::External { prefix, state, id, .. } = &self.kind else { return Ok(()) };
        let words = [before, &[id], after].concat();
        ask(prefix, state, &words).await.map_err(|source| RuntimeError::Handle { action: "kill", source })
    }
}

/// Runs the runtime with these words, and hears nothing of what it says.
async fn ask(prefix: &[OsString], state: &Path, words: &[&str]) -> io::Result<()> {
    let mut command = command(prefix, state);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.map(drop)
}

/// Where it stands, in the bundle, which of runc and crun was started.
const STARTED_BY: &str = "started-by";
/// How long one try to kill may take to show.
const KILL_AGAIN: Duration = Duration::from_millis(200);

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The launcher's one child, waited for while the launcher is still preparing it: a signal must not be lost to that.
async fn workload_when_there(launcher: Pid) -> Option<Pid> {
    let until = tokio::time::Instant::now() + WORKLOAD_APPEARS;
    loop {
        if let Some(workload) = workload_of(launcher) {
            return Some(workload);
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let is_over = !matches!(waitid(WaitId::Pid(launcher), options), Ok(None));
        if is_over || tokio::time::Instant::now() > until {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long the launcher may take to fork the workload, far beyond what it takes.
const WORKLOAD_APPEARS: Duration = Duration::from_secs(5);

/// The launcher's one child.
fn workload_of(launcher: Pid) -> Option<Pid> {
    let pid = launcher.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}
