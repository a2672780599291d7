//! The two clocks that bound a lease: the guest's own, which its host has in hand, and the service's, whose time comes signed
//! with each grant and renewal. A guest whose clock goes slower than the service's would hold a lease for longer than it lives.

use std::time::Duration;

use command_line::Failure;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Time since the guest started, suspended time included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// Now.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Self(Duration::new(seconds, nanoseconds))
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// As other processes of this guest are told of it, in nanoseconds.
    pub fn to_nanoseconds(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time that another process of this guest told.
    pub fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(Duration::from_nanos(nanoseconds))
    }

    /// How long it is until then; zero when it is over.
    pub fn until(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }

    /// How long ago it was; zero when it is to come.
    pub fn since(self) -> Duration {
        self.until_that(Self::now())
    }

    /// How long it was from then to `later`; zero when that came before.
    pub fn until_that(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }

    fn nanoseconds(self) -> i128 {
        i128::try_from(self.0.as_nanos()).unwrap_or(i128::MAX)
    }
}

/// One grant or renewal, on both clocks. The service decided somewhere between question and answer.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The time in the audit entry of the decision.
    pub service: Timestamp,
    /// When the guest sent its evidence.
    pub asked: BootTime,
    /// When it had the answer.
    pub answered: BootTime,
}

/// The clocks have parted; each variant says since which earlier exchange, by how much each has gone on.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Diverged {
    /// The guest's clock was slowed or stood still, or the service's was set forward.
    #[error(
        "the service's clock has gone on by {service:.1} s since an earlier answer, this machine's by {guest:.1} s at \
         most: either this machine was paused or its host slows its clock, or the service's clock was set forward"
    )]
    GuestBehind {
        /// By how much the service's clock has gone on, in seconds.
        service: f64,
        /// By how much the guest's clock has gone on at most, in seconds.
        guest: f64,
    },
    /// The service's clock was set back or stood still, or its answer is an old one; or the guest's clock goes too fast.
    #[error(
        "the service's clock has gone on by {service:.1} s since an earlier answer, this machine's by {guest:.1} s at \
         least: either the service's clock was set back, or its answer is an old one, or this machine's clock goes too fast"
    )]
    ServiceBehind {
        /// By how much the service's clock has gone on, in seconds.
        service: f64,
        /// By how much the guest's clock has gone on at least, in seconds.
        guest: f64,
    },
}

impl Exchange {
    /// By how much the service's time is ahead of the guest's boot clock, in nanoseconds: the least and the most that it may be.
    pub fn ahead(&self) -> (i128, i128) {
        let service = self.service.as_nanosecond();
        (service - self.answered.nanoseconds(), service - self.asked.nanoseconds())
    }
}

/// Holds each exchange against ALL earlier ones. Against the first alone, a jump would hide in what a long life allows for
/// drift; against the last alone, small steps would add up.
///
/// One earlier exchange stands for all: with the drift taken off, the least (or greatest) lead that the service's clock ever
/// had over the guest's is the strictest to compare with, so nothing else needs to be kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockCheck {
    /// The exchange where the service's clock led the least, and the one where it led the most.
    strictest: Option<(Exchange, Exchange)>,
}

impl ClockCheck {
    /// Accepts an exchange that comes after those before, or says how the clocks have parted.
    ///
    /// # Errors
    /// When they have.
    pub fn accept(&mut self, now: Exchange) -> Result<(), Diverged> {
        let Some((least, most)) = self.strictest else {
            self.strictest = Some((now, now));
            return Ok(());
        };
        // The answer's way counts for the guest where it is accused of being slow, and the other way round.
        if lead(now.service, now.answered, Drift::GuestSlow) - lead(least.service, least.asked, Drift::GuestSlow) > STEP
        {
            let (service, guest) = (service_advance(&least, &now), seconds(least.asked, now.answered));
            return Err(Diverged::GuestBehind { service, guest });
        }
        if lead(now.service, now.asked, Drift::GuestFast) - lead(most.service, most.answered, Drift::GuestFast) < -STEP
        {
            let (service, guest) = (service_advance(&most, &now), seconds(most.answered, now.asked));
            return Err(Diverged::ServiceBehind { service, guest });
        }
        let by_least = |exchange: &Exchange| lead(exchange.service, exchange.asked, Drift::GuestSlow);
        let by_most = |exchange: &Exchange| lead(exchange.service, exchange.answered, Drift::GuestFast);
        let least = if by_least(&now) < by_least(&least) { now } else { least };
        let most = if by_most(&now) > by_most(&most) { now } else { most };
        self.strictest = Some((least, most));
        Ok(())
    }
}

/// What a renewal is refused for that came by another clock; `what` is to be started again.
pub fn clocks_parted(diverged: &Diverged, what: &str) -> Failure {
    Failure::verification("the clocks of the service and of this machine have parted: the renewal is not believed")
        .caused_by(diverged)
        .hint(format!(
            "start the {what} again; if it comes again, have the vendor look at the service's clock and the operator of \
             this machine at its own (guests with Secure TSC have one that their host cannot slow)"
        ))
}

/// Which way the guest's clock is granted to be wrong.
#[derive(Clone, Copy)]
enum Drift {
    GuestFast,
    GuestSlow,
}

/// How far the service's clock is ahead of the guest's, the guest's corrected for the drift that is allowed, in nanoseconds.
fn lead(service: Timestamp, guest: BootTime, drift: Drift) -> i128 {
    let guest = guest.nanoseconds();
    let allowed = guest / DRIFT_ONE_IN;
    let guest = match drift {
        Drift::GuestFast => guest - allowed,
        Drift::GuestSlow => guest + allowed,
    };
    service.as_nanosecond() - guest
}

fn service_advance(from: &Exchange, to: &Exchange) -> f64 {
    to.service.duration_since(from.service).as_secs_f64()
}

fn seconds(from: BootTime, to: BootTime) -> f64 {
    to.0.as_secs_f64() - from.0.as_secs_f64()
}

/// What a clock may jump by, in nanoseconds: 5 s, whatever the time between. Leap seconds (1 s) and the steps of a time
/// daemon that has found its way (below 1 s for the usual ones) fit several times.
const STEP: i128 = 5_000_000_000;

/// What one clock may go faster or slower than the other: a thousandth. Kernels discipline a clock by at most 500 parts in a
/// million either way (NTP, RFC 5905), so two clocks that are both at that end just pass; crystals are ten times better.
const DRIFT_ONE_IN: i128 = 1_000;

#[cfg(test)]
mod tests;
