//! A guest at the edge and its vendor's licensing desk: started with and without the service, renewed by file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clock::by_clock;
use crate::peer::{Said, run};
use crate::scene::{PRODUCT, Scene};

/// A scene with a licence that has an allowance, and a directory for the sealed state.
#[derive(Debug)]
pub struct Edge {
    /// The vendor and the image.
    pub scene: Scene,
    /// The licence's id.
    pub id: String,
    /// Its path.
    pub license: String,
    /// The directory.
    pub kept: PathBuf,
}

/// Where a guest is in time and network.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The service can be reached, the clock is right.
    Connected,
    /// In a network namespace with nothing in it, its clock so many hours ahead.
    CutOff(u32),
}

impl Edge {
    /// A licence with these further switches.
    ///
    /// # Panics
    /// When anything fails.
    pub async fn set(more: &[&str]) -> Self {
        let scene = Scene::set().await;
        let (id, license) = scene.vendor.license(PRODUCT, more);
        let kept = scene.scratch.path().join("kept");
        Self { id, license: license.display().to_string(), kept, scene }
    }

    /// `sealift-shim ARGS` in a guest, with a given shim.
    pub fn guest(&self, shim: &Path, place: Place, args: &[&str]) -> Command {
        let guest = self.scene.vendor.guest_command(shim, args);
        let Place::CutOff(hours) = place else { return guest };
        by_clock(&guest, &format!("+{hours}h"), &["--net"])
    }

    /// Starts the image as it should be.
    pub fn start(&self, place: Place) -> Said {
        self.start_from(&self.scene.vendor.shim(), place, &self.kept, &self.license, &[])
    }

    /// Starts it with another shim, state or licence.
    pub fn start_from(&self, shim: &Path, place: Place, kept: &Path, license: &str, more: &[&str]) -> Said {
        let kept = kept.display().to_string();
        let args = ["run", &self.scene.sealed, "--license", license, "--offline-state", &kept];
        let said = run(&mut self.guest(shim, place, &[&args[..], more].concat()));
        self.scene.vendor.assert_nothing_left();
        said
    }

    /// Asks for a renewal by file; gives the file.
    ///
    /// # Panics
    /// When it is refused.
    pub fn request(&self, place: Place, name: &str) -> PathBuf {
        let out = self.scene.scratch.path().join(name);
        self.request_to(place, &["--out", &out.display().to_string()]).succeeded();
        out
    }

    /// Asks for a renewal that is written as `output` says.
    pub fn request_to(&self, place: Place, output: &[&str]) -> Said {
        let kept = self.kept.display().to_string();
        let args = ["renewal", "request", &self.scene.sealed, "--license", &self.license, "--offline-state", &kept];
        run(&mut self.guest(&self.scene.vendor.shim(), place, &[&args[..], output].concat()))
    }

    /// The licensing desk answers.
    pub fn answer(&self, request: &Path, name: &str) -> (Said, PathBuf) {
        let out = self.scene.scratch.path().join(name);
        let mut command = self.scene.vendor.command(["lease", "renew", "--request"]);
        (run(command.arg(request).arg("--out").arg(&out)), out)
    }

    /// Takes an answer to the guest.
    pub fn accept(&self, place: Place, answer: &Path, kept: &Path) -> Said {
        let (answer, kept) = (answer.display().to_string(), kept.display().to_string());
        let args = ["renewal", "accept", &answer, "--offline-state", &kept];
        run(&mut self.guest(&self.scene.vendor.shim(), place, &args))
    }

    /// The sealed file.
    ///
    /// # Panics
    /// When there is none.
    pub fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(&self.kept).expect("kept").map(|entry| entry.expect("entry").path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "offline")).expect("a sealed file")
    }
}
