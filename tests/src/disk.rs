//! A small disk that can be full: memory mounted on a folder. Mounting needs root.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::peer::{peer, run};

/// A disk that is gone with the test.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Puts a disk of so many MiB under what is in `folder`.
    ///
    /// # Panics
    /// When the test does not run as root, or anything fails.
    pub fn under(folder: &Path, mebibytes: u32) -> Self {
        assert!(rustix::process::geteuid().is_root(), "a full disk is made of a mount: run this test as root");
        let aside = folder.with_added_extension("aside");
        fs::rename(folder, &aside).expect("aside");
        fs::create_dir(folder).expect("folder");
        let size = std::ffi::CString::new(format!("size={mebibytes}m,mode=700")).expect("text");
        mount("tmpfs", folder, "tmpfs", MountFlags::empty(), size.as_c_str()).expect("mount");
        let disk = Self { folder: folder.to_owned() };
        run(peer("cp").args(["--archive", "--no-target-directory"]).args([&aside, folder])).succeeded();
        disk
    }

    /// Fills it up but for so many bytes.
    ///
    /// # Panics
    /// When a file cannot be made.
    pub fn fill(&self, but: u64) {
        let mut file = File::create(self.filler()).expect("file");
        while file.write(&[1; 4096]).is_ok() {}
        let length = file.metadata().expect("file").len();
        file.set_len(length.saturating_sub(but)).expect("file");
    }

    /// Takes away what filled it.
    ///
    /// # Panics
    /// When it was not full.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("file");
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it keeps it until then.
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
    }
}
