//! Debian 13 in a folder, with current container tools that run by chroot.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::{Said, run};

/// The folder.
#[derive(Debug)]
pub struct Debian13(PathBuf);

impl Debian13 {
    /// Finds the folder, or makes it once.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn open() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian13-box");
        let said = run(&mut Command::new(script)).succeeded();
        Self(PathBuf::from(said.stdout.trim()))
    }

    /// The folder as this side sees it.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// A folder inside the box that is removed with the test.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn scratch(&self) -> tempfile::TempDir {
        tempfile::Builder::new().prefix("sealift-").tempdir_in(self.0.join("tmp")).expect("directory")
    }

    /// The path as programs in the box see it.
    ///
    /// # Panics
    /// When it is not inside.
    pub fn inside(&self, path: &Path) -> String {
        format!("/{}", path.strip_prefix(&self.0).expect("a path inside the box").display())
    }

    /// A program of the box, not yet run.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.0).arg(program);
        command
    }

    /// A program for which the box is the whole machine, not yet run: its root is the box, with a /run of its own and this
    /// machine's /proc, /dev and /sys; what it mounts goes with it. Engines unpack and mount below their root, which a chroot
    /// is not.
    pub fn machine(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", ENTER]).arg(&self.0).arg(program);
        command
    }

    /// Runs the box's skopeo.
    pub fn skopeo(&self, args: &[&str]) -> Said {
        run(self.command("skopeo").args(args))
    }
}

/// The box becomes the root of a mount namespace.
const ENTER: &str = r#"mount --rbind "$0" "$0" && for d in proc dev sys; do mount --rbind /$d "$0/$d" || exit; done &&
mount -t tmpfs none "$0/run" &&
cd "$0" && pivot_root . . && umount -l . && exec chroot . "$@""#;
