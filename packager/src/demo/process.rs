//! Child processes of the demo: the same commands that a person would type.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use command_line::{ExitCode, Failure, FailureContext as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Where the demo's things are.
pub(crate) struct Demo {
    sealift: PathBuf,
    pub(crate) shim: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) kept: bool,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The exit code; `None` after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The line of stderr that begins with `word`, without it.
    pub(crate) fn line(&self, word: &str) -> Option<&str> {
        self.stderr.lines().find_map(|line| line.trim_start().strip_prefix(word)).map(str::trim)
    }
}

impl Demo {
    pub(crate) fn new(sealift: PathBuf, shim: PathBuf, directory: PathBuf, kept: bool) -> Self {
        Self { sealift, shim, directory, kept }
    }

    /// A path in the demo's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs `sealift ARGS`, which must succeed, and gives its stdout.
    pub(crate) async fn sealift<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String, Failure> {
        let said = self.try_sealift(args).await?;
        if !said.status.success() {
            let command = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
            return Err(Failure::other(format!("`sealift {command}` failed")).cause(said.stderr.trim().to_owned()));
        }
        Ok(said.stdout.trim().to_owned())
    }

    /// Runs `sealift ARGS`, whatever comes of it.
    pub(crate) async fn try_sealift<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Said, Failure> {
        let output =
            self.command(args).output().await.or_fail(ExitCode::Other, || "cannot start `sealift`".to_owned())?;
        Ok(Said {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts the service and waits until it listens.
    pub(crate) async fn serve(&self) -> Result<Child, Failure> {
        let failed = || "cannot start `sealift serve`".to_owned();
        let log = std::fs::File::create(self.path("service.log")).or_fail(ExitCode::Other, failed)?;
        let mut child = self
            .command(&["serve", "--offline", "--allow-simulated"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .or_fail(ExitCode::Other, failed)?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::other(failed()))?;
        let ready = BufReader::new(stdout).lines().next_line().await.or_fail(ExitCode::Other, failed)?;
        if ready.is_none() {
            let log = std::fs::read_to_string(self.path("service.log")).unwrap_or_default();
            return Err(Failure::other("the service did not start").cause(log.trim().to_owned()));
        }
        Ok(child)
    }

    /// The arguments of `sealift simulate launch` that boot `shim` as a guest and give it `args`.
    pub(crate) fn launch(shim: &Path, args: &[&str]) -> Vec<OsString> {
        let mut all: Vec<OsString> = ["simulate", "launch", "--initrd"].map(OsString::from).to_vec();
        all.push(shim.into());
        all.push("--".into());
        all.extend(args.iter().map(OsString::from));
        all
    }

    /// Starts a launch in the background.
    pub(crate) fn start(&self, args: &[OsString]) -> Result<Child, Failure> {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .or_fail(ExitCode::Other, || "cannot start `sealift`".to_owned())
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.sealift);
        command
            .arg("--home")
            .arg(self.path("home"))
            .args(args)
            .env("SEALIFT_STATE_DIR", self.path("guest"))
            .env_remove("SEALIFT_LOG")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}
