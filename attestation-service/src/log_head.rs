//! The newest checkpoint that this home has signed, beside its keys and apart from its database: a service whose database is
//! an older copy finds out, and signs no log that has shrunk or forked. Replicas on one home share it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use transparency_log::{Checkpoint, SignedCheckpoint, TreeSize, VerifierKey};

use crate::home::{Home, HomeError};
use crate::store::{Store, StoreError};

/// Why the log is not continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogHeadError {
    /// The database holds less than was signed.
    #[error("the database holds {found} entries of the audit log, but {signed} have been signed: it is an older copy")]
    Shrunk {
        /// Entries in the database.
        found: u64,
        /// Entries of the newest checkpoint.
        signed: u64,
    },
    /// The database holds another log.
    #[error("the database holds another audit log than the one that was signed at {signed} entries")]
    Forked {
        /// Entries of the newest checkpoint.
        signed: u64,
    },
    /// The file is no checkpoint of this log.
    #[error("`{}` is no checkpoint of this home's audit log", .0.display())]
    Malformed(PathBuf),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] HomeError),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was signed last.
#[derive(Debug)]
pub(crate) struct LogHead {
    path: PathBuf,
    file: File,
    key: VerifierKey,
    noted: Mutex<Noted>,
    /// How many entries have been signed: what the store does not write below.
    signed: Arc<AtomicU64>,
}

/// The newest note.
#[derive(Debug, Default)]
struct Noted {
    size: u64,
    /// Its text, where this process wrote it: it need not be verified again.
    text: Vec<u8>,
}

impl LogHead {
    /// Reads what was signed last, and holds the database against it.
    pub(crate) async fn open(home: &Home, key: &VerifierKey, store: &Store) -> Result<Self, LogHeadError> {
        let path = home.log_head_path();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(write_failed(&path))?;
        let head = locked(&file, || read(&path, key)).map_err(write_failed(&path))??;
        if let Some(head) = &head {
            check(head, store).await?;
        }
        let size = head.map_or(0, |head| head.size.get());
        let (noted, signed) = (Mutex::new(Noted { size, text: Vec::new() }), store.signed());
        signed.fetch_max(size, Ordering::AcqRel);
        Ok(Self { path, file, key: key.clone(), noted, signed })
    }

    /// How many entries have been signed.
    pub(crate) fn signed(&self) -> u64 {
        self.signed.load(Ordering::Acquire)
    }

    /// Notes a checkpoint before anybody gets it; one that is no newer changes nothing. It outlives the process. After a loss
    /// of power an older one may be found, never a newer one.
    pub(crate) fn note(&self, checkpoint: &SignedCheckpoint) -> Result<(), LogHeadError> {
        let size = checkpoint.unverified().size.get();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if size <= noted.size {
            return Ok(());
        }
        *noted = locked(&self.file, || self.write_newest(checkpoint, &noted)).map_err(write_failed(&self.path))??;
        self.signed.fetch_max(noted.size, Ordering::AcqRel);
        Ok(())
    }

    /// Writes a checkpoint unless another replica has written a newer one; gives what is there then.
    fn write_newest(&self, checkpoint: &SignedCheckpoint, before: &Noted) -> Result<Noted, LogHeadError> {
        let size = checkpoint.unverified().size.get();
        let bytes = fs::read(&self.path).map_err(|source| HomeError::File {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        if bytes.is_empty() || bytes != before.text {
            let there = parse(&bytes, &self.path, &self.key)?.map_or(0, |head| head.size.get());
            if there >= size {
                return Ok(Noted { size: there, text: bytes });
            }
        }
        let text = checkpoint.to_string().into_bytes();
        // In place: sizes grow, so notes of one key do not get shorter.
        self.file.write_all_at(&text, 0).map_err(write_failed(&self.path))?;
        Ok(Noted { size, text })
    }
}

/// Does something while no other process does it.
fn locked<T>(file: &File, something: impl FnOnce() -> T) -> io::Result<T> {
    file.lock()?;
    let done = something();
    file.unlock()?;
    Ok(done)
}

fn write_failed(path: &std::path::Path) -> impl Fn(io::Error) -> HomeError {
    move |source| HomeError::File { action: "write", path: path.to_owned(), source }
}

/// The checkpoint in the file, where there is one.
pub(crate) fn read(path: &std::path::Path, key: &VerifierKey) -> Result<Option<Checkpoint>, LogHeadError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(HomeError::File { action: "read", path: path.to_owned(), source }.into()),
    };
    parse(&bytes, path, key)
}

fn parse(bytes: &[u8], path: &std::path::Path, key: &VerifierKey) -> Result<Option<Checkpoint>, LogHeadError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let head = SignedCheckpoint::from_bytes(bytes).and_then(|checkpoint| checkpoint.verify(key));
    head.map(Some).map_err(|_| LogHeadError::Malformed(path.to_owned()))
}

/// Whether the database's log is the one that was signed, and no shorter.
pub(crate) async fn check(head: &Checkpoint, store: &Store) -> Result<(), LogHeadError> {
    let range = store.log_range().await?;
    let (found, signed) = (range.size().get(), head.size.get());
    if found < signed {
        return Err(LogHeadError::Shrunk { found, signed });
    }
    if head.size == TreeSize::default() {
        return Ok(());
    }
    let forked = LogHeadError::Forked { signed };
    let Ok(proof) = store.consistency_proof(head.size, range.size()).await else { return Err(forked) };
    proof.verify(head.size, &head.root, range.size(), &range.root()).map_err(|_| forked)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use transparency_log::NoteSigner;

    use super::*;
    use crate::store::{AuditKind, Database};

    async fn store(directory: &std::path::Path, name: &str, entries: u64) -> Store {
        let store = Store::open(&Database::Sqlite(directory.join(name))).await.unwrap();
        for number in 0..entries {
            store.record(AuditKind::Denied, &json!({"number": number}), Timestamp::UNIX_EPOCH).await.unwrap();
        }
        store
    }

    async fn sign(signer: &NoteSigner, store: &Store) -> SignedCheckpoint {
        let range = store.log_range().await.unwrap();
        Checkpoint::new(signer.name().clone(), range.size(), range.root()).unwrap().sign(signer).unwrap()
    }

    #[tokio::test]
    async fn a_log_that_has_grown_is_continued_and_one_that_shrunk_or_forked_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        fs::create_dir(directory.path().join("service")).unwrap();
        let signer = NoteSigner::generate("log.example/audit".parse().unwrap()).unwrap();
        let key = signer.verifier_key();
        let kept = store(directory.path(), "kept", 9).await;
        let head = LogHead::open(&home, &key, &kept).await.unwrap();
        head.note(&sign(&signer, &kept).await).unwrap();
        kept.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await.unwrap();
        head.note(&sign(&signer, &kept).await).unwrap();
        assert_eq!(head.signed(), 10);
        drop(head);

        let again = LogHead::open(&home, &key, &kept).await.unwrap();
        assert_eq!(again.signed(), 10);
        kept.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await.unwrap();
        LogHead::open(&home, &key, &kept).await.unwrap();

        let older = store(directory.path(), "older", 9).await;
        let refused = LogHead::open(&home, &key, &older).await.unwrap_err();
        assert!(matches!(refused, LogHeadError::Shrunk { found: 9, signed: 10 }), "{refused}");
        // Salts differ, so these are other entries.
        let other = store(directory.path(), "other", 12).await;
        let refused = LogHead::open(&home, &key, &other).await.unwrap_err();
        assert!(matches!(refused, LogHeadError::Forked { signed: 10 }), "{refused}");

        fs::write(home.log_head_path(), "nonsense").unwrap();
        assert!(matches!(LogHead::open(&home, &key, &kept).await, Err(LogHeadError::Malformed(_))));
    }
    /// A shorter note over a longer one would be none; an older one would let an older database pass.
    #[tokio::test]
    async fn a_replica_that_lags_does_not_overwrite_what_another_one_signed() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        fs::create_dir(directory.path().join("service")).unwrap();
        let signer = NoteSigner::generate("log.example/audit".parse().unwrap()).unwrap();
        let key = signer.verifier_key();
        let shared = store(directory.path(), "shared", 9).await;
        let [first, second] =
            [LogHead::open(&home, &key, &shared).await.unwrap(), LogHead::open(&home, &key, &shared).await.unwrap()];
        let nine = sign(&signer, &shared).await;
        shared.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await.unwrap();
        first.note(&sign(&signer, &shared).await).unwrap();
        second.note(&nine).unwrap();
        assert_eq!(read(&home.log_head_path(), &key).unwrap().unwrap().size.get(), 10);
        assert_eq!(second.signed(), 10);
        LogHead::open(&home, &key, &shared).await.unwrap();
    }
}
