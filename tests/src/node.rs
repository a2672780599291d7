//! A node in the Debian 13 box: mounts of its own, a vendor and a registry that it reaches, an agent, and container engines.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::debian13::Debian13;
use crate::image::PlainImage;
use crate::peer::{Said, program, run};
use crate::registry::Registry;
use crate::vendor::Vendor;

/// The product of the node's sealed image.
pub const PRODUCT: &str = "recipe";

/// What a container needs on machines that run tests.
const RUN: [&str; 5] = ["--network=host", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=1000:1000"];

/// Makes the mounts; all of them go with the namespace.
const MOUNTS: &str = "mount --bind $0 $0 && for name in proc sys dev; do mount --rbind /$name $0/$name || exit 1; done \
                      && mount -t tmpfs none $0/run && echo ready && exec sleep infinity";

/// See the module's text.
#[derive(Debug)]
pub struct Node {
    /// The vendor, its home inside the box.
    pub vendor: Vendor,
    /// The image before it was sealed.
    pub plain: PlainImage,
    /// `docker://127.0.0.1:PORT/vendor/recipe@DIGEST`
    pub sealed: String,
    /// Where the sealed image is.
    pub registry: Registry,
    /// The licence that agent and key provider have, inside the box.
    license: PathBuf,
    namespace: Child,
    scratch: TempDir,
    debian13: Debian13,
}

impl Node {
    /// Makes it, with a sealed image in the registry and no licence yet.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn make() -> Self {
        let debian13 = Debian13::open();
        let scratch = debian13.scratch();
        let at = |name: &str| scratch.path().join(name);
        let plain = PlainImage::make(&at("plain")).await;
        let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
        let registry = Registry::start(&at("registry"));
        let sealed = vendor.pack(&plain.reference("mixed"), &registry.reference("vendor/recipe:v1"), PRODUCT);
        for name in ["sealift", "sealift-shim"] {
            std::fs::copy(program(name), at(name)).expect("program");
        }
        std::os::unix::fs::symlink("sealift-shim", at("sealift-runtime")).expect("link");
        let mut namespace = Command::new("unshare");
        namespace.args(["--mount", "sh", "-c", MOUNTS]).arg(debian13.root());
        let mut namespace = namespace.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("namespace");
        let mut ready = [0; 6];
        std::io::Read::read_exact(namespace.stdout.as_mut().expect("stdout"), &mut ready).expect("mounts");
        let license = at("license.jwt");
        let node = Self { vendor, plain, sealed, registry, license, namespace, scratch, debian13 };
        std::fs::write(node.path("ocicrypt.json"), node.key_provider().to_string()).expect("configuration");
        node
    }

    /// Gives the node another licence, in the place of the one that it had; gives its id.
    ///
    /// # Panics
    /// When anything fails.
    pub fn license(&self, more: &[&str]) -> String {
        let (id, file) = self.vendor.license(PRODUCT, more);
        std::fs::rename(file, &self.license).expect("licence");
        id
    }

    /// Ends a licence.
    pub fn revoke(&self, license: &str) {
        self.vendor.sealift(["license", "revoke", license, "--reason", "contract ended"]).succeeded();
    }

    /// A path of this node, as this side sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A path of this node, as programs in the box see it.
    pub fn inside(&self, name: &str) -> String {
        self.debian13.inside(&self.path(name))
    }

    /// A path anywhere in the box, as programs in it see it.
    pub fn inside_of(&self, path: &Path) -> String {
        self.debian13.inside(path)
    }

    /// A program of the box among the node's mounts, not yet run.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.namespace.id()));
        command.arg("chroot").arg(self.debian13.root()).arg(program).stdin(Stdio::null());
        command
    }

    /// A program for which the box is the whole machine, not yet run; it shares the node's files and none of its mounts.
    pub fn machine(&self, program: &str) -> Command {
        self.debian13.machine(program)
    }

    /// Starts an agent that may open the sealed image; killed with the value.
    ///
    /// # Panics
    /// When it does not start.
    pub fn agent(&self) -> Agent {
        let mut command = self.command(&self.inside("sealift"));
        command.args(["--home", &self.inside_of(self.vendor.home()), "simulate", "launch", "--initrd"]);
        command.args([&self.inside("sealift-shim"), "--", "agent", "--image", &self.sealed]);
        command.args(["--license", &self.inside("license.jwt"), "--state-dir", &self.inside("state")]);
        command.args(["--socket", &self.inside("run/agent.sock")]);
        Agent::start(&mut command, &self.path("run/agent.sock"), &self.path("agent.log"))
    }

    /// What agents said.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// `podman ARGS` with our runtime, not yet run; its storage is called `storage`.
    pub fn podman_with(&self, storage: &str, args: &[&str]) -> Command {
        let mut command = self.command("podman");
        command.args(["--root", &self.inside(storage), "--runroot", &self.inside(&format!("{storage}.run"))]);
        command.args(["--storage-driver=overlay", "--cgroup-manager=cgroupfs"]);
        command.args(["--runtime", &self.inside("sealift-runtime")]);
        command.args(["--runtime-flag", &format!("agent={}", self.inside("run/agent.sock"))]).args(args);
        command.env("OCICRYPT_KEYPROVIDER_CONFIG", self.inside("ocicrypt.json")).env("SEALIFT_IMAGE", &self.sealed);
        command.env("SEALIFT_LICENSE", self.inside("license.jwt")).env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        command
    }

    /// Runs `podman ARGS`.
    pub fn podman(&self, args: &[&str]) -> Said {
        run(&mut self.podman_with("storage", args))
    }

    /// `podman run ARGS`.
    pub fn podman_run(&self, args: &[&str]) -> Said {
        self.podman(&[&["run"], &RUN[..], args].concat())
    }

    /// `podman run ARGS` with crun below our runtime, which wants control groups of version 2 alone.
    ///
    /// # Panics
    /// When the node cannot be given such.
    pub fn podman_run_with_crun(&self, args: &[&str]) -> Said {
        let alone = "grep -q '^none /sys/fs/cgroup cgroup2' /proc/mounts || \
                     { umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup; }";
        run(self.command("sh").args(["-c", alone])).succeeded();
        // There are no controllers in it on this kind of machine.
        let (script, inner) = (self.path("crun"), format!("inner={}", self.inside("crun")));
        std::fs::write(&script, "#!/bin/sh\nexec /usr/bin/crun --cgroup-manager=disabled \"$@\"\n").expect("script");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("script");
        let crun = ["--runtime-flag", &inner, "run"];
        self.podman(&[&crun[..], &RUN[..], args].concat())
    }

    /// Has podman pull the sealed image through the key provider; gives the name that it has there. By its tag: podman
    /// decrypts nothing that is named by digest.
    ///
    /// # Panics
    /// When it fails.
    pub fn pull(&self) -> String {
        let name = self.registry.reference("vendor/recipe:v1");
        let args = ["pull", "--tls-verify=false", "--decryption-key", "provider:attestation-agent:any", &name];
        self.podman(&args).succeeded();
        name.trim_start_matches("docker://").to_owned()
    }

    fn key_provider(&self) -> serde_json::Value {
        let (home, shim) = (self.inside_of(self.vendor.home()), self.inside("sealift-shim"));
        let args = ["--home", &home, "simulate", "launch", "--initrd", &shim, "--", "keyprovider"];
        json!({"key-providers": {"attestation-agent": {"cmd": {"path": self.inside("sealift"), "args": args}}}})
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What a failed test left running; containers that are gone already are no trouble.
        if self.path("storage").exists() {
            run(&mut self.podman_with("storage", &["rm", "--all", "--force", "--time", "0"]));
        }
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }
}

/// Waits until `seen` gives something.
///
/// # Panics
/// When `most` is over.
#[track_caller]
pub fn wait_for<T>(what: &str, most: Duration, mut seen: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + most;
    loop {
        if let Some(found) = seen() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come within {most:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
