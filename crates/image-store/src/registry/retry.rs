//! When to try again: exponential back-off with jitter, and the registry's own `Retry-After`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::options::RetryPolicy;

/// How long to wait after the failure number `failures` (from 1): what the registry asked for, else the policy's delay
/// shortened at random by up to a half.
pub(super) fn delay(policy: &RetryPolicy, failures: u32, asked: Option<Duration>) -> Duration {
    if let Some(asked) = asked {
        return asked.min(policy.longest_delay);
    }
    let doublings = failures.saturating_sub(1).min(30);
    let delay = policy.first_delay.saturating_mul(1 << doublings).min(policy.longest_delay);
    // A fresh hasher state is random enough to spread clients, and needs no further dependency.
    let random = u32::try_from(RandomState::new().hash_one(failures) >> 33).unwrap_or(0);
    delay.mul_f64(1.0 - f64::from(random) / f64::from(u32::MAX))
}

/// `Retry-After` in seconds. Its other form, a date, is left to the back-off: it would trust this machine's clock.
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Statuses that may pass: overload and trouble behind the registry.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 5, first_delay: Duration::from_millis(100), longest_delay: Duration::from_secs(1) };

    #[test]
    fn delays_double_up_to_the_longest_and_lose_at_most_half() {
        for (failures, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (60, 1_000)] {
            for _ in 0..100 {
                let delay = delay(&POLICY, failures, None).as_millis();
                assert!((full / 2..=full).contains(&delay), "{failures}: {delay}");
            }
        }
    }

    #[test]
    fn retry_after_wins_within_the_limit() {
        assert_eq!(delay(&POLICY, 1, Some(Duration::from_millis(700))), Duration::from_millis(700));
        assert_eq!(delay(&POLICY, 1, Some(Duration::from_secs(700))), Duration::from_secs(1));
        let headers = |value: &str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(asked(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(asked(&headers("Wed, 21 Oct 2015 07:28:00 GMT")), None);
        assert_eq!(asked(&headers("-1")), None);
    }
}
