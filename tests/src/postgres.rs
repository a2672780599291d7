//! A PostgreSQL cluster of a test's own, on a socket in a temporary folder. What it says to be written is on the disk, so it
//! can be killed at any moment, like a machine that loses its power.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::peer::{peer, run};
use crate::registry::free_port;

/// A cluster that is killed with the test.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    postmaster: Option<Child>,
    /// Where it listens on loopback, for those who know its password.
    port: Option<u16>,
}

impl Cluster {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is absent or does not start.
    pub fn start() -> Self {
        Self::make(None)
    }

    /// Makes a cluster that is also reached by loopback, starts it, and demands a password of everybody.
    ///
    /// # Panics
    /// When PostgreSQL is absent or does not start.
    pub fn start_with_password(password: &str) -> Self {
        Self::make(Some(password))
    }

    fn make(password: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("works");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let port = password.map(|_| free_port());
        let mut cluster = Self { folder, programs: programs(), postmaster: None, port };
        if is_root() {
            let id = |what: &str| run(peer("id").args([what, "postgres"])).succeeded().stdout.trim().parse().ok();
            chown(cluster.folder.path(), id("--user"), id("--group")).expect("owner");
        }
        let mut init = cluster.command("initdb");
        init.args(["--username=vendor", "--encoding=UTF8", "--no-sync", "--pgdata"]).arg(cluster.data());
        if let Some(password) = password {
            let file = cluster.folder.path().join("password");
            fs::write(&file, password).expect("password");
            init.arg("--auth=scram-sha-256").arg("--pwfile").arg(file);
        } else {
            init.arg("--auth=trust");
        }
        run(&mut init).succeeded();
        cluster.serve();
        cluster
    }

    /// Starts the cluster again, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn serve(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        let addresses = if self.port.is_some() { "listen_addresses=127.0.0.1" } else { "listen_addresses=" };
        command.args(["-c", addresses, "-c", "max_connections=60", "-c", "shared_buffers=16MB"]);
        // In its folder, and gone with it however it ends.
        command.args(["-c", "dynamic_shared_memory_type=mmap"]);
        command.stdout(log.try_clone().expect("log")).stderr(log);
        let mut postmaster = command.spawn().expect("postgres");
        let until = Instant::now() + Duration::from_mins(1);
        while run(self.command("pg_isready").arg("--host").arg(self.folder.path()).args(self.port_words())).code != 0 {
            let goes_on = Instant::now() < until && postmaster.try_wait().expect("postgres").is_none();
            assert!(goes_on, "PostgreSQL does not start: {}", fs::read_to_string(self.log_file()).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.postmaster = Some(postmaster);
    }

    fn port_words(&self) -> Vec<String> {
        self.port.iter().map(|port| format!("--port={port}")).collect()
    }

    /// Its port on loopback.
    ///
    /// # Panics
    /// When it has none.
    pub fn port(&self) -> u16 {
        self.port.expect("a cluster that is reached by loopback")
    }

    /// Kills every process of the cluster.
    pub fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        // The first of them starts others: until there is none.
        loop {
            let all = self.processes();
            if all.is_empty() {
                break;
            }
            for process in all {
                // It may have ended by itself.
                let _ = kill_process(process, Signal::KILL);
            }
            let _ = postmaster.wait();
        }
    }

    /// The database, for `--database`.
    pub fn url(&self) -> String {
        format!("postgres:///postgres?user=vendor&host={}", self.folder.path().display())
    }

    /// All processes of a cluster, and no others, work in its folder.
    fn processes(&self) -> Vec<Pid> {
        let data = self.data();
        let works_there = |process: &Path| fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == data);
        let processes = fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path()));
        processes
            .filter(|process| works_there(process))
            .filter_map(|process| Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?))
            .collect()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A program of PostgreSQL, which does not run as root.
    fn command(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = peer("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path()).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where Debian keeps the programs of the newest version.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let version = |programs: &PathBuf| programs.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    versions
        .map(|entry| entry.path().join("bin"))
        .filter(|programs| programs.join("postgres").is_file())
        .max_by_key(version)
        .expect("PostgreSQL is not installed: install Debian's package `postgresql`, or run tests/run, which does")
}
