//! Running other programs. A peer that is absent fails the test with the package that has it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Exit code, or 128 + the signal.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Said {
    /// The same, once it is seen to have succeeded.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often only the assertion is wanted")]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The same, once it is seen to have failed with `code` and `words` in its error.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often only the assertion is wanted")]
    pub fn failed(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(self.stderr.contains(words), "no `{words}` in: {}", self.stderr);
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Self {
            code: output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A peer by its name, checked to be there.
///
/// # Panics
/// When it is absent.
#[track_caller]
pub fn peer(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    assert!(there, "`{name}` is not installed: install the Debian package that has it, or run tests/run, which does");
    Command::new(name)
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> Said {
    command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")).into()
}

/// One of our own programs, built by `cargo build --workspace --bins`.
///
/// # Panics
/// When it has not been built.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let directory = test.parent().and_then(Path::parent).expect("tests are in target/<profile>/deps");
    let program = directory.join(name);
    assert!(program.is_file(), "`{}` is missing: run `cargo build --workspace --bins`", program.display());
    program
}

/// A command with arguments of any kind.
pub fn command<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A folder of this crate.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}
