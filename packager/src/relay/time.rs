//! The relay's time of day: the vendor's, as its log signs it, carried on by the clock that goes on while the machine sleeps.
//! The host, which sets the machine's own time of day, could else make leases lapse in the relay's books while its guests live
//! on, and give their seats out again.

use std::sync::atomic::{AtomicI64, Ordering};

use held_lease::{BootTime, Exchange};
use jiff::{SignedDuration, Timestamp};

/// By how many nanoseconds the vendor's time is ahead of the boot clock.
static AHEAD: AtomicI64 = AtomicI64::new(UNKNOWN);
/// No answer of the vendor's was seen yet.
const UNKNOWN: i64 = i64::MIN;

/// The vendor's time; before its first answer this machine's own.
pub(crate) fn now() -> Timestamp {
    match AHEAD.load(Ordering::Acquire) {
        UNKNOWN => Timestamp::now(),
        ahead => at(ahead, BootTime::now()).unwrap_or_else(Timestamp::now),
    }
}

/// Takes the time from an answer that was believed.
pub(super) fn take_from(exchange: &Exchange) {
    let before = Some(AHEAD.load(Ordering::Acquire)).filter(|ahead| *ahead != UNKNOWN);
    if let Some(ahead) = ahead(before, exchange) {
        AHEAD.store(ahead, Ordering::Release);
    }
}

/// What is known after an answer. The vendor decided at some moment between question and answer: what lies within that stays
/// as it is, so that guests, who hold this clock against theirs, see no step of it.
fn ahead(before: Option<i64>, exchange: &Exchange) -> Option<i64> {
    let (least, most) = exchange.ahead();
    let ahead = match before {
        None => least.midpoint(most),
        Some(before) => i128::from(before).clamp(least, most),
    };
    i64::try_from(ahead).ok().filter(|ahead| *ahead != UNKNOWN)
}

fn at(ahead: i64, boot: BootTime) -> Option<Timestamp> {
    let boot = SignedDuration::from_nanos(i64::try_from(boot.to_nanoseconds()).ok()?);
    Timestamp::from_nanosecond(i128::from(ahead)).ok()?.checked_add(boot).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// The vendor decided `service` seconds after 2026 began, the machine ran for `asked` to `answered` seconds then.
    fn exchange(service: i64, asked: u64, answered: u64) -> Exchange {
        let boot = |seconds: u64| BootTime::from_nanoseconds(seconds * SECOND);
        let service = Timestamp::from_second(1_767_225_600 + service).unwrap();
        Exchange { service, asked: boot(asked), answered: boot(answered) }
    }

    fn seconds(ahead: i64) -> f64 {
        let since = at(ahead, BootTime::from_nanoseconds(0)).unwrap();
        since.duration_since(Timestamp::from_second(1_767_225_600).unwrap()).as_secs_f64()
    }

    #[test]
    fn the_first_answer_sets_it_and_later_ones_move_it_no_further_than_they_prove() {
        let first = ahead(None, &exchange(100, 10, 14)).unwrap();
        assert!((seconds(first) - 88.0).abs() < 1e-9, "{}", seconds(first));
        let same = ahead(Some(first), &exchange(200, 111, 113)).unwrap();
        assert_eq!(same, first);
        let later = ahead(Some(first), &exchange(200, 110, 111)).unwrap();
        assert!((seconds(later) - 89.0).abs() < 1e-9, "{}", seconds(later));
        let earlier = ahead(Some(first), &exchange(200, 113, 114)).unwrap();
        assert!((seconds(earlier) - 87.0).abs() < 1e-9, "{}", seconds(earlier));
    }

    #[test]
    fn it_goes_on_with_the_boot_clock() {
        let ahead = ahead(None, &exchange(100, 10, 10)).unwrap();
        let then = at(ahead, BootTime::from_nanoseconds(70 * SECOND)).unwrap();
        assert_eq!(then, Timestamp::from_second(1_767_225_600 + 160).unwrap());
    }
}
