//! A Python with packages of the Python Package Index (`PyPI`) in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::run;

/// A Python with these packages (`NAME==VERSION`), made once as `folder`.
///
/// # Panics
/// When it cannot be made.
pub fn python_with(folder: &Path, packages: &[&str]) -> PathBuf {
    let lock = fs::File::create(folder.with_extension("lock")).expect("a lock file");
    // Tests may run at the same time, each in a process of its own.
    lock.lock().expect("a lock");
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    let wanted = packages.join("\n");
    if fs::read_to_string(&ready).ok().as_ref() != Some(&wanted) {
        must(
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder),
            "install Debian's package python3-venv, or run tests/run, which does",
        );
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]);
        must(install.args(packages), "this test installs packages from PyPI and needs the network once");
        fs::write(&ready, wanted).expect("a file");
    }
    python
}

fn must(command: &mut Command, hint: &str) {
    let said = run(command);
    assert_eq!(said.code, 0, "{command:?} failed: {hint}\n{}", said.stderr);
}
