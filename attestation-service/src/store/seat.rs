//! The seats of a licence: held by leases until they end or lapse. They are counted as they come and go, so that no decision
//! takes longer the more there are.

use std::collections::BTreeSet;

use jiff::Timestamp;
use release_protocol::LicenseId;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::rows::{Kind, Table, few_lengths, places};
use super::write::Write;
use super::{StoreError, millis};

/// Stands for all chips of a licence.
const ALL: &str = "";

/// The seats of one licence inside a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seats {
    pub(super) taken: i64,
    /// No seat lapses before this time, in milliseconds.
    pub(super) next_lapse: i64,
}

/// The seats of each of these licences.
pub(super) async fn read(
    write: &mut Write<'_>,
    licenses: &BTreeSet<LicenseId>,
) -> Result<Vec<(LicenseId, Seats)>, StoreError> {
    let wanted = few_lengths(&licenses.iter().collect::<Vec<_>>());
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = sqlx::query(AssertSqlSafe(format!(
        "WITH wanted (id) AS (VALUES {}) SELECT wanted.id, \
         coalesce((SELECT taken FROM seat WHERE license_id = wanted.id AND chip_id = ''), 0), \
         (SELECT seat_until FROM lease WHERE license_id = wanted.id AND ended_at IS NULL AND seat_until > 0 \
          ORDER BY license_id, seat_until LIMIT 1) FROM wanted",
        places(wanted.len(), 1)
    )));
    for license in wanted {
        query = query.bind(license.0.clone());
    }
    let seats = |row: &AnyRow| {
        let next_lapse = row.try_get::<Option<i64>, _>(2)?.unwrap_or(i64::MAX);
        Ok((LicenseId(row.try_get(0)?), Seats { taken: row.try_get(1)?, next_lapse }))
    };
    query.fetch_all(write.sql()).await?.iter().map(seats).collect()
}

/// Gives back for good what has lapsed by `now`: a clock that is set back later does not take it from who got it. Gives the
/// leases that lost theirs.
pub(super) async fn lapse(
    write: &mut Write<'_>,
    license: &LicenseId,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    sqlx::query(
        "WITH gone (chip_id, seats) AS (SELECT chip_id, count(*) FROM lease WHERE license_id = $1 AND ended_at IS NULL \
         AND seat_until > 0 AND seat_until <= $2 GROUP BY chip_id) \
         UPDATE seat SET taken = taken - gone.seats FROM gone WHERE seat.license_id = $1 AND seat.chip_id = gone.chip_id",
    )
    .bind(&license.0)
    .bind(millis(now))
    .execute(write.sql())
    .await?;
    let rows = sqlx::query(
        "UPDATE lease SET seat_until = 0 \
         WHERE license_id = $1 AND ended_at IS NULL AND seat_until > 0 AND seat_until <= $2 RETURNING id",
    )
    .bind(&license.0)
    .bind(millis(now))
    .fetch_all(write.sql())
    .await?;
    let gone = i64::try_from(rows.len()).map_err(|_| StoreError::Value("count"))?;
    sqlx::query("UPDATE seat SET taken = taken - $3 WHERE license_id = $1 AND chip_id = $2")
        .bind(&license.0)
        .bind(ALL)
        .bind(gone)
        .execute(write.sql())
        .await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Counts seats that were taken: so many of each licence and chip.
pub(super) async fn take<'s>(
    write: &mut Write<'_>,
    taken: impl IntoIterator<Item = (&'s (LicenseId, String), &'s i64)>,
) -> Result<(), StoreError> {
    let mut rows: Vec<(String, String, i64)> = Vec::new();
    for ((license, chip), count) in taken {
        // In one statement, no row may come twice.
        match rows.iter_mut().find(|(of, chip, _)| *of == license.0 && chip == ALL) {
            Some((.., all)) => *all += count,
            None => rows.push((license.0.clone(), ALL.to_owned(), *count)),
        }
        rows.push((license.0.clone(), chip.clone(), *count));
    }
    let rows = rows.into_iter().map(|(license, chip, count)| vec![license.into(), chip.into(), count.into()]);
    write.add(&SEATS, rows.collect()).await
}

static SEATS: Table = Table {
    name: "seat",
    columns: &[("license_id", Kind::Text), ("chip_id", Kind::Text), ("taken", Kind::Number)],
    on_conflict: "ON CONFLICT (license_id, chip_id) DO UPDATE SET taken = seat.taken + excluded.taken",
};

/// Gives one seat back.
pub(super) async fn give_back(write: &mut Write<'_>, license: &str, chip_id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE seat SET taken = taken - 1 WHERE license_id = $1 AND chip_id IN ($2, $3)")
        .bind(license)
        .bind(chip_id)
        .bind(ALL)
        .execute(write.sql())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use release_protocol::LeaseId;

    use super::super::old::database_before;
    use super::super::{Database, Store};
    use super::*;

    #[tokio::test]
    async fn seats_that_were_taken_before_they_were_counted_are_counted_when_the_database_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let old = database_before(9, &path).await;
        for statement in [
            "INSERT INTO product (name, created_at) VALUES ('shop', 0)",
            "INSERT INTO license (id, customer, state, seats, lease_seconds, grace_seconds, claims, issued_at) \
             VALUES ('lic', 'customer', 'issued', 9, 1, 1, '{}', 0)",
            "INSERT INTO lease (id, license_id, product, manifest_digest, chip_id, simulated, started_at, expires_at, \
             seat_until, challenge_at, ended_at) VALUES \
             ('a', 'lic', 'shop', 'm', 'chip', 0, 0, 50, 50, 0, NULL), ('b', 'lic', 'shop', 'm', 'chip', 0, 0, 90, 90, 0, NULL), \
             ('c', 'lic', 'shop', 'm', 'other', 0, 0, 90, 90, 0, NULL), ('d', 'lic', 'shop', 'm', 'chip', 0, 0, 9, 0, 0, NULL), \
             ('e', 'lic', 'shop', 'm', 'chip', 0, 0, 90, 90, 0, 1)",
        ] {
            sqlx::query(statement).execute(&old).await.unwrap();
        }
        old.close().await;

        let store = Store::open(&Database::Sqlite(path)).await.unwrap();
        let license = LicenseId("lic".to_owned());
        let at = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
        let others = async |own: &str, now| {
            store.standing(&license, "chip", &LeaseId(own.to_owned()), at(now)).await.unwrap().others_on_chip
        };
        assert_eq!((others("x", 10).await, others("a", 10).await), (2, 1));
        assert_eq!((others("x", 50).await, others("a", 50).await, others("b", 50).await), (1, 1, 0));
        let mut write = store.write().await.unwrap();
        let both = BTreeSet::from([license.clone(), LicenseId("none".to_owned()), LicenseId("other".to_owned())]);
        let none = Seats { taken: 0, next_lapse: i64::MAX };
        let mut seats = read(&mut write, &both).await.unwrap();
        seats.dedup();
        let expected = [("lic", Seats { taken: 3, next_lapse: 50 }), ("none", none), ("other", none)];
        assert_eq!(seats, expected.map(|(id, seats)| (LicenseId(id.to_owned()), seats)));
        assert_eq!(lapse(&mut write, &license, at(50)).await.unwrap(), ["a"]);
        give_back(&mut write, "lic", "other").await.unwrap();
        let taken = [((license.clone(), "chip".to_owned()), 2), ((license.clone(), "new".to_owned()), 1)];
        take(&mut write, taken.iter().map(|(of, count)| (of, count))).await.unwrap();
        write.flush().await.unwrap();
        assert_eq!(read(&mut write, &BTreeSet::from([license.clone()])).await.unwrap()[0].1.taken, 4);
        write.commit().await.unwrap();
        assert_eq!(others("x", 50).await, 3);
    }
}
