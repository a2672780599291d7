//! The seats of a licence: held by leases until they end or lapse.

use jiff::Timestamp;
use release_protocol::LicenseId;

use super::write::Write;
use super::{StoreError, count, millis};

/// How many seats of a licence are taken at `now`. What has lapsed by then has given its seat back for good: a clock that is
/// set back later does not take it from who got it.
pub(super) async fn taken(transaction: &mut Write, license: &LicenseId, now: Timestamp) -> Result<u32, StoreError> {
    sqlx::query(
        "UPDATE lease SET seat_until = 0 \
         WHERE license_id = $1 AND ended_at IS NULL AND seat_until > 0 AND seat_until <= $2",
    )
    .bind(&license.0)
    .bind(millis(now))
    .execute(transaction.sql())
    .await?;
    let row = sqlx::query("SELECT count(*) FROM lease WHERE license_id = $1 AND ended_at IS NULL AND seat_until > $2")
        .bind(&license.0)
        .bind(millis(now))
        .fetch_one(transaction.sql())
        .await?;
    count(&row, 0)
}
