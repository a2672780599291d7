//! A vendor's site and a customer's, both in the Debian 13 box: sealed images of every tool that seals, an agent in a simulated
//! guest, and the engines with the configuration that `sealift-shim install` writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::cri::Cri;
use crate::debian13::Debian13;
use crate::image::PlainImage;
use crate::peer::{Said, program, run};
use crate::registry::Registry;
use crate::running::Running;
use crate::vendor::Vendor;

/// The product of the images.
pub const PRODUCT: &str = "recipe";

/// What seals an image on the vendor's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealer {
    /// `sealift pack`
    Pack,
    /// `skopeo copy --encryption-key`
    Skopeo,
    /// `buildah push --encryption-key`
    Buildah,
    /// `podman push --encryption-key`
    Podman,
}

impl Sealer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pack, Self::Skopeo, Self::Buildah, Self::Podman];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pack => "sealift",
            Self::Skopeo => "skopeo",
            Self::Buildah => "buildah",
            Self::Podman => "podman",
        }
    }
}

/// What decrypts layers for containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// `sealift-shim stream-processor`, as `install containerd` sets it up.
    Shim,
    /// imgcrypt's ctd-decoder, as containerd's documentation sets it up, with the key provider of `install podman`.
    CtdDecoder,
}

/// See the module's text.
#[derive(Debug)]
pub struct Site {
    agent: Option<Running>,
    engine: Option<Running>,
    /// Where plain and sealed images are.
    pub registry: Registry,
    /// The vendor.
    pub vendor: Vendor,
    /// The image before it was sealed.
    pub plain: PlainImage,
    /// Everything of it, inside the box.
    pub scratch: TempDir,
    /// The box.
    pub debian13: Debian13,
}

impl Site {
    /// Makes a vendor with a product, a registry, and a node that has the shim and nothing else yet.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn make() -> Self {
        let debian13 = Debian13::open();
        let scratch = debian13.scratch();
        let plain = PlainImage::make(&scratch.path().join("plain")).await;
        let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
        let registry = Registry::start(&scratch.path().join("registry"));
        for name in ["sealift", "sealift-shim"] {
            std::fs::copy(program(name), scratch.path().join(name)).expect("program");
        }
        let site = Self { agent: None, engine: None, registry, vendor, plain, scratch, debian13 };
        let args = ["--home", &site.debian13.inside(site.vendor.home()), "keyprovider"].map(ToOwned::to_owned);
        let provider = json!({"key-providers": {"sealift": {"cmd": {"path": site.inside("sealift"), "args": args}}}});
        std::fs::write(site.path("sealing.json"), provider.to_string()).expect("configuration");
        site
    }

    /// A place of the node as this side sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The same as the node sees it.
    pub fn inside(&self, name: &str) -> String {
        self.debian13.inside(&self.path(name))
    }

    /// Seals the plain image by a tool, has it finished where the tool is none of ours, and gives the reference by digest.
    ///
    /// # Errors
    /// What the tool or `pack --finish` said.
    ///
    /// # Panics
    /// When a tool that succeeded wrote no digest.
    pub fn seal(&self, by: Sealer) -> Result<String, String> {
        let name = self.registry.reference(&format!("vendor/{}:v1", by.name()));
        // Options come first: buildah takes none behind the image.
        let (mut tool, source) = match by {
            Sealer::Pack => {
                let args = ["pack", &self.plain.reference("mixed"), &name, "--product", PRODUCT];
                return Ok(ok(self.vendor.sealift(args))?.stdout.trim().to_owned());
            }
            Sealer::Skopeo => {
                let mut skopeo = self.debian13.command("skopeo");
                skopeo.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
                (skopeo, self.plain_inside("mixed"))
            }
            Sealer::Buildah | Sealer::Podman => {
                // Engines push what is in their storage; the pull says the image's id.
                let source = self.plain_inside(self.plain.add_simple());
                let pulled = ok(run(self.storage(by.name()).args(["pull", "--quiet", &source])))?;
                let mut tool = self.storage(by.name());
                tool.args(["push", "--tls-verify=false"]);
                (tool, pulled.stdout.trim().to_owned())
            }
        };
        let digest = self.path("digest");
        tool.args(["--encryption-key", "provider:sealift:product=recipe", "--digestfile"]);
        tool.args([&self.debian13.inside(&digest), &source, &name]);
        tool.env("OCICRYPT_KEYPROVIDER_CONFIG", self.inside("sealing.json"));
        ok(run(&mut tool))?;
        let pushed = format!("{name}@{}", std::fs::read_to_string(&digest).expect("digest").trim());
        Ok(ok(self.vendor.sealift(["pack", "--product", PRODUCT, "--finish", &pushed]))?.stdout.trim().to_owned())
    }

    fn plain_inside(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.debian13.inside(self.plain.directory()))
    }

    /// Starts an agent in a simulated guest, in the place of the one before; it knows of these images and of no others.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_agent(&mut self, license: &Path, images: &[String]) {
        self.agent = None;
        let state = tempfile::tempdir_in(self.scratch.path()).expect("directory").keep();
        let mut command = self.vendor.guest_command(&self.vendor.shim(), ["agent", "--license"]);
        command.arg(license).arg("--socket").arg(self.socket()).arg("--state-dir").arg(state);
        command.args(images.iter().flat_map(|image| ["--image", image]));
        self.agent = Some(Running::start(&mut command, &self.path("agent.log")));
    }

    fn socket(&self) -> PathBuf {
        self.path("agent/agent.sock")
    }

    /// What the agent said.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// `sealift-shim install ENGINE --write` below `system/`, as the node's own programs will read it.
    ///
    /// # Panics
    /// When it fails.
    pub fn install(&self, engine: &str) {
        std::fs::create_dir_all(self.path("system")).expect("directory");
        let version = run(self.debian13.machine(engine).arg("--version")).succeeded().stdout;
        let version = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let mut shim = self.vendor.bare_shim();
        shim.args(["install", engine, "--write", "--root"]).arg(self.path("system"));
        shim.args(["--shim", &self.inside("sealift-shim"), "--agent", &self.debian13.inside(&self.socket())]);
        run(shim.args(["--engine-version", version.expect("version")])).succeeded();
    }

    /// podman or buildah with a storage of the site's own, as this kind of machine needs it.
    pub fn storage(&self, program: &str) -> Command {
        let mut command = self.installed(program);
        command.args(["--root", &self.inside("storage"), "--runroot", &self.inside("storage-run")]);
        if program == "podman" {
            command.args(["--cgroup-manager", "cgroupfs"]);
        }
        command.env("CONTAINERS_CONF_OVERRIDE", self.inside("system/etc/containers/containers.conf.d/50-sealift.conf"));
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1").stdin(Stdio::null());
        command
    }

    /// A program of the box for which everything that `install` wrote is in its place.
    fn installed(&self, program: &str) -> Command {
        let mut command = self.debian13.machine("sh");
        command.args(["-c", INSTALLED, &self.inside("system"), program]);
        command
    }

    /// Where tools on the node find the shim as a key provider.
    pub fn opening(&self) -> String {
        self.inside("system/etc/sealift/ocicrypt.json")
    }

    /// Starts containerd afresh, with what `install` wrote in its usual places.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_containerd(&mut self, decoder: Decoder) -> Cri {
        self.engine = None;
        for name in ["containerd", "containerd-state"] {
            // There is none the first time.
            let _ = std::fs::remove_dir_all(self.path(name));
        }
        let socket = self.path("containerd.sock");
        let _ = std::fs::remove_file(&socket);
        // It says nothing itself.
        let mut command = self.installed("sh");
        let config = match decoder {
            Decoder::Shim => "config.toml",
            Decoder::CtdDecoder => "ctd-decoder.toml",
        };
        command.args(["-c", "echo starting; exec containerd --config \"/etc/containerd/$0\" >&2", config]);
        self.engine = Some(Running::start(&mut command, &self.path("containerd.log")));
        Cri::connect(&socket).await
    }

    /// containerd's own configuration, before ours is added: what it needs on this kind of machine. Beside it the one that
    /// has ctd-decoder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure_containerd(&self) {
        let pause = self.registry.reference("pause:1").replace("docker://", "");
        let [root, state, socket] = ["containerd", "containerd-state", "containerd.sock"].map(|name| self.inside(name));
        let text = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  sandbox_image = "{pause}"
"#
        );
        let directory = self.path("system/etc/containerd");
        std::fs::create_dir_all(&directory).expect("directory");
        std::fs::write(directory.join("config.toml"), &text).expect("configuration");
        let text = text + &CTD_DECODER.replace("PROVIDERS", &self.opening());
        std::fs::write(directory.join("ctd-decoder.toml"), text).expect("configuration");
        self.push_pause();
    }

    /// A sandbox image of one static program; it shares no layer with others.
    fn push_pause(&self) {
        let rootfs = self.path("pause");
        std::fs::create_dir_all(&rootfs).expect("directory");
        std::fs::copy("/bin/busybox", rootfs.join("busybox")).expect("busybox");
        let (layout, tar) = (self.path("pause-image"), self.path("pause.tar"));
        let image = format!("{}:1", layout.display());
        let place = |args: &[&str]| run(Command::new("umoci").args(args)).succeeded();
        run(Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&tar).arg("busybox")).succeeded();
        place(&["init", "--layout", &layout.display().to_string()]);
        place(&["new", "--image", &image]);
        place(&["raw", "add-layer", "--image", &image, &tar.display().to_string()]);
        let command = ["--config.entrypoint", "/busybox", "--config.cmd", "sleep", "--config.cmd", "3600"];
        place(&[&["config", "--image", &image], &command[..]].concat());
        let source = format!("oci:{}:1", self.inside("pause-image"));
        self.debian13
            .skopeo(&[
                "copy",
                "--insecure-policy",
                "--dest-tls-verify=false",
                &source,
                &self.registry.reference("pause:1"),
            ])
            .succeeded();
    }

    /// What containerd said.
    pub fn containerd_log(&self) -> String {
        std::fs::read_to_string(self.path("containerd.log")).unwrap_or_default()
    }
}

impl Drop for Site {
    /// Ends what a failed test left behind: containers outlive the engine that started them, and are known by their mounts.
    fn drop(&mut self) {
        self.engine = None;
        let name = self.scratch.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let mounts = std::fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
            let id = process.file_name().to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
            if let Some(id) = id.filter(|_| mounts.contains(&name)) {
                // It may have ended by itself.
                let _ = kill_process(id, Signal::KILL);
            }
        }
    }
}

/// What goes below the section of CRI for ctd-decoder, and for the runtime class that `install containerd` would add.
const CTD_DECODER: &str = r#"
  [plugins."io.containerd.grpc.v1.cri".image_decryption]
    key_model = "node"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.sealift]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.sealift.options]
      BinaryName = "/usr/local/libexec/sealift-oci-runtime"
[stream_processors]
  [stream_processors."io.containerd.ocicrypt.decoder.v1.tar"]
    accepts = ["application/vnd.oci.image.layer.v1.tar+encrypted", "application/vnd.oci.image.layer.v1.tar+zstd+encrypted"]
    returns = "application/vnd.docker.image.rootfs.diff.tar"
    path = "ctd-decoder"
    env = ["OCICRYPT_KEYPROVIDER_CONFIG=PROVIDERS"]
  [stream_processors."io.containerd.ocicrypt.decoder.v1.tar.gzip"]
    accepts = ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"]
    returns = "application/vnd.oci.image.layer.v1.tar+gzip"
    path = "ctd-decoder"
    env = ["OCICRYPT_KEYPROVIDER_CONFIG=PROVIDERS"]
"#;

/// Puts what is installed in its place, where there is such a place.
const INSTALLED: &str = r#"for d in etc/containerd usr/local/libexec run/sealift; do
if [ -d "$0/$d" ]; then mkdir -p "/$d" && mount --bind "$0/$d" "/$d" || exit; fi; done; exec "$@""#;

/// What a program said, if it succeeded; else why it did not.
///
/// # Errors
/// Its last words.
pub fn ok(said: Said) -> Result<Said, String> {
    if said.code == 0 { Ok(said) } else { Err(format!("exit code {}: {}", said.code, said.stderr.trim())) }
}
