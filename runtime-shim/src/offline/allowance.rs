//! How long a guest may still do without the service, counted so that a restart, a clock that is turned back and one that stands
//! still do not lengthen it. No clock is read here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is left is the least of two counts: the wall clock's since the allowance was asked for, of which the newest time that was
/// ever seen counts, and the time that guests have run since. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allowance {
    /// As the service granted it, in seconds.
    seconds: u64,
    /// When it was asked for, by the guest's wall clock.
    pub(super) asked_at: i64,
    /// The newest time that the wall clock has shown.
    newest: i64,
    /// How long guests have run since it was asked for.
    pub(super) used: u64,
}

/// Why nothing may start under an allowance.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    /// The wall clock shows a time before one that it has shown.
    #[error("this machine's clock was turned back: it is {seconds} s behind the newest time that it has shown")]
    ClockBack {
        /// By how much.
        seconds: i64,
    },
    /// It has been used up.
    #[error("the offline allowance of {seconds} s is over")]
    Over {
        /// How long it was.
        seconds: u64,
    },
}

impl Allowance {
    /// An allowance that was asked for at `asked_at`, and that has been granted at `now`.
    pub(super) fn granted(seconds: u64, asked_at: i64, now: i64) -> Self {
        let newest = now.max(asked_at);
        Self { seconds, asked_at, newest, used: newest.abs_diff(asked_at) }
    }

    /// The one that a renewal by file gives in its place: it counts from when its request was made, not from when its answer came.
    pub(super) fn renewed(&self, seconds: u64, asked_at: i64, used_then: u64) -> Self {
        Self { seconds, asked_at, newest: self.newest, used: self.used.saturating_sub(used_then) }
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        let by_clock = u64::try_from(self.newest.saturating_sub(self.asked_at)).unwrap_or_default();
        Duration::from_millis(self.seconds.saturating_mul(1000).saturating_sub(by_clock.max(self.used)))
    }

    /// A guest has run for so long, and its clock shows `now`.
    pub(super) fn count(&mut self, now: i64, ran: Duration) {
        self.newest = self.newest.max(now);
        self.used = self.used.saturating_add(u64::try_from(ran.as_millis()).unwrap_or(u64::MAX));
    }

    /// Refuses a clock that was turned back.
    pub(super) fn check_clock(&self, now: i64) -> Result<(), Refusal> {
        let behind = self.newest.saturating_sub(now);
        if behind > STEP { Err(Refusal::ClockBack { seconds: behind / 1000 }) } else { Ok(()) }
    }

    /// A guest starts at `now`, without the service.
    pub(super) fn take_up(&mut self, now: i64) -> Result<(), Refusal> {
        self.check_clock(now)?;
        self.count(now, Duration::ZERO);
        if self.left().is_zero() { Err(Refusal::Over { seconds: self.seconds }) } else { Ok(()) }
    }
}

/// What a wall clock may be set back by its time daemon, in milliseconds; as for the clocks of a lease.
const STEP: i64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_790_000_000_000;
    const THREE_DAYS: u64 = 72 * 3600;

    fn three_days() -> Allowance {
        Allowance::granted(THREE_DAYS, START, START + 40)
    }

    /// A guest that runs from `from` to `to` by its own clock, which is counted every minute.
    fn run(allowance: &mut Allowance, from: i64, to: i64) {
        let mut now = from;
        while now < to {
            now += 60_000;
            allowance.count(now, Duration::from_mins(1));
        }
    }

    #[test]
    fn seventy_two_hours_of_running_and_restarting_are_seventy_two_hours() {
        let mut allowance = three_days();
        // Six hours on, six hours off.
        for half_day in 0..6 {
            let from = START + half_day * 12 * HOUR;
            allowance.take_up(from).unwrap();
            run(&mut allowance, from, from + 6 * HOUR);
        }
        assert_eq!(allowance.left(), Duration::from_hours(6));
        allowance.take_up(START + 72 * HOUR - 1).unwrap();
        assert_eq!(allowance.take_up(START + 72 * HOUR), Err(Refusal::Over { seconds: THREE_DAYS }));
        assert_eq!(allowance.take_up(START + 72 * HOUR + 1), Err(Refusal::Over { seconds: THREE_DAYS }));
    }

    #[test]
    fn a_clock_that_is_turned_back_starts_nothing() {
        let mut allowance = three_days();
        run(&mut allowance, START, START + 10 * HOUR);
        let back = allowance.take_up(START + 9 * HOUR);
        assert_eq!(back, Err(Refusal::ClockBack { seconds: 3600 }));
        // Of a daemon's correction nothing is lost, and nothing is gained.
        let left = allowance.left();
        allowance.take_up(START + 10 * HOUR - 4_000).unwrap();
        assert_eq!(allowance.left(), left);
        assert!(allowance.take_up(START + 10 * HOUR - 6_000).is_err());
    }

    #[test]
    fn after_the_end_no_clock_brings_the_allowance_back() {
        let mut allowance = three_days();
        assert!(allowance.take_up(START + 80 * HOUR).is_err());
        assert_eq!(allowance.take_up(START + HOUR), Err(Refusal::ClockBack { seconds: 79 * 3600 }));
    }

    #[test]
    fn a_clock_that_stands_still_between_restarts_is_counted_out_by_the_time_that_guests_run() {
        let mut allowance = three_days();
        for _ in 0..71 {
            allowance.take_up(START + 1_000).unwrap();
            allowance.count(START + 1_000, Duration::from_hours(1));
        }
        allowance.take_up(START + 1_000).unwrap();
        allowance.count(START + 1_000, Duration::from_hours(1));
        assert_eq!(allowance.take_up(START + 1_000), Err(Refusal::Over { seconds: THREE_DAYS }));
    }

    #[test]
    fn a_renewal_by_file_counts_from_its_request() {
        let mut allowance = three_days();
        run(&mut allowance, START, START + 60 * HOUR);
        let (asked_at, used_then) = (START + 60 * HOUR, allowance.used);
        // It was carried for eight hours.
        run(&mut allowance, asked_at, asked_at + 8 * HOUR);
        let mut renewed = allowance.renewed(THREE_DAYS, asked_at, used_then);
        assert_eq!(renewed.left(), Duration::from_hours(64));
        renewed.take_up(asked_at + 71 * HOUR).unwrap();
        assert!(renewed.take_up(asked_at + 72 * HOUR).is_err());
    }

    #[test]
    fn the_way_to_the_service_and_back_does_not_lengthen_it() {
        assert_eq!(Allowance::granted(60, START, START + 20_000).left(), Duration::from_secs(40));
    }
}
