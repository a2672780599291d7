//! The database: `SQLite` in the home, or PostgreSQL. One module a subject; callers see domain values, never rows.
//!
//! A state change and its audit entry are one transaction, and one transaction writes at a time: that makes the counting of
//! seats exact and orders the log, whoever of several replicas writes.

mod audit;
mod batch;
mod database;
mod evidence;
mod group;
mod grown;
mod image_key;
mod import_key;
mod key_release;
mod lease;
mod lease_list;
mod license;
mod license_change;
mod log;
mod master_key;
mod news;
#[cfg(test)]
mod old;
mod passfile;
mod platform;
mod product;
mod reader;
mod reference;
mod renewal;
mod rows;
mod rules;
mod schema;
mod seat;
mod secret;
mod token;
mod write;

use std::fs::File;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{AnyPool, ColumnIndex, Row as _};

use crate::metrics::Gauges;
use group::Group;
use reader::Kept;
use rules::KnownRules;
use write::{Write, Writer};

pub use audit::AuditEntry;
pub(crate) use audit::{ACTOR, AuditKind};
pub(crate) use database::lock;
pub use database::{Database, DatabaseUrl, DatabaseUrlError};
pub(crate) use grown::Grown;
pub(crate) use image_key::{KeyRegistration, Rewrapping};
pub(crate) use import_key::SealedImportKey;
pub(crate) use key_release::{ReleaseOutcome, ReleaseRequest};
pub(crate) use lease::{ByFile, EndedBy, LeaseOutcome, LeaseRequest};
pub(crate) use license::LicenseRecord;
pub(crate) use master_key::{MasterKeyRecord, Resealed, Sealed, SealedName};
pub(crate) use news::Listener;
pub(crate) use product::policy_digest;
pub(crate) use rules::{KeyRules, ProductRules, Rules, Standing, TRIES};
pub use schema::{SchemaName, SchemaNameError};
pub(crate) use schema::{drop as drop_schema, is_used as schema_is_used};

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A stored document is malformed.
    #[error("a stored document is malformed")]
    Document(#[from] serde_json::Error),
    /// The tree over the audit log does not give what it should.
    #[error("the audit log's tree is damaged")]
    Log(#[from] transparency_log::ProofError),
    /// The database was replaced by an older copy while the service ran.
    #[error("the database holds {found} entries of the audit log, but {signed} have been signed: it is an older copy")]
    Shrunk {
        /// Entries in the database.
        found: u64,
        /// Entries of the newest checkpoint.
        signed: u64,
    },
    /// A stored value is malformed.
    #[error("a stored {0} is malformed")]
    Value(&'static str),
    /// There is something by that name already.
    #[error("{kind} `{name}` exists already")]
    Exists {
        /// Of which kind.
        kind: &'static str,
        /// By which name.
        name: String,
    },
    /// There is nothing by that name.
    #[error("there is no {kind} `{name}`")]
    Unknown {
        /// Of which kind.
        kind: &'static str,
        /// By which name.
        name: String,
    },
    /// Another service holds the database.
    #[error("another service runs on this home's database")]
    InUse,
    /// What was to be written shared a transaction that failed, or the service is stopping.
    #[error("the decision could not be written")]
    Writer,
    /// What a decision rests on was changed again and again while it was made.
    #[error("what the decision rests on keeps changing")]
    Outdated,
    /// The change is not allowed in the present state.
    #[error("{0}")]
    Conflict(String),
}

/// The service's database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: AnyPool,
    readers: Kept,
    rules: KnownRules,
    writer: Writer,
    group: Group,
    lock: Arc<Mutex<Option<File>>>,
}

impl Store {
    /// Opens the database, makes it where it is absent, and brings its schema up to date.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        let lock = Arc::new(Mutex::new(database.lock()?));
        let pool = database.open().await?;
        let writer = Writer::new(database.clone(), pool.clone());
        let group = Group::start(writer.clone(), Kept::of(pool.clone()));
        let readers = Kept::of(pool.clone());
        let store = Self { pool, readers, rules: KnownRules::default(), group, writer, lock };
        store.hash_old_entries().await?;
        store.ask_for_news().await?;
        Ok(store)
    }

    /// Whether others may write, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.writer.is_shared()
    }

    /// A transaction that holds the write lock from its start.
    pub(crate) async fn write(&self) -> Result<Write<'static>, StoreError> {
        self.writer.begin().await
    }

    /// How many entries of the log have been signed: no transaction begins on fewer.
    pub(crate) fn signed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.writer.signed)
    }

    /// Asks the database for something small.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT size FROM log_edge").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// How much there is at `now`.
    pub(crate) async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM lease WHERE ended_at IS NULL AND seat_until > 0 AND seat_until > $1), \
             (SELECT size FROM log_edge)",
        )
        .bind(millis(now))
        .fetch_one(&self.pool)
        .await?;
        Ok(Gauges { leases_live: count(&row, 0)?, audit_entries: count(&row, 1)? })
    }

    /// Closes the database.
    pub async fn close(&self) {
        let closed = self.pool.close();
        self.readers.clear();
        self.group.let_go();
        closed.await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A count that a column holds.
fn count<T: TryFrom<i64>>(row: &AnyRow, column: impl ColumnIndex<AnyRow>) -> Result<T, StoreError> {
    T::try_from(row.try_get(column)?).map_err(|_| StoreError::Value("count"))
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

fn timestamp(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|_| StoreError::Value("time"))
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
