//! Which master keys there are, what is sealed under which, and how what is under an older one comes under the newest. One
//! transaction writes at a time, and each that seals something sees that it was by the newest master key: once nothing is
//! under an older one, nothing comes under it again.

use jiff::Timestamp;
use release_protocol::{ProductName, ResourcePath};
use serde_json::json;
use sqlx::Row as _;

use super::audit::{AuditKind, append};
use super::write::Write;
use super::{Store, StoreError, count, millis, timestamp};

/// Something sealed under a master key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Sealed {
    /// The master key's number.
    pub(crate) master: i64,
    pub(crate) bytes: Vec<u8>,
}

/// A master key as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MasterKeyRecord {
    pub(crate) number: i64,
    /// A [`MasterKeyUri`](crate::MasterKeyUri).
    pub(crate) name: String,
    pub(crate) added_at: Timestamp,
    pub(crate) retired_at: Option<Timestamp>,
}

/// A working key as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct SealedWorkingKey {
    pub(crate) number: i64,
    pub(crate) sealed: Sealed,
    pub(crate) made_at: Timestamp,
}

/// What is sealed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SealedName {
    Resource(ResourcePath),
    WorkingKey(i64),
}

impl SealedName {
    /// What it is bound to: it opens as nothing else.
    pub(crate) fn context(&self) -> String {
        match self {
            Self::Resource(path) => path.to_string(),
            Self::WorkingKey(number) => format!("working key {number}"),
        }
    }
}

/// Something that was sealed anew.
#[derive(Debug)]
pub(crate) struct Resealed {
    pub(crate) name: SealedName,
    pub(crate) before: Vec<u8>,
    pub(crate) after: Sealed,
}

impl Store {
    /// All master keys, oldest first.
    pub(crate) async fn master_keys(&self) -> Result<Vec<MasterKeyRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM master_key ORDER BY number").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                Ok(MasterKeyRecord {
                    number: row.try_get("number")?,
                    name: row.try_get("name")?,
                    added_at: timestamp(row.try_get("added_at")?)?,
                    retired_at: row.try_get::<Option<i64>, _>("retired_at")?.map(timestamp).transpose()?,
                })
            })
            .collect()
    }

    /// All working keys, oldest first.
    pub(crate) async fn working_keys(&self) -> Result<Vec<SealedWorkingKey>, StoreError> {
        let rows = sqlx::query("SELECT * FROM working_key ORDER BY number").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                Ok(SealedWorkingKey {
                    number: row.try_get("number")?,
                    sealed: Sealed { master: row.try_get("master")?, bytes: row.try_get("sealed")? },
                    made_at: timestamp(row.try_get("made_at")?)?,
                })
            })
            .collect()
    }

    /// How much is under each master key that there is anything under, by its number.
    pub(crate) async fn sealed_counts(&self) -> Result<Vec<(i64, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT master, count(*) AS sealed FROM (SELECT master FROM image_key UNION ALL SELECT master FROM secret \
             UNION ALL SELECT master FROM working_key) AS everything GROUP BY master ORDER BY master",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.try_get("master")?, count(row, "sealed")?))).collect()
    }

    /// Takes up the first master key, with a working key under it, unless there is one.
    pub(crate) async fn adopt_master_key(&self, name: &str, working: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        if newest(&mut transaction).await? == 0 {
            add(&mut transaction, 1, name, working, now).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Makes another key the master key, with a new working key under it. Its number is the one after the newest's.
    pub(crate) async fn change_master_key(
        &self,
        number: i64,
        name: &str,
        working: &[u8],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let rows =
            sqlx::query("SELECT name FROM master_key WHERE retired_at IS NULL").fetch_all(transaction.sql()).await?;
        if rows.len() > 1 {
            let so = "what is under the former master key is still being sealed anew: see `sealift key status`";
            return Err(StoreError::Conflict(so.to_owned()));
        }
        if newest(&mut transaction).await? + 1 != number {
            return Err(StoreError::Outdated);
        }
        let before = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        add(&mut transaction, number, name, working, now).await?;
        append(&mut transaction, AuditKind::MasterKeyChanged, &json!({"master_key": name, "replaces": before}), now)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// What is under other master keys than this.
    pub(crate) async fn sealed_elsewhere(&self, master: i64) -> Result<Vec<SealedName>, StoreError> {
        let working = sqlx::query("SELECT number FROM working_key WHERE master <> $1 ORDER BY number");
        let working = working.bind(master).fetch_all(&self.pool).await?;
        let mut names = working
            .iter()
            .map(|row| Ok(SealedName::WorkingKey(row.try_get(0)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let rows = sqlx::query(
            "SELECT product, CAST($2 AS TEXT) AS kind, id AS tag FROM image_key WHERE master <> $1 \
             UNION ALL SELECT product, kind, tag FROM secret WHERE master <> $1",
        )
        .bind(master)
        .bind(ResourcePath::IMAGE_KEY)
        .fetch_all(&self.pool)
        .await?;
        for row in &rows {
            let (kind, tag) = (row.try_get("kind")?, row.try_get("tag")?);
            names.push(SealedName::Resource(ResourcePath { product: product(row.try_get("product")?)?, kind, tag }));
        }
        Ok(names)
    }

    /// What is sealed by this name, where it is there still.
    pub(crate) async fn sealed(&self, name: &SealedName) -> Result<Option<Sealed>, StoreError> {
        match name {
            SealedName::Resource(path) if path.kind == ResourcePath::IMAGE_KEY => {
                self.sealed_key(&path.product, &path.tag).await
            }
            SealedName::Resource(path) => self.sealed_secret(path).await,
            SealedName::WorkingKey(number) => {
                Ok(self.working_keys().await?.into_iter().find(|key| key.number == *number).map(|key| key.sealed))
            }
        }
    }

    /// Some image key that was sealed before master keys were known by name.
    pub(crate) async fn any_image_key(&self) -> Result<Option<(SealedName, Sealed)>, StoreError> {
        let row =
            sqlx::query("SELECT product, id, master, sealed FROM image_key LIMIT 1").fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let (kind, tag) = (ResourcePath::IMAGE_KEY.to_owned(), row.try_get("id")?);
        let path = ResourcePath { product: product(row.try_get("product")?)?, kind, tag };
        let sealed = Sealed { master: row.try_get("master")?, bytes: row.try_get("sealed")? };
        Ok(Some((SealedName::Resource(path), sealed)))
    }

    /// Puts what was sealed anew in the place of what was there before, unless that has changed meanwhile.
    pub(crate) async fn reseal(&self, resealed: &[Resealed]) -> Result<(), StoreError> {
        let Some(first) = resealed.first() else { return Ok(()) };
        let mut transaction = self.write().await?;
        check_newest(&mut transaction, &first.after).await?;
        for Resealed { name, before, after } in resealed {
            let query = match name {
                SealedName::Resource(path) if path.kind == ResourcePath::IMAGE_KEY => sqlx::query(
                    "UPDATE image_key SET sealed = $1, master = $2 WHERE sealed = $3 AND product = $4 AND id = $5",
                )
                .bind(&after.bytes)
                .bind(after.master)
                .bind(before)
                .bind(path.product.as_str())
                .bind(&path.tag),
                SealedName::Resource(path) => sqlx::query(
                    "UPDATE secret SET sealed = $1, master = $2 WHERE sealed = $3 AND product = $4 AND kind = $5 AND tag = $6",
                )
                .bind(&after.bytes)
                .bind(after.master)
                .bind(before)
                .bind(path.product.as_str())
                .bind(&path.kind)
                .bind(&path.tag),
                SealedName::WorkingKey(number) => {
                    sqlx::query("UPDATE working_key SET sealed = $1, master = $2 WHERE sealed = $3 AND number = $4")
                        .bind(&after.bytes)
                        .bind(after.master)
                        .bind(before)
                        .bind(number)
                }
            };
            query.execute(transaction.sql()).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Retires all master keys but the newest, once nothing is under them; gives whether it has.
    pub(crate) async fn retire_master_keys(
        &self,
        newest: &MasterKeyRecord,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM image_key WHERE master <> $1) + (SELECT count(*) FROM secret WHERE master <> $1) \
             + (SELECT count(*) FROM working_key WHERE master <> $1) AS others, (SELECT max(number) FROM master_key) AS newest",
        )
        .bind(newest.number)
        .fetch_one(transaction.sql())
        .await?;
        if row.try_get::<i64, _>("newest")? != newest.number || count::<u64>(&row, "others")? > 0 {
            return Ok(false);
        }
        let rows = sqlx::query("SELECT name FROM master_key WHERE retired_at IS NULL AND number < $1")
            .bind(newest.number)
            .fetch_all(transaction.sql())
            .await?;
        let retired = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        if retired.is_empty() {
            return Ok(false);
        }
        sqlx::query("UPDATE master_key SET retired_at = $1 WHERE retired_at IS NULL AND number < $2")
            .bind(millis(now))
            .bind(newest.number)
            .execute(transaction.sql())
            .await?;
        let body = json!({"master_key": newest.name, "replaces": retired});
        append(&mut transaction, AuditKind::MasterKeyRetired, &body, now).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

fn product(text: &str) -> Result<ProductName, StoreError> {
    text.parse().map_err(|_| StoreError::Value("product name"))
}

async fn newest(transaction: &mut Write<'_>) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT coalesce(max(number), 0) FROM master_key").fetch_one(transaction.sql()).await?;
    Ok(row.try_get(0)?)
}

/// Sees that it was the newest master key that sealed this.
///
/// # Errors
/// [`StoreError::Outdated`] where another replica has changed the master key.
pub(super) async fn check_newest(transaction: &mut Write<'_>, sealed: &Sealed) -> Result<(), StoreError> {
    if newest(transaction).await? == sealed.master { Ok(()) } else { Err(StoreError::Outdated) }
}

async fn add(
    transaction: &mut Write<'_>,
    number: i64,
    name: &str,
    working: &[u8],
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO master_key (number, name, added_at) VALUES ($1, $2, $3)")
        .bind(number)
        .bind(name)
        .bind(millis(now))
        .execute(transaction.sql())
        .await?;
    // Each master key brings one working key, of its number.
    sqlx::query("INSERT INTO working_key (number, master, sealed, made_at) VALUES ($1, $1, $2, $3)")
        .bind(number)
        .bind(working)
        .bind(millis(now))
        .execute(transaction.sql())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Database;
    use super::super::old::database_before;
    use super::*;
    use crate::custodian::Custodian;
    use crate::custody::{CustodyError, HeldKey};
    use crate::home::{Home, ServiceSettings};
    use crate::service::ServiceError;

    #[tokio::test]
    async fn a_database_from_before_goes_on_under_the_homes_file_and_under_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        home.create(&["localhost".to_owned()]).unwrap();
        let file = directory.path().join("home/service/master.key");
        let text = fs::read_to_string(&file).unwrap();
        let key = HeldKey::from_text(&text).unwrap();
        let evidence = key.sealer("evidence").unwrap().seal(b"basis", b"lease").unwrap();
        let old = database_before(12, &home.database_path()).await;
        sqlx::query("INSERT INTO product (name, created_at) VALUES ('shop', 0)").execute(&old).await.unwrap();
        sqlx::query(
            "INSERT INTO image_key (id, product, sealed, image, created_at) VALUES ('key-1', 'shop', $1, '', 0)",
        )
        .bind(key.sealer("image keys").unwrap().seal(b"the key", b"shop/image-key/key-1").unwrap())
        .execute(&old)
        .await
        .unwrap();
        old.close().await;

        let store = Store::open(&Database::Sqlite(home.database_path())).await.unwrap();
        let settings = ServiceSettings::new(([127, 0, 0, 1], 0).into(), "https://localhost".parse().unwrap());
        let open = || Custodian::open(&home, &settings, &store, Timestamp::UNIX_EPOCH);
        fs::write(&file, HeldKey::generate().unwrap().to_text().as_bytes()).unwrap();
        assert!(matches!(open().await, Err(ServiceError::Custody(CustodyError::Open))));
        assert!(store.master_keys().await.unwrap().is_empty(), "another key was taken up");

        fs::write(&file, &text).unwrap();
        let custodian = open().await.unwrap();
        assert_eq!(custodian.newest().unwrap().name, "file:master.key");
        let name = SealedName::Resource("shop/image-key/key-1".parse().unwrap());
        let sealed = store.sealed(&name).await.unwrap().unwrap();
        assert_eq!(custodian.unwrap(&sealed, &name.context()).await.unwrap().as_slice(), b"the key");
        assert_eq!(custodian.working().open_evidence(&evidence, b"lease").unwrap().as_slice(), b"basis");
    }
}
