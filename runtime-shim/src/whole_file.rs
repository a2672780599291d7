//! Files that are whole at every moment: written beside their place and renamed. For files that only their owner may read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};

/// Writes the file whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    // Several writers of one process have each their own.
    let partial = path.with_extension(format!("{}.partial", uuid::Uuid::new_v4().simple()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // It may not even have come to be.
        let _ = fs::remove_file(&partial);
    }
    written.or_fail(ExitCode::Other, || format!("cannot keep `{}`", path.display()))
}
