//! Several decisions in one transaction: the leases that they are about are read at once, the decisions are taken one after
//! the other, and what came of them is written at once, in as many statements for many as for one.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use release_protocol::{LeaseId, LicenseId};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::seat::{self, Seats};
use super::write::Write;
use super::{StoreError, evidence, millis};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Batch {
    leases: HashMap<LeaseId, LeaseRow>,
    seats: HashMap<LicenseId, Seats>,
    /// Leases that are not written yet as they are here.
    changed: Vec<LeaseId>,
    /// Seats that were taken and are not counted yet.
    taken: BTreeMap<(LicenseId, String), i64>,
    bases: Vec<Basis>,
}

/// A lease as it is kept. Times are Unix milliseconds.
#[derive(Clone, Debug)]
pub(super) struct LeaseRow {
    pub(super) license: String,
    pub(super) product: String,
    pub(super) manifest_digest: String,
    pub(super) chip_id: String,
    pub(super) simulated: bool,
    pub(super) revocable: bool,
    pub(super) started_at: i64,
    pub(super) expires_at: i64,
    pub(super) seat_until: i64,
    pub(super) challenge_at: i64,
    pub(super) has_ended: bool,
    /// In JSON.
    pub(super) platform: Option<String>,
    pub(super) entry: Option<i64>,
    pub(super) last_entry: Option<i64>,
}

/// What a decision on a lease rested on, sealed.
#[derive(Debug)]
struct Basis {
    lease: LeaseId,
    entry: u64,
    sealed: Vec<u8>,
    renews: bool,
}

/// The columns that never change, and those that do.
const COLUMNS: &str = "lease (id, license_id, product, manifest_digest, chip_id, simulated, started_at, expires_at, \
                       seat_until, challenge_at, platform, entry, last_entry, revocable)";
const CHANGE: &str = " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, seat_until = excluded.seat_until, \
                      challenge_at = excluded.challenge_at, platform = excluded.platform, entry = excluded.entry, \
                      last_entry = excluded.last_entry";

impl Batch {
    /// Reads the leases that there are of these.
    pub(super) async fn read(write: &mut Write<'_>, ids: impl Iterator<Item = &LeaseId>) -> Result<Self, StoreError> {
        let ids: Vec<_> = ids.collect();
        let mut batch = Self::default();
        let Some(last) = ids.last() else { return Ok(batch) };
        // A power of two each time, so that there are few different statements to prepare.
        let places: Vec<_> = (1..=ids.len().next_power_of_two()).map(|number| format!("${number}")).collect();
        let mut query = sqlx::query(AssertSqlSafe(format!("SELECT * FROM lease WHERE id IN ({})", places.join(", "))));
        for place in 0..places.len() {
            query = query.bind(ids.get(place).unwrap_or(last).0.clone());
        }
        for row in &query.fetch_all(write.sql()).await? {
            batch.leases.insert(LeaseId(row.try_get("id")?), LeaseRow::read(row)?);
        }
        Ok(batch)
    }

    pub(super) fn lease(&self, id: &LeaseId) -> Option<&LeaseRow> {
        self.leases.get(id)
    }

    /// How many seats of a licence are taken at `now`.
    pub(super) async fn seats_taken(
        &mut self,
        write: &mut Write<'_>,
        license: &LicenseId,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        let mut seats = match self.seats.get(license) {
            Some(seats) => *seats,
            None => seat::read(write, license).await?,
        };
        if seats.next_lapse <= millis(now) {
            // What lapses is told by what is kept, so that has to be written first.
            self.write(write).await?;
            for id in seat::lapse(write, license, now).await? {
                if let Some(row) = self.leases.get_mut(&LeaseId(id)) {
                    row.seat_until = 0;
                }
            }
            seats = seat::read(write, license).await?;
        }
        self.seats.insert(license.clone(), seats);
        u32::try_from(seats.taken).map_err(|_| StoreError::Value("count"))
    }

    /// Puts a lease in its place, new or changed. `takes_seat` where it had none before.
    pub(super) fn put(&mut self, id: &LeaseId, row: LeaseRow, takes_seat: bool) {
        if takes_seat {
            let license = LicenseId(row.license.clone());
            if let Some(seats) = self.seats.get_mut(&license) {
                seats.taken += 1;
                seats.next_lapse = seats.next_lapse.min(row.seat_until);
            }
            *self.taken.entry((license, row.chip_id.clone())).or_default() += 1;
        }
        self.leases.insert(id.clone(), row);
        if !self.changed.contains(id) {
            self.changed.push(id.clone());
        }
    }

    /// Keeps what a decision rested on. Of renewals, only the newest one's stays.
    pub(super) fn keep_basis(&mut self, lease: &LeaseId, entry: u64, sealed: Vec<u8>, renews: bool) {
        self.bases.retain(|kept| kept.lease != *lease || !kept.renews);
        self.bases.push(Basis { lease: lease.clone(), entry, sealed, renews });
    }

    /// Writes what has come of the decisions so far.
    pub(super) async fn write(&mut self, write: &mut Write<'_>) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut self.changed);
        let rows: Vec<_> = changed.iter().filter_map(|id| self.leases.get_key_value(id)).collect();
        write
            .upsert(COLUMNS, 14, CHANGE, &rows, |query, (id, row)| {
                Ok(query
                    .bind(id.0.clone())
                    .bind(row.license.clone())
                    .bind(row.product.clone())
                    .bind(row.manifest_digest.clone())
                    .bind(row.chip_id.clone())
                    .bind(i64::from(row.simulated))
                    .bind(row.started_at)
                    .bind(row.expires_at)
                    .bind(row.seat_until)
                    .bind(row.challenge_at)
                    .bind(row.platform.clone())
                    .bind(row.entry)
                    .bind(row.last_entry)
                    .bind(i64::from(row.revocable)))
            })
            .await?;
        seat::take(write, &std::mem::take(&mut self.taken)).await?;
        let bases = std::mem::take(&mut self.bases);
        let renewed: Vec<_> = bases.iter().filter(|basis| basis.renews).map(|basis| &basis.lease).collect();
        evidence::forget_renewals(write, &renewed).await?;
        let bases: Vec<_> = bases.into_iter().map(|basis| (basis.lease, basis.entry, basis.sealed)).collect();
        evidence::keep(write, &bases).await
    }
}

impl LeaseRow {
    pub(super) fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            license: row.try_get("license_id")?,
            product: row.try_get("product")?,
            manifest_digest: row.try_get("manifest_digest")?,
            chip_id: row.try_get("chip_id")?,
            simulated: row.try_get::<i64, _>("simulated")? != 0,
            revocable: row.try_get::<i64, _>("revocable")? != 0,
            started_at: row.try_get("started_at")?,
            expires_at: row.try_get("expires_at")?,
            seat_until: row.try_get("seat_until")?,
            challenge_at: row.try_get("challenge_at")?,
            has_ended: row.try_get::<Option<i64>, _>("ended_at")?.is_some(),
            platform: row.try_get("platform")?,
            entry: row.try_get("entry")?,
            last_entry: row.try_get("last_entry")?,
        })
    }
}
