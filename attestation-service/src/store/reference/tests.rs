//! Homes from before reference values had ids keep theirs.

use std::path::{Path, PathBuf};

use super::super::database::Database;
use super::super::old::database_before;
use super::*;

/// A database as the first schema left it, with one reference value in each of two products.
async fn old_database(folder: &Path) -> PathBuf {
    let path = folder.join("database");
    let pool = database_before(2, &path).await;
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
    let store = Store::open(&Database::Sqlite(old_database(folder.path()).await)).await.unwrap();
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
