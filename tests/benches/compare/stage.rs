//! What all rows share: the box with the peers, a vendor with a running service, keys, and where files lie.

use std::path::{Path, PathBuf};
use std::process::Command;

use end_to_end::debian13::Debian13;
use end_to_end::peer::{peer, run};
use end_to_end::registry::Registry;
use end_to_end::vendor::Vendor;
use tempfile::TempDir;

/// The product of all images.
pub(crate) const PRODUCT: &str = "compare";

/// Where files lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Place {
    /// A file system in memory.
    Memory,
    /// The disk under the box with the peers.
    Disk,
}

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "in memory",
            Self::Disk => "on disk",
        }
    }
}

/// Everything that is set up once.
pub(crate) struct Stage {
    pub(crate) debian13: Debian13,
    pub(crate) vendor: Vendor,
    pub(crate) license: PathBuf,
    /// The private key of a further recipient, which skopeo opens layers with.
    pub(crate) key: PathBuf,
    /// Its public half.
    pub(crate) public_key: PathBuf,
    pub(crate) registry: Registry,
    memory: Mounted,
    // The last to go: the others have files in it.
    scratch: TempDir,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let debian13 = Debian13::open();
        let scratch = debian13.scratch();
        let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
        let (_, license) = vendor.license(PRODUCT, &["--seats", "1000"]);
        let (key, public_key) = (scratch.path().join("recipient"), scratch.path().join("recipient.pub"));
        let rsa = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"];
        run(peer("openssl").args(rsa).arg(&key)).succeeded();
        run(peer("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public_key)).succeeded();
        let registry = Registry::start(&scratch.path().join("registry"));
        let memory = Mounted::at(scratch.path().join("memory"));
        Self { debian13, vendor, license, key, public_key, registry, memory, scratch }
    }

    /// A folder that goes with its row.
    pub(crate) fn directory(&self, place: Place) -> TempDir {
        let parent = match place {
            Place::Memory => &self.memory.0,
            Place::Disk => self.scratch.path(),
        };
        tempfile::tempdir_in(parent).expect("directory")
    }

    /// Packs an image for the product and for the further recipient.
    pub(crate) fn seal(&self, from: &str, to: &str) -> String {
        let mut command = self.vendor.command(["pack", from, to, "--product", PRODUCT, "--recipient"]);
        run(command.arg(format!("jwe:{}", self.public_key.display()))).succeeded().stdout.trim().to_owned()
    }

    /// `sealift-shim ARGS` in a simulated guest with the licence, not yet run.
    pub(crate) fn guest(&self, args: &[&str]) -> Command {
        let mut command = self.vendor.guest_command(&self.vendor.shim(), args);
        command.arg("--license").arg(&self.license);
        command
    }

    /// The box's `skopeo copy`, not yet run.
    pub(crate) fn skopeo_copy(&self) -> Command {
        let mut command = self.debian13.command("skopeo");
        command.arg("copy");
        command
    }

    /// `oci:DIR:v1` as programs of the box see it.
    pub(crate) fn oci_inside(&self, directory: &Path) -> String {
        format!("oci:{}:v1", self.debian13.inside(directory))
    }
}

/// `oci:DIR:v1`.
pub(crate) fn oci(directory: &Path) -> String {
    format!("oci:{}:v1", directory.display())
}

/// A file system in memory, for as long as this lives. `tests/bench/compare` gives the bench a mount namespace of its own, with
/// which it goes in any case.
struct Mounted(PathBuf);

impl Mounted {
    fn at(directory: PathBuf) -> Self {
        std::fs::create_dir(&directory).expect("directory");
        run(peer("mount").args(["-t", "tmpfs", "-o", "size=75%", "sealift-compare"]).arg(&directory)).succeeded();
        Self(directory)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(peer("umount").arg("--lazy").arg(&self.0));
    }
}
