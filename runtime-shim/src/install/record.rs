//! Writing a plan, and a record of it by which exactly that is removed again.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use command_line::{ExitCode, Failure, FailureContext as _};
use image_store::Digest;
use serde::{Deserialize, Serialize};

use super::plan::{Plan, PlannedLine, Writing};

/// The directory that is the root of the system to install in.
pub(super) struct Root(PathBuf);

/// What was written for one engine.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    files: Vec<WrittenFile>,
    lines: Vec<PlannedLine>,
    /// Directories that were made, each before those in it.
    directories: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    path: String,
    digest: String,
}

impl Root {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where a path of that system is here.
    pub(super) fn join(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The text of a file of that system; `None` where there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, Failure> {
        let text = self.read_bytes(path)?.map(String::from_utf8).transpose();
        text.or_fail(ExitCode::BadInput, || format!("`{path}` is no text"))
    }

    fn read_bytes(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        match fs::read(self.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).or_fail(ExitCode::Other, || format!("cannot read `{path}`")),
        }
    }

    /// What was written for an engine; nothing where there is no record.
    fn record(&self, engine: &str) -> Result<Record, Failure> {
        let path = record_path(engine);
        let Some(text) = self.read(&path)? else { return Ok(Record::default()) };
        serde_json::from_str(&text).or_fail(ExitCode::BadInput, || format!("`{path}` is no record of `install`"))
    }

    /// Puts a file in its place, whole or not at all.
    fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), Failure> {
        let target = self.join(path);
        let directory = target.parent().unwrap_or(&self.0);
        let put = || {
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(content)?;
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            file.persist(&target)?;
            io::Result::Ok(())
        };
        put().or_fail(ExitCode::Other, || format!("cannot write `{path}`"))
    }
}

/// The directories above a file, each before those in it.
fn directories(path: &str) -> Vec<String> {
    let above = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
    let mut directories: Vec<String> = above.filter(|directory| *directory != "/").map(ToOwned::to_owned).collect();
    directories.reverse();
    directories
}

fn record_path(engine: &str) -> String {
    format!("/etc/sealift/installed-{engine}.json")
}

/// Writes what is planned. Files that were written before are replaced if nobody has changed them since.
///
/// # Errors
/// When a file is in the way that is not ours: nothing has been written then.
pub(super) fn write(root: &Root, engine: &str, plan: &Plan) -> Result<(), Failure> {
    let records = records(root)?;
    for file in plan.writings() {
        refuse_foreign(root, &file, &records)?;
    }
    let note = record_path(engine);
    let mut record = root.record(engine)?;
    for path in plan.writings().map(|file| file.path).chain([note.as_str()]) {
        for directory in directories(path) {
            let is_missing = !root.join(&directory).exists();
            if is_missing {
                fs::create_dir(root.join(&directory))
                    .or_fail(ExitCode::Other, || format!("cannot make `{directory}`"))?;
            }
            // One that was made for another engine is both's: whoever goes last removes it.
            let is_ours = is_missing || records.iter().any(|record| record.directories.contains(&directory));
            if is_ours && !record.directories.contains(&directory) {
                record.directories.push(directory);
            }
        }
    }
    record.files = plan.writings().map(|file| WrittenFile::new(file.path, file.content)).collect();
    for line in &plan.lines {
        record.lines.retain(|old| old.path != line.path);
        record.lines.push(line.clone());
    }
    // Noted first: what is then written halfway can be removed, too.
    let text = serde_json::to_string_pretty(&record).or_fail(ExitCode::Other, || format!("cannot write `{note}`"))?;
    root.put(&note, text.as_bytes(), 0o644)?;
    for file in plan.writings() {
        root.put(file.path, file.content, file.mode)?;
    }
    for line in &plan.lines {
        let text = root.read(&line.path)?.unwrap_or_default();
        if line.remove(&text).is_none() {
            root.rewrite(&line.path, &line.insert(&text))?;
        }
    }
    Ok(())
}

/// Removes what was written for an engine, and nothing that another engine needs or that somebody has changed since.
/// Gives what it removed.
///
/// # Errors
/// When nothing was written, or when a file was changed: nothing has been removed then.
pub(super) fn undo(root: &Root, engine: &str) -> Result<Vec<String>, Failure> {
    let note = record_path(engine);
    if root.read(&note)?.is_none() {
        return Err(Failure::bad_input(format!("nothing is installed for {engine} (there is no `{note}`)")));
    }
    let record = root.record(engine)?;
    let mut others = Vec::new();
    for other in ENGINES.into_iter().filter(|other| *other != engine) {
        others.extend(root.record(other)?.files.into_iter().map(|file| file.path));
    }
    let ours: Vec<&WrittenFile> = record.files.iter().filter(|file| !others.contains(&file.path)).collect();
    let mut present = Vec::new();
    for file in ours {
        match root.read_bytes(&file.path)? {
            None => {}
            Some(bytes) if file.is(&bytes) => present.push(file.path.clone()),
            Some(_) => {
                return Err(Failure::bad_input(format!("`{}` was changed since it was installed", file.path))
                    .hint("move it away, then run this once more"));
            }
        }
    }
    let mut removed = Vec::new();
    for line in &record.lines {
        let text = root.read(&line.path)?.unwrap_or_default();
        if let Some(rest) = line.remove(&text) {
            root.rewrite(&line.path, &rest)?;
            removed.push(format!("{}: {}", line.path, line.line.trim_start()));
        }
    }
    for path in present.into_iter().chain([note]) {
        fs::remove_file(root.join(&path)).or_fail(ExitCode::Other, || format!("cannot remove `{path}`"))?;
        removed.push(path);
    }
    for directory in record.directories.iter().rev() {
        // One that somebody has put something into stays.
        if fs::remove_dir(root.join(directory)).is_ok() {
            removed.push(directory.clone());
        }
    }
    Ok(removed)
}

impl Root {
    /// Changes a file that is somebody else's, its mode kept.
    fn rewrite(&self, path: &str, content: &str) -> Result<(), Failure> {
        let metadata = fs::metadata(self.join(path)).or_fail(ExitCode::Other, || format!("cannot read `{path}`"))?;
        self.put(path, content.as_bytes(), metadata.permissions().mode() & 0o7777)
    }
}

impl WrittenFile {
    fn new(path: &str, content: &[u8]) -> Self {
        Self { path: path.to_owned(), digest: Digest::of(content).to_string() }
    }

    fn is(&self, content: &[u8]) -> bool {
        Digest::of(content).to_string() == self.digest
    }
}

fn records(root: &Root) -> Result<Vec<Record>, Failure> {
    ENGINES.into_iter().map(|engine| root.record(engine)).collect()
}

fn refuse_foreign(root: &Root, file: &Writing<'_>, records: &[Record]) -> Result<(), Failure> {
    let Some(bytes) = root.read_bytes(file.path)? else { return Ok(()) };
    let mut written = records.iter().flat_map(|record| &record.files);
    if bytes == file.content || written.any(|written| written.path == file.path && written.is(&bytes)) {
        return Ok(());
    }
    Err(Failure::bad_input(format!("`{}` is there already and is not as this program wrote it", file.path))
        .hint("move it away, or put into it yourself what `--dry-run` prints"))
}

/// The engines whose records there may be.
const ENGINES: [&str; 4] = ["containerd", "podman", "crio", "docker"];
