//! A Python with a peer of the Python Package Index in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with `peer` (`NAME==VERSION`) in it, made once below the target folder.
pub(crate) fn with_peer(peer: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(peer.replace("==", "-"));
    let lock = fs::File::create(folder.with_extension("lock")).expect("a lock file");
    // Tests may run at the same time, each in a process of its own.
    lock.lock().expect("a lock");
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    if !ready.exists() {
        must(
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
            "install Debian's package python3-venv, or run tests/run, which does",
        );
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--ignore-requires-python"];
        must(
            Command::new(&python).args(install).arg(peer),
            "this test installs its peer from the Python Package Index (PyPI) and needs the network once",
        );
        fs::write(&ready, peer).expect("a file");
    }
    python
}

fn must(command: &mut Command, hint: &str) {
    let told = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run ({error}): {hint}"));
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{command:?} failed: {hint}\n{said}");
}
