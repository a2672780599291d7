//! Files that a command makes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::{ExitCode, Failure, FailureContext as _};

/// Writes a file with `mode`; one that exists is left as it is.
pub fn write_new(path: &Path, contents: &[u8], mode: u32) -> Result<(), Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(contents))
        .or_fail(ExitCode::BadInput, || format!("cannot write `{}`", path.display()))
}
