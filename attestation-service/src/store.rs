//! The database: `SQLite` in the home. One module a subject; callers see domain values, never rows.
//!
//! A state change and its audit entry are one transaction. `SQLite` admits one writer at a time (`BEGIN IMMEDIATE`), which
//! makes the counting of seats exact.

mod audit;
mod image_key;
mod lease;
mod license;
mod license_change;
mod log;
mod platform;
mod product;
mod reference;
mod token;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction};

use crate::metrics::Gauges;

pub use audit::AuditEntry;
pub(crate) use audit::{ACTOR, AuditKind};
pub(crate) use image_key::KeyRegistration;
pub(crate) use lease::{LeaseOutcome, LeaseRequest};
pub(crate) use product::policy_digest;

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
    /// The change is not allowed in the present state.
    #[error("{0}")]
    Conflict(String),
}

/// The service's database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database, makes it where it is absent, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await?;
        sqlx::migrate!("migrations/sqlite").run(&pool).await?;
        let store = Self { pool };
        store.hash_old_entries().await?;
        Ok(store)
    }

    /// A transaction that holds the write lock from its start.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Asks the database for something small.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT size FROM log_edge").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// How much there is at `now`.
    pub(crate) async fn gauges(&self, now: Timestamp) -> Result<Gauges, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM lease WHERE ended_at IS NULL AND seat_until > $1), (SELECT size FROM log_edge)",
        )
        .bind(millis(now))
        .fetch_one(&self.pool)
        .await?;
        let count = |index: usize| u64::try_from(row.try_get::<i64, _>(index)?).map_err(|_| StoreError::Value("count"));
        Ok(Gauges { leases_live: count(0)?, audit_entries: count(1)? })
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }
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
