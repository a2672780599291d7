//! A service that runs, and is killed with what holds it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// See the module's text.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a service by `command`, and waits until it says that it serves. It logs to the end of `log`.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("log");
        // A group of its own: what stands between us and the service must not outlive it, nor the service that.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let mut running = Self(command.spawn().expect("service"));
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().expect("stdout")).read_line(&mut line).expect("service");
        let log = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(!line.is_empty(), "the service did not start: {}", log());
        running
    }

    /// Its process, or that of what was put before it.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}
