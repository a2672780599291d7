//! Which database: `SQLite` in the home, or PostgreSQL, which several replicas may share. One set of queries serves both;
//! what differs stands here and in the migrations.

use std::fmt;
use std::fs::{File, TryLockError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;

use serde::{Deserialize, Serialize};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _};
use url::Url;

use super::{SchemaName, StoreError, passfile, schema};

/// How many connections a service holds.
const CONNECTIONS: u32 = 8;

/// A PostgreSQL database: `postgres://USER@HOST/NAME`, with the parameters of libpq. It carries no password.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Url", into = "Url")]
pub struct DatabaseUrl(Url);

/// Why a URL names no database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseUrlError {
    /// It is no URL.
    #[error("the database's URL is malformed")]
    Malformed(#[from] url::ParseError),
    /// It is of another database.
    #[error("the database's URL begins with `{0}:`, only `postgres:` is known")]
    Scheme(String),
    /// It has a password in it, which command lines, process lists and settings would show.
    #[error("the database's URL has a password in it; give that by PGPASSWORD or a file named by PGPASSFILE")]
    Password,
}

impl TryFrom<Url> for DatabaseUrl {
    type Error = DatabaseUrlError;

    fn try_from(mut url: Url) -> Result<Self, DatabaseUrlError> {
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(DatabaseUrlError::Scheme(url.scheme().to_owned()));
        }
        let has = |name: &str| url.query_pairs().any(|(key, _)| key == name);
        if url.password().is_some() || has("password") {
            return Err(DatabaseUrlError::Password);
        }
        // The driver would go on in the clear with a server that speaks no TLS.
        if !has("sslmode") && !has("ssl-mode") && !is_local(&url) {
            url.query_pairs_mut().append_pair("sslmode", "verify-full");
        }
        Ok(Self(url))
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        Url::parse(text)?.try_into()
    }
}

impl From<DatabaseUrl> for Url {
    fn from(url: DatabaseUrl) -> Self {
        url.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the server is on this machine, by its address or a socket's folder.
fn is_local(url: &Url) -> bool {
    let by_parameter = url.query_pairs().find(|(key, _)| key == "host").map(|(_, host)| host.into_owned());
    let host = by_parameter.or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.is_empty()
        || host == "localhost"
        || ["/", "%2F", "%2f"].iter().any(|socket| host.starts_with(socket))
        || address.is_ok_and(|address| address.is_loopback())
}

/// Where a service keeps its state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Database {
    /// A file of `SQLite`, one service's alone.
    Sqlite(PathBuf),
    /// A PostgreSQL database, which several services may share; a schema of it, where one is named.
    Postgres {
        /// The database.
        url: DatabaseUrl,
        /// What keeps its tables apart from those of other services.
        schema: Option<SchemaName>,
    },
}

impl Database {
    /// How a transaction that writes begins. One writes at a time, which makes the counting of seats exact and orders the
    /// log; several decisions may share a transaction (`group.rs`).
    pub(super) fn begin_write(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            // Of a number that is ours alone ("sealift"). A lock on a table would have to wait for its vacuuming.
            Self::Postgres { schema: None, .. } => "BEGIN; SELECT pg_advisory_xact_lock(32481091426805364)",
            // Locks are the database's: each schema has one of its own, or tenants would wait for each other.
            Self::Postgres { schema: Some(_), .. } => {
                "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 32481091426805364))"
            }
        }
    }

    /// Whether others may write, too.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// Keeps other services away from a file, as long as what it gives lives.
    pub(crate) fn lock(&self) -> Result<Option<File>, StoreError> {
        match self {
            Self::Sqlite(path) => lock(path).map(Some),
            Self::Postgres { .. } => Ok(None),
        }
    }

    /// Connects, makes the file where it is absent, and brings the schema up to date.
    pub(super) async fn open(&self) -> Result<AnyPool, StoreError> {
        install_drivers();
        let pool = AnyPoolOptions::new().max_connections(CONNECTIONS).before_acquire(|connection, _| {
            // `SQLite` ends a transaction by itself when the disk is full, which the driver does not learn of: such a
            // connection would begin no other one, for ever.
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        });
        match self {
            Self::Sqlite(_) => {
                let pool = pool
                    .after_connect(|connection, _| {
                        Box::pin(async move { connection.execute(SQLITE_SETTINGS).await.map(drop) })
                    })
                    .connect_with(self.options()?)
                    .await?;
                sqlx::migrate!("migrations/sqlite").run(&pool).await?;
                Ok(pool)
            }
            Self::Postgres { schema, .. } => {
                if let Some(schema) = schema {
                    schema::make(&mut self.connect().await?, schema).await?;
                }
                let pool = pool.connect_with(self.options()?).await?;
                sqlx::migrate!("migrations/postgres").run(&pool).await?;
                Ok(pool)
            }
        }
    }

    /// How its connections are made. Every one of a schema finds that schema's tables, and no others.
    fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        let url = match self {
            Self::Sqlite(path) => sqlite_url(path)?,
            Self::Postgres { url, schema } => {
                let mut url = passfile::with_password(&url.0)?;
                if let Some(schema) = schema {
                    url.query_pairs_mut().append_pair("options[search_path]", schema.as_str());
                }
                url
            }
        };
        Ok(AnyConnectOptions::from_url(&url)?)
    }

    /// Whether there is a table of this name, whoever may read it.
    pub(crate) async fn has_table(&self, connection: &mut AnyConnection, name: &str) -> Result<bool, StoreError> {
        let query = match self {
            Self::Sqlite(_) => sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1").bind(name),
            Self::Postgres { schema, .. } => sqlx::query(
                "SELECT 1 FROM pg_tables WHERE tablename::text = $1 \
                 AND schemaname::text = coalesce(CAST($2 AS TEXT), current_schema()::text)",
            )
            .bind(name)
            .bind(schema.as_ref().map(SchemaName::as_str)),
        };
        Ok(query.fetch_optional(connection).await?.is_some())
    }

    /// One connection, for a look at what is there or for its end; nothing is brought up to date.
    pub(crate) async fn connect(&self) -> Result<AnyConnection, StoreError> {
        install_drivers();
        Ok(AnyConnection::connect_with(&self.options()?).await?)
    }
}

fn install_drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

/// Takes the lock of the database in this file. Guests that wait at one service would not hear of what another one wrote.
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
    let unusable = |_| StoreError::Value("path of the database");
    let lock = File::create(path.with_added_extension("lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Every connection's. `FULL`: what was answered outlives a loss of power.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                               PRAGMA foreign_keys = ON";

fn sqlite_url(path: &Path) -> Result<Url, StoreError> {
    let unusable = || StoreError::Value("path of the database");
    let path = std::path::absolute(path).map_err(|_| unusable())?;
    let file = Url::from_file_path(path).map_err(|()| unusable())?;
    Url::parse(&format!("sqlite://{}?mode=rwc", file.path())).map_err(|_| unusable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_elsewhere_is_reached_by_verified_tls_unless_its_url_says_otherwise() {
        for (given, kept) in [
            ("postgres://vendor@db.example/sealift", "postgres://vendor@db.example/sealift?sslmode=verify-full"),
            (
                "postgres://vendor@db.example/sealift?sslmode=disable",
                "postgres://vendor@db.example/sealift?sslmode=disable",
            ),
            ("postgres:///sealift?host=/run/pg", "postgres:///sealift?host=/run/pg"),
            ("postgres:///sealift?host=db.example", "postgres:///sealift?host=db.example&sslmode=verify-full"),
            ("postgresql://127.0.0.1:5433/sealift", "postgresql://127.0.0.1:5433/sealift"),
            ("postgresql://[::1]/sealift", "postgresql://[::1]/sealift"),
            ("postgresql://10.0.0.1/sealift", "postgresql://10.0.0.1/sealift?sslmode=verify-full"),
            ("postgres://%2Frun%2Fpg/sealift", "postgres://%2Frun%2Fpg/sealift"),
        ] {
            assert_eq!(given.parse::<DatabaseUrl>().unwrap().to_string(), kept);
        }
    }

    #[test]
    fn a_url_with_a_password_or_of_another_database_is_refused() {
        for given in ["postgres://vendor:secret@localhost/sealift", "postgres:///sealift?password=secret"] {
            let error = given.parse::<DatabaseUrl>().unwrap_err();
            assert!(matches!(error, DatabaseUrlError::Password));
            assert!(!error.to_string().contains("secret"));
        }
        assert!(matches!("mysql://localhost/sealift".parse::<DatabaseUrl>(), Err(DatabaseUrlError::Scheme(_))));
    }

    #[tokio::test]
    async fn a_database_file_may_have_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b?c#d%41.db");
        Database::Sqlite(path.clone()).open().await.unwrap().close().await;
        assert!(path.exists());
    }
}
