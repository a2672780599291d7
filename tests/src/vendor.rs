//! The vendor's side of a test: a home, a simulated platform, a running service, and the commands on them.

mod custody;
mod tenants;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clock::by_clock;
use crate::front::Front;
use crate::peer::{Said, peer, program, run};
use crate::registry::free_port;
use crate::running::Running;
pub use tenants::Tenants;

/// A vendor with a service that runs.
#[derive(Debug)]
pub struct Vendor {
    home: PathBuf,
    /// `HOST:PORT` of the service.
    listen: String,
    /// The host that customers reach it by, where that is another than loopback.
    host: Option<String>,
    /// An ordinary user that everything runs as, instead of the caller.
    user: Option<User>,
    /// The PostgreSQL database, where it is not `SQLite` in the home.
    database: Option<String>,
    replicas: Vec<Replica>,
    /// The master key, where it is no file in the home.
    master_key: Option<String>,
    /// What all commands and the service find in their environment.
    environment: Vec<(String, String)>,
}

/// One process of the service.
#[derive(Debug, Default)]
struct Replica {
    /// Where it listens, when there are others.
    port: Option<u16>,
    running: Option<Running>,
}

/// An ordinary user and the programs that it can read.
#[derive(Debug)]
struct User {
    id: u32,
    programs: PathBuf,
}

impl Vendor {
    /// Like [`Self::start`], with every command run as the ordinary user `id`, for whom `directory` is opened.
    ///
    /// # Panics
    /// When anything fails.
    pub fn start_as(id: u32, directory: &Path, products: &[&str]) -> Self {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let own = directory.join("own");
        std::fs::create_dir(&own).expect("directory");
        for name in ["sealift", "sealift-shim"] {
            std::fs::copy(program(name), own.join(name)).expect("program");
        }
        chown(&own, Some(id), Some(id)).expect("owner");
        let user = User { id, programs: own.clone() };
        Self { user: Some(user), ..Self::new(&own) }.set_up(products)
    }

    /// Like [`Self::start`], for customers who reach the service as `host`.
    ///
    /// # Panics
    /// When anything fails.
    pub fn start_behind(host: &str, directory: &Path, products: &[&str]) -> Self {
        Self { host: Some(host.to_owned()), ..Self::new(directory) }.set_up(products)
    }

    /// Makes a home in `directory`, starts its service, and makes `products` whose images this build's shim may open.
    ///
    /// # Panics
    /// When anything fails.
    pub fn start(directory: &Path, products: &[&str]) -> Self {
        Self::new(directory).set_up(products)
    }

    /// Like [`Self::start`], with the service's state in a PostgreSQL database that so many replicas share. Customers and
    /// the vendor's commands come to them in turn.
    ///
    /// # Panics
    /// When anything fails.
    pub fn start_replicas(database: &str, replicas: usize, directory: &Path, products: &[&str]) -> Self {
        let ports: Vec<u16> = (0..replicas).map(|_| free_port()).collect();
        Self {
            listen: format!("127.0.0.1:{}", Front::start(&ports).port()),
            database: Some(database.to_owned()),
            replicas: ports.into_iter().map(|port| Replica { port: Some(port), running: None }).collect(),
            ..Self::new(directory)
        }
        .set_up(products)
    }

    fn new(directory: &Path) -> Self {
        Self {
            home: directory.join("home"),
            listen: format!("127.0.0.1:{}", free_port()),
            host: None,
            user: None,
            database: None,
            replicas: vec![Replica::default()],
            master_key: None,
            environment: Vec::new(),
        }
    }

    /// Makes a home in `directory` and a simulated platform in it; no service runs yet.
    ///
    /// # Panics
    /// When anything fails.
    pub fn prepare(directory: &Path) -> Self {
        let mut vendor = Self::new(directory);
        vendor.make_home();
        vendor
    }

    fn set_up(self, products: &[&str]) -> Self {
        let mut vendor = self;
        vendor.make_home();
        vendor.serve();
        vendor.create_products(products);
        vendor
    }

    fn make_home(&mut self) {
        let mut init = self.command(["init", "--listen", &self.listen]);
        if let Some(host) = &self.host {
            init.args(["--admin-url", &self.service_url(), "--url"]).arg(self.service_url().replace("127.0.0.1", host));
        }
        if let Some(database) = &self.database {
            init.args(["--database", database]);
        }
        if let Some(master_key) = &self.master_key {
            init.args(["--master-key", master_key]);
        }
        run(&mut init).succeeded();
        self.sealift(["simulate", "platform"]).succeeded();
    }

    /// Makes products whose images this build's shim may open.
    ///
    /// # Panics
    /// When anything fails.
    pub fn create_products(&self, products: &[&str]) {
        let measurement = self.measurement(&self.shim());
        for product in products {
            self.sealift(["product", "create", product]).succeeded();
            self.sealift(["reference", "add", "--product", product, "--digest", &measurement]).succeeded();
        }
    }

    /// Adds a section to the settings; a service that runs does not see it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn add_settings(&self, section: &str) {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().append(true).open(self.home.join("sealift.toml"));
        file.and_then(|mut file| write!(file, "\n{section}\n")).expect("settings");
    }

    /// A client that knows the service's certificate authority; it bears no token.
    ///
    /// # Panics
    /// When the home lacks a file.
    pub fn client(&self) -> reqwest::Client {
        trusting(&self.home).build().expect("client")
    }

    /// The token of the home's administrator.
    ///
    /// # Panics
    /// When the home has none.
    pub fn admin_token(&self) -> String {
        std::fs::read_to_string(self.home.join("admin.token")).expect("token").trim().to_owned()
    }

    /// Starts the service (again), all of its replicas.
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve(&mut self) {
        for number in 0..self.replicas.len() {
            self.serve_replica(number);
        }
    }

    /// Starts one of the replicas (again).
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve_replica(&mut self, number: usize) {
        let mut command = self.command(["serve", "--offline", "--allow-simulated"]);
        if let Some(port) = self.replicas[number].port {
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
        }
        self.replicas[number].running = Some(Running::start(&mut command, &self.service_log_file()));
    }

    /// Starts the service again with its clock `minutes` ahead, or behind.
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve_ahead(&mut self, minutes: i32) {
        self.serve_by_clock(&format!("{minutes:+}m"));
    }

    /// Starts the service again with a clock that goes so many times as fast as everybody else's.
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve_faster(&mut self, times: u32) {
        self.serve_by_clock(&format!("+0 x{times}"));
    }

    /// `time` as libfaketime has it.
    fn serve_by_clock(&mut self, time: &str) {
        let service = self.command(["serve", "--offline", "--allow-simulated"]);
        self.serve_by(by_clock(&service, time, &[]));
    }

    /// Starts the service (again) by `command`, which says on stdout when it serves.
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve_by(&mut self, mut command: Command) {
        self.replicas[0].running = Some(Running::start(&mut command, &self.service_log_file()));
    }

    /// Stops the service and puts `other` in its place: at the same address, behind the same certificate.
    ///
    /// # Panics
    /// When that fails.
    pub fn give_way_to(&mut self, other: &mut Self) {
        other.stop_service();
        self.stop_service();
        for file in ["tls.pem", "tls.key"] {
            let from = self.home.join("service").join(file);
            std::fs::copy(from, other.home.join("service").join(file)).expect("certificate");
        }
        let mut command = other.command(["serve", "--offline", "--allow-simulated", "--listen"]);
        command.arg(&self.listen);
        other.serve_by(command);
    }

    /// Kills the service, all of its replicas.
    pub fn stop_service(&mut self) {
        for replica in &mut self.replicas {
            replica.running = None;
        }
    }

    /// Kills one of the replicas.
    pub fn stop_replica(&mut self, number: usize) {
        self.replicas[number].running = None;
    }

    /// The running service's process, or what was put before it.
    ///
    /// # Panics
    /// When none runs.
    pub fn service_pid(&self) -> u32 {
        self.replicas[0].running.as_ref().expect("a service runs").id()
    }

    /// What the service logged.
    pub fn service_log(&self) -> String {
        std::fs::read_to_string(self.service_log_file()).unwrap_or_default()
    }

    fn service_log_file(&self) -> PathBuf {
        self.home.with_file_name("service.log")
    }

    /// The shim that this vendor's products know.
    pub fn shim(&self) -> PathBuf {
        self.user.as_ref().map_or_else(|| program("sealift-shim"), |user| user.programs.join("sealift-shim"))
    }

    /// `https://HOST:PORT` of the service.
    pub fn service_url(&self) -> String {
        format!("https://{}", self.listen)
    }

    /// The home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `sealift ARGS`, not yet run.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = match &self.user {
            None => Command::new(program("sealift")),
            Some(user) => {
                let mut command = peer("setpriv");
                command.args([format!("--reuid={}", user.id), format!("--regid={}", user.id)]);
                command.arg("--clear-groups").arg(user.programs.join("sealift")).env("HOME", &user.programs);
                command
            }
        };
        command.arg("--home").arg(&self.home).args(args).stdin(Stdio::null()).env_remove("SEALIFT_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `sealift ARGS`.
    pub fn sealift<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        run(&mut self.command(args))
    }

    /// The launch measurement of a shim.
    ///
    /// # Panics
    /// When it cannot be computed.
    pub fn measurement(&self, shim: &Path) -> String {
        let mut command = self.command(["simulate", "launch", "--measure-only", "--initrd"]);
        run(command.arg(shim)).succeeded().stdout.trim().to_owned()
    }

    /// Packs `source` and gives the sealed reference.
    ///
    /// # Panics
    /// When it fails.
    pub fn pack(&self, source: &str, destination: &str, product: &str) -> String {
        self.sealift(["pack", source, destination, "--product", product]).succeeded().stdout.trim().to_owned()
    }

    /// Issues a licence to a new file beside the home; gives its id and the file.
    ///
    /// # Panics
    /// When it fails.
    pub fn license(&self, product: &str, more: &[&str]) -> (String, PathBuf) {
        let name = format!("license-{}.jwt", free_port());
        let file = self.home.with_file_name(name);
        let mut command = self.command(["license", "issue", "--product", product, "--customer", "customer", "--file"]);
        let said = run(command.arg(&file).args(more)).succeeded();
        (said.stdout.trim().to_owned(), file)
    }

    /// `sealift-shim ARGS` in a simulated guest, not yet run. Its files go beside the home.
    pub fn guest_command<S: AsRef<OsStr>>(&self, shim: &Path, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(["simulate", "launch", "--initrd"]);
        command.arg(shim).arg("--").args(args).env("SEALIFT_STATE_DIR", self.state_directory());
        command
    }

    /// `sealift-shim` without a guest around it, not yet run. Its files go beside the home.
    pub fn bare_shim(&self) -> Command {
        let mut command = Command::new(self.shim());
        command.env("SEALIFT_STATE_DIR", self.state_directory()).stdin(Stdio::null());
        command
    }

    /// Runs `sealift-shim ARGS` in a simulated guest.
    pub fn guest<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        run(&mut self.guest_command(&self.shim(), args))
    }

    /// Where guests unpack.
    pub fn state_directory(&self) -> PathBuf {
        self.home.with_file_name("guest")
    }

    /// Asserts that no guest left anything behind.
    ///
    /// # Panics
    /// When one did.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.state_directory())
            .map(|entries| entries.map(|entry| entry.expect("entry").file_name()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "left behind: {left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let directory = self.state_directory().display().to_string();
        assert!(!mounts.contains(&directory), "still mounted: {mounts}");
    }
}

/// A client that knows the certificate authority of a home alone.
fn trusting(home: &Path) -> reqwest::ClientBuilder {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = std::fs::read(home.join("service/ca.pem")).expect("authority");
    let authority = reqwest::Certificate::from_pem(&authority).expect("authority");
    reqwest::Client::builder().tls_certs_only([authority]).no_proxy()
}
