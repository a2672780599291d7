//! Homes from before reference values had ids keep theirs.

use std::fs;
use std::path::Path;

use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;

use super::*;

/// A database as the first schema left it, with one reference value in each of two products.
async fn old_database(folder: &Path) -> std::path::PathBuf {
    let migrations = folder.join("migrations");
    fs::create_dir(&migrations).unwrap();
    let first = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite/0001_release.sql");
    fs::copy(first, migrations.join("0001_release.sql")).unwrap();
    let path = folder.join("database");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).foreign_keys(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    Migrator::new(migrations).await.unwrap().run(&pool).await.unwrap();
    for product in ["bank", "shop"] {
        sqlx::query("INSERT INTO product (name, created_at) VALUES ($1, 1)")
            .bind(product)
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query("INSERT INTO reference_value VALUES ($1, $2, 'shim 1', 'null', 1700000000000)")
            .bind(product)
            .bind("ab".repeat(48))
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;
    path
}

#[tokio::test]
async fn an_old_home_keeps_its_reference_values() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&old_database(folder.path()).await).await.unwrap();
    let (bank, shop) = ("bank".parse().unwrap(), "shop".parse().unwrap());
    let references = store.references(&shop).await.unwrap();
    let [reference] = references.as_slice() else { panic!("{references:?}") };
    assert_eq!(reference.value, ReferenceValue::Measurement { measurement: Measurement([0xAB; 48]) });
    assert_eq!((reference.label.as_str(), reference.added_at.as_millisecond()), ("shim 1", 1_700_000_000_000));
    assert_eq!((reference.retired_at, reference.retire_reason.as_deref()), (None, None));
    let other = store.references(&bank).await.unwrap().remove(0);
    assert!(reference.id.starts_with("ref-") && reference.id != other.id, "{} {}", reference.id, other.id);

    // And is worked with like a new one.
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let retired = store.retire_reference(&reference.id, None, "old", now).await.unwrap();
    assert_eq!(retired.retired_at, Some(now));
    assert_eq!(store.references(&bank).await.unwrap(), [other]);
    store.close().await;
}
