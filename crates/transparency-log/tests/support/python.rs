//! A Python with the peer `aics-tlog` in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The peer's version; its command line is called, so it has to be one that is known.
const PEER: &str = "aics-tlog==0.2.1";

/// A Python with the peer in it, made once below the target folder. The peer asks for Python 3.12 and runs on Debian's 3.11
/// too.
pub(crate) fn with_peer() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aics-tlog-0.2.1");
    let lock = fs::File::create(folder.with_extension("lock")).expect("a lock file");
    // The tests of this file may run at the same time, each in a process of its own.
    lock.lock().expect("a lock");
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    if !ready.exists() {
        must(
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
            "install Debian's package python3-venv, or run tests/run, which does",
        );
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--ignore-requires-python"];
        must(
            Command::new(&python).args(install).arg(PEER),
            "this test installs aics-tlog from the Python Package Index (PyPI) and needs the network once",
        );
        fs::write(&ready, PEER).expect("a file");
    }
    python
}

fn must(command: &mut Command, hint: &str) {
    let told = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run ({error}): {hint}"));
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{command:?} failed: {hint}\n{said}");
}
