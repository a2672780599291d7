//! A relay at a site: its home, the vendor's licence and policy for it, and the guest that it runs in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::peer::{Said, program, run};
use crate::registry::free_port;
use crate::running::Running;
use crate::scene::{PRODUCT, Scene};

/// How long is waited for what a relay says.
const PATIENCE: Duration = Duration::from_secs(30);
/// A guest whose relay is started again when it was killed; it writes down the process.
const RESTARTING: &str = "#!/bin/sh\nwhile :; do\n  \"$RELAY_PROGRAM\" \"$@\" & echo $! >\"$RELAY_PROCESS\"; wait $!; code=$?\n\
  [ $code = 137 ] || exit $code\ndone\n";

/// A relay's home beside the vendor's.
#[derive(Debug)]
pub struct Relay {
    /// The home.
    pub home: PathBuf,
    /// The vendor's licence.
    pub license: PathBuf,
    /// Its id.
    pub id: String,
    /// What its guest runs first.
    guest: PathBuf,
}

impl Relay {
    /// Makes the home, and the vendor's licence and policy for it.
    ///
    /// # Panics
    /// When anything fails.
    pub fn prepare(scene: &Scene, more: &[&str]) -> Self {
        Self::in_guest(scene, program("sealift"), more)
    }

    /// The same for a guest in which the relay is started again when it was killed.
    ///
    /// # Panics
    /// When anything fails.
    pub fn prepare_restarting(scene: &Scene, more: &[&str]) -> Self {
        let guest = scene.scratch.path().join("relay-guest");
        fs::write(&guest, RESTARTING).expect("file");
        fs::set_permissions(&guest, fs::Permissions::from_mode(0o755)).expect("permissions");
        Self::in_guest(scene, guest, more)
    }

    fn in_guest(scene: &Scene, guest: PathBuf, more: &[&str]) -> Self {
        let vendor = &scene.vendor;
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/relay.rego");
        vendor.sealift(["policy", "set", "--product", PRODUCT, policy]).succeeded();
        let measurement = vendor.measurement(&guest);
        let label = ["--label", "relay: site"];
        vendor
            .sealift(["reference", "add", "--product", PRODUCT, "--digest", &measurement].iter().chain(&label))
            .succeeded();
        let (id, license) = vendor.license(PRODUCT, &[&["--relay"], more].concat());
        let this = Self { home: scene.scratch.path().join("relay"), license, id, guest };
        this.make_home();
        this
    }

    fn make_home(&self) {
        let listen = format!("127.0.0.1:{}", free_port());
        run(Command::new(program("sealift")).arg("--home").arg(&self.home).args(["init", "--listen", &listen]))
            .succeeded();
    }

    /// Another relay under the same licence, with a home of its own.
    ///
    /// # Panics
    /// When that cannot be made.
    #[must_use]
    pub fn other(&self) -> Self {
        let other = Self {
            home: self.home.with_file_name("other-relay"),
            license: self.license.clone(),
            id: self.id.clone(),
            guest: self.guest.clone(),
        };
        other.make_home();
        other
    }

    /// `serve --relay` in a simulated guest, not yet run.
    pub fn serve(&self, scene: &Scene) -> Command {
        let mut command = scene.vendor.command(["simulate", "launch", "--initrd"]);
        command.arg(&self.guest).arg("--").arg("--home").arg(&self.home).args(["serve", "--offline"]);
        command
            .arg("--allow-simulated")
            .arg("--simulated-platform")
            .arg(scene.vendor.home().join("simulated-platform"));
        command.arg("--relay").arg(&self.license);
        command.env("RELAY_PROGRAM", program("sealift")).env("RELAY_PROCESS", self.process_file());
        command
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(&self, scene: &Scene) -> Running {
        Running::start(&mut self.serve(scene), &self.log())
    }

    /// Starts it as a process that may end by itself, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn spawn(&self, scene: &Scene) -> Child {
        let child = self.spawn_early(scene);
        self.wait_for("serving on", 1);
        child
    }

    /// The same without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_early(&self, scene: &Scene) -> Child {
        let log = fs::File::create(self.log()).expect("log");
        self.serve(scene).stdout(Stdio::null()).stderr(log).spawn().expect("relay")
    }

    /// Waits until its log has these words so often.
    ///
    /// # Panics
    /// When it does not come to have them.
    #[track_caller]
    pub fn wait_for(&self, words: &str, times: usize) {
        let start = Instant::now();
        while self.said().matches(words).count() < times {
            assert!(start.elapsed() < PATIENCE, "no `{words}`: {}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.home.with_extension("log")
    }

    fn process_file(&self) -> PathBuf {
        self.home.with_extension("pid")
    }

    /// The process of a relay that is started again.
    ///
    /// # Panics
    /// When its guest has not written it down.
    pub fn process(&self) -> i32 {
        fs::read_to_string(self.process_file()).expect("a process").trim().parse().expect("a number")
    }

    /// The licence for its guests.
    pub fn child_license(&self) -> String {
        self.home.join("child.license").display().to_string()
    }

    /// `sealift ARGS` on its home.
    pub fn sealift(&self, args: &[&str]) -> Said {
        run(Command::new(program("sealift")).arg("--home").arg(&self.home).args(args))
    }

    /// Ids of the leases in its books.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn leases(&self) -> Vec<String> {
        ids(&self.sealift(&["--output", "json", "lease", "list", "--all"]), |_| true)
    }

    /// Ids of the leases that the vendor gave to relays of its licence.
    ///
    /// # Panics
    /// When the vendor's service does not answer.
    pub fn own_leases(&self, scene: &Scene) -> Vec<String> {
        let said = scene.vendor.sealift(["--output", "json", "lease", "list", "--all"]);
        ids(&said, |lease| lease["license"] == self.id.as_str())
    }

    /// How many image keys stand in its database.
    ///
    /// # Panics
    /// When that cannot be read.
    pub fn keys(&self) -> String {
        let entries = fs::read_dir(self.home.join("service")).expect("home");
        let mut files = entries.map(|entry| entry.expect("entry").path());
        let database = files.find(|path| path.extension().is_some_and(|end| end == "db")).expect("database");
        let count = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM image_key').fetchone()[0])";
        run(Command::new("python3").args(["-c", count]).arg(database)).succeeded().stdout.trim().to_owned()
    }
}

fn ids(said: &Said, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    assert_eq!(said.code, 0, "{}", said.stderr);
    let leases: Vec<Value> = serde_json::from_str(&said.stdout).expect("JSON");
    leases.iter().filter(|lease| wanted(lease)).map(|lease| lease["id"].as_str().expect("id").to_owned()).collect()
}
