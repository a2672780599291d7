//! A workload that waits to be stopped: started, seen to run, and seen to end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use crate::vendor::Vendor;

/// Starts a workload that waits, and returns once it says so.
///
/// # Panics
/// When it ends early.
pub fn start_waiting(vendor: &Vendor, sealed: &str, license: &str, runtime: &str) -> (Child, BufReader<ChildStdout>) {
    start_waiting_under(vendor, sealed, &[license], runtime)
}

/// The same under a licence of each partner.
///
/// # Panics
/// When it ends early.
pub fn start_waiting_under(
    vendor: &Vendor,
    sealed: &str,
    licenses: &[&str],
    runtime: &str,
) -> (Child, BufReader<ChildStdout>) {
    start(vendor, sealed, licenses, &["--runtime", runtime, "--stop-timeout", "5", "--", "wait"])
}

/// The same for one that does not listen to SIGTERM.
///
/// # Panics
/// When it ends early.
pub fn start_stubborn(vendor: &Vendor, sealed: &str, license: &str, runtime: &str) -> (Child, BufReader<ChildStdout>) {
    start(vendor, sealed, &[license], &["--runtime", runtime, "--stop-timeout", "1", "--", "stubborn"])
}

/// The same with further arguments of `run`.
///
/// # Panics
/// When it ends early.
pub fn start_waiting_with(
    vendor: &Vendor,
    sealed: &str,
    license: &str,
    more: &[&str],
) -> (Child, BufReader<ChildStdout>) {
    start(vendor, sealed, &[license], &[more, &["--", "wait"]].concat())
}

fn start(vendor: &Vendor, sealed: &str, licenses: &[&str], more: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let licenses = licenses.iter().flat_map(|license| ["--license", *license]);
    let args = ["run", sealed].into_iter().chain(licenses).chain(more.iter().copied());
    let mut command = vendor.guest_command(&vendor.shim(), args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("guest");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    let mut line = String::new();
    while line != "ready\n" {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("stdout"), 0, "the workload ended early");
    }
    (child, stdout)
}

/// Waits for the end; gives exit code, the rest of stdout, and stderr.
///
/// # Panics
/// When there is no exit code.
pub fn finish(child: Child, mut stdout: BufReader<ChildStdout>) -> (i32, String, String) {
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("stdout");
    let output = child.wait_with_output().expect("guest");
    (output.status.code().expect("exit code"), rest, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Reads on until a line has these words; gives what was read.
///
/// # Panics
/// When the program ends without them.
pub fn wait_for_words(stderr: &mut BufReader<ChildStderr>, words: &str) -> String {
    let mut said = String::new();
    while !said.contains(words) {
        assert_ne!(stderr.read_line(&mut said).expect("stderr"), 0, "it ended without `{words}`: {said}");
    }
    said
}
