//! Clocks as the tests set them: honest ones pass whatever the network does, others are found out.

use proptest::prelude::*;

use super::*;

/// When the service's clock begins, in seconds of Unix time.
const EPOCH: i64 = 1_800_000_000;

/// The exchange at `service` and `guest` seconds, which took a tenth of a second.
fn exchange(service: f64, guest: f64) -> Exchange {
    lasting(service, guest, 0.1)
}

fn lasting(service: f64, asked: f64, took: f64) -> Exchange {
    let start = Timestamp::from_second(EPOCH).unwrap();
    Exchange {
        service: start.checked_add(jiff::SignedDuration::from_secs_f64(service)).unwrap(),
        asked: BootTime(Duration::from_secs_f64(asked)),
        answered: BootTime(Duration::from_secs_f64(asked + took)),
    }
}

/// Accepts all but the last; gives what becomes of that.
fn last(exchanges: &[Exchange]) -> Result<(), Diverged> {
    let mut check = ClockCheck::default();
    let (last, before) = exchanges.split_last().unwrap();
    for exchange in before {
        check.accept(*exchange).unwrap();
    }
    check.accept(*last)
}

#[test]
fn a_guest_whose_clock_goes_at_half_speed_is_refused_with_both_advances() {
    let refused = last(&[exchange(0.0, 100.0), exchange(600.0, 400.0)]).unwrap_err();
    let Diverged::GuestBehind { service, guest } = refused else { panic!("{refused:?}") };
    assert!((service - 600.0).abs() < 1e-6 && (guest - 300.1).abs() < 1e-6, "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("by 600.0 s") && text.contains("by 300.1 s at most") && text.contains("paused"), "{text}");
}

#[test]
fn a_guest_that_stood_still_for_a_while_is_refused() {
    let refused = last(&[exchange(0.0, 0.0), exchange(600.0, 600.0), exchange(1206.0, 1200.0)]);
    assert!(matches!(refused, Err(Diverged::GuestBehind { .. })), "{refused:?}");
    last(&[exchange(0.0, 0.0), exchange(600.0, 600.0), exchange(1204.0, 1200.0)]).unwrap();
}

#[test]
fn a_service_whose_clock_was_set_forward_is_refused() {
    let refused = last(&[exchange(0.0, 0.0), exchange(3610.0, 10.0)]);
    assert!(matches!(refused, Err(Diverged::GuestBehind { .. })), "{refused:?}");
}

#[test]
fn a_service_whose_clock_was_set_back_is_refused() {
    let refused = last(&[exchange(0.0, 0.0), exchange(600.0, 600.0), exchange(-2400.0, 1200.0)]).unwrap_err();
    let Diverged::ServiceBehind { service, guest } = refused else { panic!("{refused:?}") };
    assert!((service + 3000.0).abs() < 1e-6 && (guest - 599.9).abs() < 1e-6, "{refused:?}");
    assert!(refused.to_string().contains("was set back"), "{refused}");
}

#[test]
fn an_old_answer_given_once_more_is_refused() {
    let refused = last(&[exchange(0.0, 0.0), exchange(600.0, 600.0), exchange(600.0, 1200.0)]);
    assert!(matches!(refused, Err(Diverged::ServiceBehind { .. })), "{refused:?}");
}

#[test]
fn small_steps_do_not_add_up() {
    // Seven seconds an hour: no two renewals after each other show it.
    let hours: Vec<_> = (0..10).map(f64::from).map(|hour| exchange(hour * 3607.0, hour * 3600.0)).collect();
    last(&hours[..2]).unwrap();
    last(&hours[1..3]).unwrap();
    assert_eq!(by_check(&hours), Some(2));
}

#[test]
fn a_jump_does_not_hide_in_the_drift_that_a_long_life_allows() {
    // A year allows for hours of drift since the first exchange, but not for a minute since the last.
    let year = 365.0 * 86_400.0;
    let refused = last(&[exchange(0.0, 0.0), exchange(year, year), exchange(year + 660.0, year + 600.0)]);
    assert!(matches!(refused, Err(Diverged::GuestBehind { .. })), "{refused:?}");
}

#[test]
fn a_slow_first_answer_does_not_excuse_a_slow_clock_later() {
    let slow = lasting(60.0, 0.0, 60.0);
    last(&[slow, exchange(600.0, 600.0), exchange(1200.0, 1200.0)]).unwrap();
    let refused = last(&[slow, exchange(600.0, 600.0), exchange(1230.0, 1200.0)]);
    assert!(matches!(refused, Err(Diverged::GuestBehind { .. })), "{refused:?}");
}

/// Exchanges of two clocks, `rates` of which go by true time, with a pause and the two ways before each.
fn run_of(rates: (f64, f64), steps: &[(f64, f64, f64)]) -> Vec<Exchange> {
    let mut time = 0.0;
    let mut exchanges = Vec::new();
    for (pause, there, back) in steps {
        time += pause;
        let (asked, decided, answered) = (time, time + there, time + there + back);
        time = answered;
        let took = (answered - asked) * rates.1;
        exchanges.push(lasting(decided * rates.0, asked * rates.1, took));
    }
    exchanges
}

fn steps() -> impl Strategy<Value = Vec<(f64, f64, f64)>> {
    proptest::collection::vec((0.5..100_000.0, 0.0..60.0, 0.0..60.0), 2..60)
}

/// What the check stands for, without its shortcut.
fn by_all_pairs(exchanges: &[Exchange]) -> Option<usize> {
    let total = |from: BootTime, to: BootTime| to.nanoseconds() - from.nanoseconds();
    (1..exchanges.len()).find(|later| {
        exchanges[..*later].iter().any(|earlier| {
            let now = &exchanges[*later];
            let service = now.service.as_nanosecond() - earlier.service.as_nanosecond();
            let (most, least) = (total(earlier.asked, now.answered), total(earlier.answered, now.asked));
            service > most + most / DRIFT_ONE_IN + STEP || service < least - least / DRIFT_ONE_IN - STEP
        })
    })
}

fn by_check(exchanges: &[Exchange]) -> Option<usize> {
    let mut check = ClockCheck::default();
    exchanges.iter().position(|exchange| check.accept(*exchange).is_err())
}

proptest! {
    #[test]
    fn clocks_that_drift_as_far_as_kernels_let_them_are_never_refused(
        service in 0.999_51..1.000_49, guest in 0.999_51..1.000_49, steps in steps(),
    ) {
        prop_assert_eq!(by_check(&run_of((service, guest), &steps)), None);
    }

    #[test]
    fn a_clock_slowed_by_one_part_in_a_hundred_is_refused_within_minutes(
        guest in 0.1..0.99, steps in proptest::collection::vec((10.0..60.0, 0.0..0.1, 0.0..0.1), 80..100),
    ) {
        prop_assert!(by_check(&run_of((1.0, guest), &steps)).is_some());
    }

    #[test]
    fn the_two_exchanges_that_are_kept_judge_like_all_of_them(
        service in 0.99..1.01, guest in 0.99..1.01, steps in steps(), jump in -20.0..20.0,
    ) {
        let mut exchanges = run_of((service, guest), &steps);
        let half = exchanges.len() / 2;
        for exchange in &mut exchanges[half..] {
            exchange.service = exchange.service.checked_add(jiff::SignedDuration::from_secs_f64(jump)).unwrap();
        }
        prop_assert_eq!(by_check(&exchanges), by_all_pairs(&exchanges));
    }
}
