//! Databases as earlier versions left them, for tests.

use std::path::Path;

use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

/// An `SQLite` database as it was before the migration of this number.
pub(super) async fn database_before(version: i64, path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let mut before = sqlx::migrate!("migrations/sqlite");
    before.migrations.to_mut().retain(|migration| migration.version < version);
    before.run(&pool).await.unwrap();
    pool
}
