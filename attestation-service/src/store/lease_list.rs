//! Which leases there are: listed and counted. How they come and go stands in `lease.rs`.

use jiff::Timestamp;
use release_protocol::LeaseId;
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row as _};

use super::{Store, StoreError, millis, timestamp};
use crate::api::LeaseStatus;
use crate::platform::Platform;

impl Store {
    /// The newest leases first, from behind `after` on.
    pub(crate) async fn leases(
        &self,
        limit: u32,
        after: Option<&LeaseId>,
        now: Timestamp,
    ) -> Result<Vec<LeaseStatus>, StoreError> {
        let (started_at, id) = match after {
            None => (i64::MAX, ""),
            Some(after) => {
                let row = sqlx::query("SELECT started_at FROM lease WHERE id = $1")
                    .bind(&after.0)
                    .fetch_optional(&self.pool)
                    .await?
                    .ok_or_else(|| StoreError::Unknown { kind: "lease", name: after.0.clone() })?;
                (row.try_get(0)?, after.0.as_str())
            }
        };
        let rows = sqlx::query(
            "SELECT * FROM lease WHERE started_at <= $1 AND (started_at < $1 OR id > $2) \
             ORDER BY started_at DESC, id LIMIT $3",
        )
        .bind(started_at)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| status(row, now)).collect()
    }
}

/// The leases that are live, newest first.
pub(super) async fn live_leases<'e>(
    executor: impl Executor<'e, Database = Any>,
    now: Timestamp,
) -> Result<Vec<LeaseStatus>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM lease WHERE ended_at IS NULL AND seat_until > 0 AND seat_until > $1 ORDER BY started_at DESC, id")
            .bind(millis(now))
            .fetch_all(executor)
            .await?;
    rows.iter().map(|row| status(row, now)).collect()
}

fn platform(row: &AnyRow) -> Result<Option<Platform>, StoreError> {
    Ok(row.try_get::<Option<&str>, _>("platform")?.map(serde_json::from_str).transpose()?)
}

fn status(row: &AnyRow, now: Timestamp) -> Result<LeaseStatus, StoreError> {
    let ended = row.try_get::<Option<&str>, _>("end_reason")?.is_some();
    let lapsed = row.try_get::<i64, _>("seat_until")? <= millis(now);
    Ok(LeaseStatus {
        id: row.try_get("id")?,
        license: row.try_get("license_id")?,
        product: row.try_get::<&str, _>("product")?.parse().map_err(|_| StoreError::Value("product name"))?,
        manifest_digest: row.try_get("manifest_digest")?,
        chip_id: row.try_get("chip_id")?,
        platform: platform(row)?,
        simulated: row.try_get::<i64, _>("simulated")? != 0,
        revocable: row.try_get::<i64, _>("revocable")? != 0,
        state: match (ended, lapsed) {
            (true, _) => "ended",
            (false, true) => "lapsed",
            (false, false) => "live",
        }
        .to_owned(),
        started_at: timestamp(row.try_get("started_at")?)?,
        expires_at: timestamp(row.try_get("expires_at")?)?,
        offline_until: match row.try_get::<i64, _>("offline_until")? {
            0 => None,
            until => Some(timestamp(until)?),
        },
        end_reason: row.try_get("end_reason")?,
    })
}
