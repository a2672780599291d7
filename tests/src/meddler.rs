//! Somebody in front of a vendor's service who has its certificate and changes its answers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::peer::{fixture, peer};
use crate::registry::free_port;
use crate::running::Running;
use crate::vendor::Vendor;

/// See the module's text.
#[derive(Debug)]
pub struct Meddler {
    wish: PathBuf,
    seen: PathBuf,
    _running: Running,
}

impl Meddler {
    /// In front of the vendor's service, which moves to another port.
    ///
    /// # Panics
    /// When anything fails.
    pub fn start(vendor: &mut Vendor, directory: &Path) -> Self {
        vendor.stop_service();
        let port = free_port().to_string();
        let own_url = vendor.service_url();
        let own_port = own_url.rsplit(':').next().expect("port");
        let (wish, seen) = (directory.join("wish"), directory.join("seen"));
        fs::write(&wish, "").expect("file");
        let service = vendor.home().join("service");
        let mut command = peer("python3");
        command.arg(fixture("meddle.py")).args([own_port, &port]);
        command.arg(service.join("tls.pem")).arg(service.join("tls.key")).arg(&wish).arg(&seen);
        let running = Running::start(&mut command, &directory.join("meddler.log"));
        let mut serve = vendor.command(["serve", "--offline", "--allow-simulated", "--listen"]);
        serve.arg(format!("127.0.0.1:{port}"));
        vendor.serve_by(serve);
        Self { wish, seen, _running: running }
    }

    /// What becomes of answers from now on: nothing (empty), `no-receipt`, `false-receipt`, or `busy SECONDS`.
    ///
    /// # Panics
    /// When it cannot be told.
    pub fn wish(&self, wish: &str) {
        fs::write(&self.wish, wish).expect("file");
    }

    /// The requests so far, each with when it came, in seconds.
    ///
    /// # Panics
    /// When it has not noted them.
    pub fn requests(&self) -> Vec<(f64, String)> {
        let lines = fs::read_to_string(&self.seen).unwrap_or_default();
        let request = |line: &str| {
            let (at, path) = line.split_once(' ').expect("a line");
            (at.parse().expect("a time"), path.to_owned())
        };
        lines.lines().map(request).collect()
    }
}
