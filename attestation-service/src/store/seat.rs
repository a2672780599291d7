//! The seats of a licence: held by leases until they end or lapse. They are counted as they come and go, so that no decision
//! takes longer the more there are.

use jiff::Timestamp;
use release_protocol::LicenseId;
use sqlx::Row as _;

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

pub(super) async fn read(write: &mut Write<'_>, license: &LicenseId) -> Result<Seats, StoreError> {
    let row = sqlx::query(
        "SELECT coalesce((SELECT taken FROM seat WHERE license_id = $1 AND chip_id = $2), 0), \
         (SELECT min(seat_until) FROM lease WHERE license_id = $1 AND ended_at IS NULL AND seat_until > 0)",
    )
    .bind(&license.0)
    .bind(ALL)
    .fetch_one(write.sql())
    .await?;
    Ok(Seats { taken: row.try_get(0)?, next_lapse: row.try_get::<Option<i64>, _>(1)?.unwrap_or(i64::MAX) })
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
    let add = " ON CONFLICT (license_id, chip_id) DO UPDATE SET taken = seat.taken + excluded.taken";
    write
        .upsert("seat (license_id, chip_id, taken)", 3, add, &rows, |query, (license, chip, count)| {
            Ok(query.bind(license.clone()).bind(chip.clone()).bind(*count))
        })
        .await
}

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
