//! Where tests find real evidence: the folder of vectors, or packages of the registry as cargo keeps them.
#![allow(dead_code, reason = "each test crate uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of vectors, where it is at hand.
pub(crate) fn vectors() -> Option<PathBuf> {
    let folder = std::env::var_os("SEALIFT_VECTORS").map_or_else(beside_the_checkout, PathBuf::from);
    folder.join("MANIFEST.json").is_file().then_some(folder)
}

/// The folder `shared/vectors` of the first folder above this crate that has one.
fn beside_the_checkout() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/vectors"));
    above.into_iter().find(|folder| folder.is_dir()).unwrap_or_default()
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&read(&folder.join("MANIFEST.json"))).expect("JSON")
}

/// Where cargo keeps a package that this crate depends on.
pub(crate) fn package(name: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        // Packages of other platforms need not have been downloaded.
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let package = packages.iter().find(|package| package["name"] == name).expect("the package");
    Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder").to_owned()
}
