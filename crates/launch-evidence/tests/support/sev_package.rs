//! Files that the `sev` package carries for its own tests, where cargo has unpacked it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The path of `name` inside the package.
///
/// # Panics
/// When cargo does not know the package, or it has no such file.
pub(crate) fn file(name: &str) -> PathBuf {
    let told = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo");
    assert!(told.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&told.stderr));
    let metadata: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let sev = packages.iter().find(|package| package["name"] == "sev").expect("the sev package");
    let path = PathBuf::from(sev["manifest_path"].as_str().expect("a path")).with_file_name(name);
    assert!(path.is_file(), "the sev package has no {name}");
    path
}
