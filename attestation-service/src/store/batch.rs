//! Several decisions in one transaction: the leases that they are about are read at once, the decisions are taken one after
//! the other, and what came of them is written at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use release_protocol::{LeaseId, LicenseId};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::rows::{Cell, Kind, Table, few_lengths, places};
use super::seat::{self, Seats};
use super::write::{EDGE_COLUMNS, Write};
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
    /// Until when the guest may do without the service; 0 where it may not.
    pub(super) offline_until: i64,
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
static LEASES: Table = Table {
    name: "lease",
    columns: &[
        ("id", Kind::Text),
        ("license_id", Kind::Text),
        ("product", Kind::Text),
        ("manifest_digest", Kind::Text),
        ("chip_id", Kind::Text),
        ("simulated", Kind::Number),
        ("started_at", Kind::Number),
        ("expires_at", Kind::Number),
        ("seat_until", Kind::Number),
        ("challenge_at", Kind::Number),
        ("platform", Kind::Text),
        ("entry", Kind::Number),
        ("last_entry", Kind::Number),
        ("revocable", Kind::Number),
        ("offline_until", Kind::Number),
    ],
    on_conflict: "ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, seat_until = excluded.seat_until, \
                  challenge_at = excluded.challenge_at, platform = excluded.platform, entry = excluded.entry, \
                  last_entry = excluded.last_entry, offline_until = excluded.offline_until",
};

impl Batch {
    /// Reads the leases that there are of these, what the log grows from, and the seats of these licences.
    pub(super) async fn read(
        write: &mut Write<'_>,
        leases: &[&LeaseId],
        licenses: &BTreeSet<LicenseId>,
    ) -> Result<Self, StoreError> {
        let mut batch = Self::default();
        if leases.is_empty() {
            return Ok(batch);
        }
        let wanted = few_lengths(leases);
        let mut query = sqlx::query(AssertSqlSafe(format!(
            "SELECT {EDGE_COLUMNS}, lease.* FROM log_edge LEFT JOIN lease ON lease.id IN {}",
            places(1, wanted.len())
        )));
        for id in wanted {
            query = query.bind(id.0.clone());
        }
        let rows = query.fetch_all(write.sql()).await?;
        write.learn_edge(rows.first().ok_or(StoreError::Value("edge of the log"))?)?;
        for row in &rows {
            if let Some(id) = row.try_get::<Option<String>, _>("id")? {
                batch.leases.insert(LeaseId(id), LeaseRow::read(row)?);
            }
        }
        batch.seats.extend(seat::read(write, licenses).await?);
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
            None => seats_of(write, license).await?,
        };
        if seats.next_lapse <= millis(now) {
            // What lapses is told by what is kept, so that has to be written first.
            self.write(write).await?;
            write.flush().await?;
            for id in seat::lapse(write, license, now).await? {
                if let Some(row) = self.leases.get_mut(&LeaseId(id)) {
                    row.seat_until = 0;
                }
            }
            seats = seats_of(write, license).await?;
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
        let bases = std::mem::take(&mut self.bases);
        let renewed: Vec<_> = bases.iter().filter(|basis| basis.renews).map(|basis| &basis.lease).collect();
        evidence::forget_renewals(write, &renewed).await?;
        let changed = std::mem::take(&mut self.changed);
        let rows = changed.iter().filter_map(|id| Some(self.leases.get(id)?.cells(id)));
        write.add(&LEASES, rows.collect()).await?;
        seat::take(write, &std::mem::take(&mut self.taken)).await?;
        let bases: Vec<_> = bases.into_iter().map(|basis| (basis.lease, basis.entry, basis.sealed)).collect();
        evidence::keep(write, &bases).await
    }
}

async fn seats_of(write: &mut Write<'_>, license: &LicenseId) -> Result<Seats, StoreError> {
    let seats = seat::read(write, &BTreeSet::from([license.clone()])).await?;
    seats.first().map(|(_, seats)| *seats).ok_or(StoreError::Value("seats of a licence"))
}

impl LeaseRow {
    /// In the order of the table's columns.
    fn cells(&self, id: &LeaseId) -> Vec<Cell> {
        vec![
            id.0.clone().into(),
            self.license.clone().into(),
            self.product.clone().into(),
            self.manifest_digest.clone().into(),
            self.chip_id.clone().into(),
            i64::from(self.simulated).into(),
            self.started_at.into(),
            self.expires_at.into(),
            self.seat_until.into(),
            self.challenge_at.into(),
            self.platform.clone().into(),
            self.entry.into(),
            self.last_entry.into(),
            i64::from(self.revocable).into(),
            self.offline_until.into(),
        ]
    }

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
            offline_until: row.try_get("offline_until")?,
            challenge_at: row.try_get("challenge_at")?,
            has_ended: row.try_get::<Option<&str>, _>("end_reason")?.is_some(),
            platform: row.try_get("platform")?,
            entry: row.try_get("entry")?,
            last_entry: row.try_get("last_entry")?,
        })
    }
}
