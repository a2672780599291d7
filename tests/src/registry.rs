//! Debian's docker-registry on a loopback port.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::peer::peer;

/// A registry that ends with the test.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Registry {
    /// Starts a registry with its files in `directory`.
    ///
    /// # Panics
    /// When it is absent or does not start.
    pub fn start(directory: &Path) -> Self {
        let port = free_port();
        fs::create_dir_all(directory).expect("directory");
        let config = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
            directory.join("data").display()
        );
        fs::write(&config, text).expect("config");
        let log = directory.join("log");
        let output = fs::File::create(&log).expect("log");
        let child = peer("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(output.try_clone().expect("log"))
            .stderr(output)
            .stdin(Stdio::null())
            .spawn()
            .expect("docker-registry");
        let registry = Self { child, port, log };
        registry.wait();
        registry
    }

    /// `docker://127.0.0.1:PORT/NAME`.
    pub fn reference(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/{name}", self.port)
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every request so far, one line each, in order.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("log")
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the registry does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago, below those that the system gives to outgoing connections.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    (0..1000)
        .map(|_| 10_000 + u16::try_from(RandomState::new().hash_one(0) % 20_000).expect("below 30,000"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
