//! A site that boots real guests: a vendor whose service a virtual machine reaches, a registry, Debian's kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::{self, Said, peer, run};
use crate::registry::Registry;
use crate::vendor::Vendor;

/// This machine's loopback, as QEMU's user network shows it to a guest.
pub const HOST: &str = "10.0.2.2";
/// How long a boot may take at the most, in seconds: the virtual CPUs are emulated.
const BOOT_SECONDS: &str = "400";

/// The image's script: it says where it is, and ends with 7 or what it was given.
const SCRIPT: &str = "#!/bin/sh\necho \"hello $GREETING from $(id -u) in $(pwd)\"\n\
echo \"kernel $(uname -r)\"\nexit ${1:-7}\n";

/// A vendor, a registry with a sealed image, and a licence for it.
#[derive(Debug)]
pub struct Site {
    /// The vendor.
    pub vendor: Vendor,
    /// The registry.
    pub registry: Registry,
    /// The sealed image, as a guest reaches it.
    pub image: String,
    /// The licence.
    pub license: PathBuf,
    directory: PathBuf,
}

impl Site {
    /// Sets everything up in `directory`.
    ///
    /// # Panics
    /// When anything fails.
    pub fn start(directory: &Path, product: &str) -> Self {
        let vendor = Vendor::start_behind(HOST, directory, &[product]);
        let registry = Registry::start(&directory.join("registry"));
        let plain = plain_image(&directory.join("plain"));
        let sealed = vendor.pack(&plain, &registry.reference("app:v1"), product);
        let image = sealed.replace("127.0.0.1", HOST);
        let (_, license) = vendor.license(product, &[]);
        Self { vendor, registry, image, license, directory: directory.to_owned() }
    }

    /// `sealift guest build` into a new folder, not yet run; gives the folder as well.
    pub fn build_command(&self, name: &str) -> (Command, PathBuf) {
        let kernel = kernel();
        let folder = self.directory.join(name);
        let mut command = self.vendor.command(["guest", "build", &self.image]);
        command.arg(&folder).arg("--kernel").arg(&kernel.image).arg("--modules").arg(&kernel.modules);
        command.arg("--license").arg(&self.license).args(["--plain-http", "--simulated"]);
        (command, folder)
    }

    /// `sealift guest relay` into a new folder, for this licence, not yet run; gives the folder as well.
    pub fn relay_command(&self, name: &str, license: &Path) -> (Command, PathBuf) {
        let kernel = kernel();
        let folder = self.directory.join(name);
        let mut command = self.vendor.command(["guest", "relay"]);
        command.arg(&folder).arg("--kernel").arg(&kernel.image).arg("--modules").arg(&kernel.modules);
        command.arg("--license").arg(license).args(["--simulated", "--url", "https://relay.site.example:8443"]);
        (command, folder)
    }

    /// Builds a guest.
    ///
    /// # Panics
    /// When it fails.
    pub fn build(&self, name: &str) -> PathBuf {
        let (mut command, folder) = self.build_command(name);
        run(&mut command).succeeded();
        folder
    }

    /// The launch measurement of a guest on the simulated platform.
    ///
    /// # Panics
    /// When it cannot be computed.
    pub fn measurement(&self, guest: &Path) -> String {
        let mut command = self.vendor.command(["guest", "boot", "--measure-only"]);
        run(command.arg(guest)).succeeded().stdout.trim().to_owned()
    }

    /// Boots a guest and waits for its end.
    ///
    /// # Panics
    /// When QEMU is absent.
    pub fn boot(&self, guest: &Path) -> Said {
        run(&mut self.boot_command(guest, 1024))
    }

    /// The same with so many MiB of memory, not yet run.
    ///
    /// # Panics
    /// When QEMU is absent.
    pub fn boot_command(&self, guest: &Path, memory: u32) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let qemu = std::env::split_paths(&path).any(|folder| folder.join("qemu-system-x86_64").is_file());
        assert!(
            qemu,
            "QEMU is not installed: install Debian's package `qemu-system-x86`, or run tests/run, which does"
        );
        let boot = self.vendor.command(["guest", "boot", "--memory", &memory.to_string()]);
        let mut command = peer("timeout");
        command.args(["--kill-after=10", BOOT_SECONDS]).arg(boot.get_program()).args(boot.get_args()).arg(guest);
        command
    }
}

/// A kernel and its modules.
#[derive(Debug)]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

/// Debian's kernel for virtual machines.
///
/// # Panics
/// When it is absent.
pub fn kernel() -> Kernel {
    let entries = fs::read_dir("/boot").into_iter().flatten().filter_map(Result::ok);
    let mut versions: Vec<String> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(ToOwned::to_owned))
        .filter(|version| version.contains("-cloud-"))
        .collect();
    versions.sort();
    let version = versions.pop().expect(
        "no kernel for virtual machines: install Debian's package `linux-image-cloud-amd64`, or run tests/run, which does",
    );
    Kernel {
        image: Path::new("/boot").join(format!("vmlinuz-{version}")),
        modules: Path::new("/lib/modules").join(version),
    }
}

/// An image with a shell and a script, made by umoci; without user attributes, which older kernels do not keep in memory.
fn plain_image(directory: &Path) -> String {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let root = directory.join("root");
    fs::create_dir_all(root.join("bin")).expect("directory");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox: install Debian's package `busybox-static`");
    for name in ["sh", "id", "uname"] {
        symlink("busybox", root.join("bin").join(name)).expect("link");
    }
    let script = root.join("run.sh");
    fs::write(&script, SCRIPT).expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions");
    let tar = directory.join("layer.tar");
    run(peer("tar").arg("-C").arg(&root).arg("--owner=0").arg("--group=0").arg("-cf").arg(&tar).arg(".")).succeeded();
    let layout = directory.join("image");
    let image = format!("{}:v1", layout.display());
    run(peer("umoci").args(["init", "--layout"]).arg(&layout)).succeeded();
    run(peer("umoci").args(["new", "--image", &image])).succeeded();
    run(peer("umoci").args(["raw", "add-layer", "--image", &image]).arg(&tar)).succeeded();
    let config = [
        "config",
        "--image",
        &image,
        "--architecture",
        "amd64",
        "--os",
        "linux",
        "--config.env",
        "GREETING=world",
        "--config.env",
        "PATH=/bin",
        "--config.workingdir",
        "/opt",
        "--config.entrypoint",
        "/run.sh",
    ];
    run(&mut peer::command("umoci", config)).succeeded();
    format!("oci:{image}")
}
