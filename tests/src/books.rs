//! What the vendor can read of leases and log, and what must hold between the two whatever befell the service.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::scene::Scene;
use crate::vendor::Vendor;

/// Leases and log, as they were read.
#[derive(Debug)]
pub struct Books {
    /// By their numbers.
    pub entries: Vec<Value>,
    /// Newest first.
    pub leases: Vec<Value>,
}

/// A lease as the log tells of it.
#[derive(Debug)]
pub struct Told<'a> {
    /// The licence that it was granted under.
    license: &'a str,
    /// Its newest entry.
    last: u64,
    /// When its seat is free again by itself, Unix milliseconds; 0 once it was seen to be.
    seat_until: i64,
    /// Whether a key was released under it.
    pub released: bool,
    /// Whether it was ended.
    pub ended: bool,
}

/// Leases by their ids.
type Leases<'a> = BTreeMap<&'a str, Told<'a>>;

impl Books {
    /// Reads them.
    ///
    /// # Panics
    /// When the service does not answer.
    #[track_caller]
    pub fn of(vendor: &Vendor) -> Self {
        let read = |args: &[&str]| {
            let said = vendor.sealift(["--output", "json"].iter().chain(args)).succeeded();
            serde_json::from_str(&said.stdout).expect("JSON")
        };
        Self { leases: read(&["lease", "list"]), entries: read(&["audit", "list", "--limit", "1000000"]) }
    }

    /// Asserts that entries are numbered without a gap, that leases and log tell the same, that nothing was released or
    /// renewed but under a lease that had been granted and had not ended, and that the log verifies. Nothing may run.
    /// Gives the leases.
    ///
    /// # Panics
    /// When anything of it does not hold.
    #[track_caller]
    pub fn assert_sound(&self, scene: &Scene) -> BTreeMap<&str, Told<'_>> {
        let numbers: Vec<u64> = self.entries.iter().map(number).collect();
        let newest = numbers.last().copied().expect("entries");
        assert_eq!(numbers, (1..=newest).collect::<Vec<_>>(), "a gap");
        let told = self.read(0, |_, _| {});
        let state = |lease: &Value| (text(&lease["id"]).to_owned(), lease["state"] == "ended");
        let known: BTreeMap<String, bool> = self.leases.iter().map(state).collect();
        let mut recorded: BTreeMap<String, bool> =
            told.iter().map(|(id, told)| ((*id).to_owned(), told.ended)).collect();
        // The list is of the newest ones only.
        if self.leases.len() == LISTED {
            recorded.retain(|id, _| known.contains_key(id));
        }
        assert_eq!(known, recorded, "leases and whether they ended: by their list, and by the log");
        // Verifies the checkpoint and every hash on the way.
        let path = |name: &str| scene.scratch.path().join(name).display().to_string();
        scene.vendor.sealift(["audit", "export", &path("log")]).succeeded();
        scene.vendor.sealift(["audit", "prove", &newest.to_string(), "--file", &path("receipt.json")]).succeeded();
        told
    }

    /// Asserts that there was a seat whenever a licence of so many seats gave one, each of which is held for so many
    /// milliseconds after a grant or renewal. A seat that was free once is not taken back, whatever the clock says later.
    ///
    /// # Panics
    /// When there was none.
    #[track_caller]
    pub fn assert_seats(&self, license: &str, seats: usize, held_for: i64) {
        self.read(held_for, |entry, leases| {
            let taken = leases.values().filter(|told| told.license == license && !told.ended && told.seat_until > 0);
            let taken = taken.count();
            assert!(taken <= seats, "{taken} of {seats} seats: {entry}");
        });
    }

    /// The leases by the log; `seat_taken` sees each entry that takes a seat, and the leases then.
    #[track_caller]
    fn read<'a>(&'a self, held_for: i64, mut seat_taken: impl FnMut(&Value, &Leases<'a>)) -> Leases<'a> {
        let mut leases = Leases::new();
        for entry in &self.entries {
            let (kind, body) = (text(&entry["kind"]), &entry["body"]);
            if !["lease_granted", "lease_renewed", "key_released", "lease_ended"].contains(&kind) {
                continue;
            }
            let (id, now) = (text(&body["lease"]), at(entry));
            let known = leases.get(id);
            assert_eq!(known.is_none(), kind == "lease_granted", "granted twice or never: {entry}");
            assert!(known.is_none_or(|told| !told.ended), "the lease has ended: {entry}");
            let last = known.map(|told| told.last);
            assert_eq!(body["previous"].as_u64(), last, "another entry of this lease is between: {entry}");
            let takes_seat =
                kind == "lease_granted" || kind == "lease_renewed" && known.is_some_and(|told| told.seat_until <= now);
            if takes_seat {
                leases.values_mut().filter(|told| told.seat_until <= now).for_each(|told| told.seat_until = 0);
            }
            let told = leases.entry(id).or_insert_with(|| Told {
                license: text(&body["license"]),
                last: 0,
                seat_until: 0,
                released: false,
                ended: false,
            });
            told.last = number(entry);
            match kind {
                "key_released" => told.released = true,
                "lease_ended" => told.ended = true,
                _ => told.seat_until = now + held_for,
            }
            if takes_seat {
                seat_taken(entry, &leases);
            }
        }
        leases
    }
}

/// How many leases are listed at most.
const LISTED: usize = 1000;

/// When an entry was made, by the service's clock, Unix milliseconds.
///
/// # Panics
/// When it does not say.
pub fn at(entry: &Value) -> i64 {
    text(&entry["at"]).parse::<jiff::Timestamp>().expect("a time").as_millisecond()
}

fn number(entry: &Value) -> u64 {
    entry["sequence"].as_u64().expect("a number")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
