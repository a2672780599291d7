//! How much one address may ask, and how much is answered at once. What is limited stands in `http/guard.rs`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Limits on what anybody may ask of the service. The rates are of addresses as the service sees them: behind a proxy, all
/// is one address's.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// How many requests a second one address may make of the key broker in the long run; 0: any number.
    pub requests_per_second: u32,
    /// How many more it may make at once, after a time of rest.
    pub burst: u32,
    /// How many requests of the key broker are answered at once, guests that only wait for news aside.
    pub concurrent_requests: u32,
    /// How many connections there are at once; more wait to be accepted.
    pub connections: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { requests_per_second: 50, burst: 1000, concurrent_requests: 512, connections: 1024 }
    }
}

/// A token bucket for each address, in bounded memory.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    buckets: HashMap<IpAddr, Bucket>,
    /// What all addresses share for which there is no room.
    overflow: Bucket,
    swept: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// How many addresses are told apart.
const ADDRESSES_MAX: usize = 10_000;
/// How often at most all buckets are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl RateLimiter {
    pub(crate) fn new(settings: &LimitSettings, now: Instant) -> Self {
        let burst = f64::from(settings.burst.max(1));
        let overflow = Bucket { tokens: burst, at: now };
        let state = State { buckets: HashMap::new(), overflow, swept: now };
        Self { per_second: f64::from(settings.requests_per_second), burst, state: Mutex::new(state) }
    }

    /// Lets one request of `address` through, or says after which time the next one is.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let key = site(address);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if state.buckets.len() >= ADDRESSES_MAX
            && !state.buckets.contains_key(&key)
            && now.saturating_duration_since(state.swept) >= SWEEP_EVERY
        {
            // A bucket that is full again says nothing that a new one would not.
            state.buckets.retain(|_, bucket| self.tokens(*bucket, now) < self.burst);
            state.swept = now;
        }
        let has_room = state.buckets.len() < ADDRESSES_MAX;
        let new = Bucket { tokens: self.burst, at: now };
        let bucket = match state.buckets.get_mut(&key) {
            Some(bucket) => bucket,
            None if has_room => state.buckets.entry(key).or_insert(new),
            None => &mut state.overflow,
        };
        *bucket = Bucket { tokens: self.tokens(*bucket, now), at: now };
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.per_second));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    fn tokens(&self, bucket: Bucket, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.tokens + refilled).min(self.burst)
    }
}

/// What counts as one address: a subscriber of IPv6 has 2⁶⁴ of them at least.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn limiter(requests_per_second: u32, burst: u32, now: Instant) -> RateLimiter {
        RateLimiter::new(&LimitSettings { requests_per_second, burst, ..LimitSettings::default() }, now)
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn an_address_gets_its_burst_then_its_rate_and_hears_when_to_come_back() {
        let now = Instant::now();
        let limiter = limiter(2, 3, now);
        for _ in 0..3 {
            assert_eq!(limiter.take(v4(1), now), Ok(()));
        }
        let wait = limiter.take(v4(1), now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(limiter.take(v4(2), now), Ok(()), "another address is not concerned");
        assert_eq!(limiter.take(v4(1), now + wait), Ok(()));
        assert!(limiter.take(v4(1), now + wait).is_err());
        let later = now + Duration::from_hours(1);
        assert_eq!(
            (0..10).filter(|_| limiter.take(v4(1), later).is_ok()).count(),
            3,
            "rest gives no more than a burst"
        );
    }

    #[test]
    fn the_map_stays_bounded_and_newcomers_share_what_is_left() {
        let now = Instant::now();
        let limiter = limiter(1, 2, now);
        let addresses = u32::try_from(ADDRESSES_MAX).unwrap();
        let through = (0..addresses + 1000).filter(|number| limiter.take(v4(*number), now).is_ok()).count();
        assert_eq!(through, ADDRESSES_MAX + 2);
        assert_eq!(limiter.take(v4(0), now), Ok(()), "who is known keeps a bucket of his own");
        let size = || limiter.state.lock().unwrap().buckets.len();
        assert_eq!(size(), ADDRESSES_MAX);
        let later = now + Duration::from_secs(5);
        assert_eq!(limiter.take(v4(u32::MAX), later), Ok(()));
        assert_eq!(size(), 1, "those who rested are forgotten");
    }

    #[test]
    fn one_subscriber_of_ipv6_is_one_address() {
        let now = Instant::now();
        let limiter = limiter(1, 1, now);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(limiter.take(address("2001:db8::1"), now), Ok(()));
        assert!(limiter.take(address("2001:db8::ffff:2"), now).is_err());
        assert_eq!(limiter.take(address("2001:db8:0:1::1"), now), Ok(()));
        assert_eq!(limiter.take(address("::ffff:192.0.2.1"), now), Ok(()));
        assert!(limiter.take(address("192.0.2.1"), now).is_err());
    }

    #[test]
    fn a_rate_of_zero_is_none() {
        let now = Instant::now();
        let limiter = limiter(0, 1, now);
        assert!((0..100).all(|_| limiter.take(v4(1), now).is_ok()));
    }
}
