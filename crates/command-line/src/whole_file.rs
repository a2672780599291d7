//! Files that are whole at every moment: written beside their place and renamed. For files that only their owner may read.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::{ExitCode, Failure, FailureContext as _};

/// Writes the file whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    put(path, bytes, |_| Ok(()))
}

/// The same, and it is on the disk when this returns.
///
/// # Errors
/// When it cannot be written.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    put(path, bytes, fs::File::sync_all)?;
    let directory = path.parent().unwrap_or(path);
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .or_fail(ExitCode::Other, || format!("cannot keep `{}`", path.display()))
}

fn put(path: &Path, bytes: &[u8], written: impl FnOnce(&fs::File) -> io::Result<()>) -> Result<(), Failure> {
    // Several writers of one process have each their own.
    let partial = path.with_extension(format!("{}.partial", uuid::Uuid::new_v4().simple()));
    let put = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| written(&file)))
        .and_then(|()| fs::rename(&partial, path));
    if put.is_err() {
        // It may not even have come to be.
        let _ = fs::remove_file(&partial);
    }
    put.or_fail(ExitCode::Other, || format!("cannot keep `{}`", path.display()))
}
