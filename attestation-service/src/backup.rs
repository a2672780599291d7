//! Copies of the `SQLite` database: made while the service runs, checked entry by entry, and put back in its place. Keys are
//! not in them: the vendor home's other files are copied once, and when its master key is another one.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use transparency_log::{Checkpoint, Hash};

use crate::home::{Home, HomeError};
use crate::log_head::{self, LogHeadError};
use crate::store::{Database, Store, StoreError, lock};

/// Why a copy was not made, or not put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is something at that place already.
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("cannot write `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database does not answer, or is none.
    #[error("`{}` cannot be read as a database of this service", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The home's keys cannot be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The copy is older than what the service has signed, or of another log.
    #[error(transparent)]
    Log(#[from] LogHeadError),
}

/// What a copy holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Copied {
    /// How many entries its audit log has; each was hashed again.
    pub entries: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Copies the home's database to the new file `to`. The service may be running.
pub async fn back_up(home: &Home, to: &Path) -> Result<Copied, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let staging = staging(to)?;
    let copy = staging.path().join("copy");
    copy_database(&home.database_path(), &copy).await?;
    let copied = checked(&copy, None).await?;
    // A copy is believed when everything in it has been written.
    fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(failed(&copy))?;
    // Token hashes and sealed keys are the vendor's alone.
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).map_err(failed(&copy))?;
    // Never in the place of something else.
    fs::hard_link(&copy, to).map_err(failed(to))?;
    Ok(copied)
}

/// Puts the copy `from` in the place of the home's database, which is kept beside it under another name. No service may run on
/// the home, and the copy must hold all that the service has signed.
pub async fn restore(home: &Home, from: &Path, now: Timestamp) -> Result<(Copied, Option<PathBuf>), BackupError> {
    let path = home.database_path();
    let _lock = lock(&path).map_err(|source| BackupError::Database { path: path.clone(), source })?;
    let staging = staging(&path)?;
    let copy = staging.path().join("copy");
    copy_database(from, &copy).await?;
    // A log that begins anew has neither signed anything nor a key yet.
    let head = home.log_head_path();
    let signed = if head.exists() { log_head::read(&head, &home.log_verifier_key()?)? } else { None };
    let copied = checked(&copy, signed).await?;
    fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(failed(&copy))?;
    let replaced = replace(&path, &copy, now)?;
    Ok((copied, replaced))
}

/// A folder beside `path`, the owner's alone, that is gone with its value.
fn staging(path: &Path) -> Result<tempfile::TempDir, BackupError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".sealift-copy-").tempdir_in(folder).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> BackupError {
    move |source| BackupError::File { path: path.to_owned(), source }
}

/// As it is at one moment, whoever writes meanwhile.
async fn copy_database(from: &Path, to: &Path) -> Result<(), BackupError> {
    let unreadable = |source: sqlx::Error| BackupError::Database { path: from.to_owned(), source: source.into() };
    let options = SqliteConnectOptions::new().filename(from).read_only(true);
    let mut connection = options.connect().await.map_err(unreadable)?;
    let target = to.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO $1").bind(target).execute(&mut connection).await.map_err(unreadable)?;
    connection.close().await.map_err(unreadable)
}

/// Opens the copy, hashes its log anew, and holds it against what has been signed.
async fn checked(copy: &Path, signed: Option<Checkpoint>) -> Result<Copied, BackupError> {
    let unreadable = |source| BackupError::Database { path: copy.to_owned(), source };
    let store = Store::open(&Database::Sqlite(copy.to_owned())).await.map_err(unreadable)?;
    let range = store.verify_log().await.map_err(unreadable)?;
    if let Some(head) = signed {
        log_head::check(&head, &store).await?;
    }
    store.close().await;
    Ok(Copied { entries: range.size().get(), root: range.root() })
}

/// Moves the present database aside, with what belongs to it, and the copy in its place.
fn replace(path: &Path, copy: &Path, now: Timestamp) -> Result<Option<PathBuf>, BackupError> {
    let named = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let aside = format!(".replaced-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let mut replaced = None;
    // The log of changes first: the database without it is only older.
    for suffix in ["-wal", "-shm", ""] {
        let present = named(suffix);
        if present.exists() {
            let kept = named(&format!("{aside}{suffix}"));
            fs::rename(&present, &kept).map_err(failed(&kept))?;
            replaced = Some(kept);
        }
    }
    fs::rename(copy, path).map_err(failed(path))?;
    Ok(replaced)
}
