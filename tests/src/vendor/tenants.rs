//! A vendor's tenants: made, served together, and worked on by commands of their own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Vendor, trusting};
use crate::peer::{Said, program, run};
use crate::registry::free_port;
use crate::running::Running;

/// The process that serves a vendor's tenants.
#[derive(Debug)]
pub struct Tenants {
    running: Running,
    listen: String,
}

impl Tenants {
    /// Where they are served.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.running.id()
    }
}

impl Vendor {
    /// Starts to serve the tenants that there are and will be.
    ///
    /// # Panics
    /// When that does not start.
    pub fn serve_tenants(&self) -> Tenants {
        let listen = format!("127.0.0.1:{}", free_port());
        let mut command = self.command(["serve", "--tenants", "--offline", "--allow-simulated", "--listen", &listen]);
        let running = Running::start(&mut command, &self.home.with_file_name("tenants.log"));
        Tenants { running, listen }
    }

    /// Makes a tenant, and waits until it is served.
    ///
    /// # Panics
    /// When it is not.
    pub fn create_tenant(&self, tenants: &Tenants, name: &str, more: &[&str]) {
        self.sealift([&["tenant", "create", name, "--listen", &tenants.listen], more].concat()).succeeded();
        self.until_tenant_is(name, "served");
    }

    /// Waits until a tenant is in this state.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn until_tenant_is(&self, name: &str, state: &str) {
        let until = Instant::now() + Duration::from_mins(1);
        while self.tenant_state(name).as_deref() != Some(state) {
            let log = || std::fs::read_to_string(self.home.with_file_name("tenants.log")).unwrap_or_default();
            assert!(Instant::now() < until, "{name} is not {state}, but {:?}: {}", self.tenant_state(name), log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the list says of a tenant; `None` where it says nothing.
    ///
    /// # Panics
    /// When there is no list.
    pub fn tenant_state(&self, name: &str) -> Option<String> {
        let said = self.sealift(["--output", "json", "tenant", "list"]).succeeded().stdout;
        let list: Vec<Value> = serde_json::from_str(&said).expect("a list");
        let tenant = list.iter().find(|tenant| tenant["tenant"] == name)?;
        Some(tenant["state"].as_str().expect("a state").to_owned())
    }

    /// What is written down of tenants that were deleted, oldest first.
    ///
    /// # Panics
    /// When there is no list.
    pub fn deleted_tenants(&self) -> Vec<Value> {
        let said = self.sealift(["--output", "json", "tenant", "list", "--deleted"]).succeeded().stdout;
        serde_json::from_str(&said).expect("a list")
    }

    /// The tenant's home.
    pub fn tenant_home(&self, name: &str) -> PathBuf {
        self.home.join("tenants").join(name)
    }

    /// `sealift ARGS` on the tenant's home, not yet run.
    pub fn tenant_command<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program("sealift"));
        command.arg("--home").arg(self.tenant_home(name)).args(args).stdin(Stdio::null()).env_remove("SEALIFT_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `sealift ARGS` on the tenant's home.
    pub fn tenant<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Said {
        run(&mut self.tenant_command(name, args))
    }

    /// A client that knows the tenant's certificate authority alone, and finds its name at `address`; it bears no token.
    ///
    /// # Panics
    /// When the home lacks a file.
    pub fn tenant_client(&self, name: &str, address: SocketAddr) -> reqwest::Client {
        trusting(&self.tenant_home(name)).resolve(&format!("{name}.localhost"), address).build().expect("client")
    }

    /// Makes a product of a tenant whose images this build's shim may open, and an image of its own from the vendor's.
    ///
    /// # Panics
    /// When anything fails.
    pub fn give(&self, name: &str, product: &str, sealed: &str, image: &str) -> Value {
        let measurement = self.measurement(&self.shim());
        self.tenant(name, ["product", "create", product]).succeeded();
        self.tenant(name, ["reference", "add", "--product", product, "--digest", &measurement]).succeeded();
        let rewrap = ["--output", "json", "rewrap", sealed, image, "--product", product, "--tenant", name];
        serde_json::from_str(&self.sealift(rewrap).succeeded().stdout).expect("a result")
    }

    /// A licence that the tenant issued: its id, and its file beside the vendor's home.
    ///
    /// # Panics
    /// When it issues none.
    pub fn tenant_license(&self, name: &str, product: &str) -> (String, String) {
        let file = self.home.with_file_name(format!("{name}-{}.jwt", free_port())).display().to_string();
        let issue = ["license", "issue", "--product", product, "--customer", "customer", "--file", &file];
        (self.tenant(name, issue).succeeded().stdout.trim().to_owned(), file)
    }
}
