//! While the workload runs: renew the lease, hear of its end, pass signals on, and stop everything when the lease is gone.
//!
//! Time is `CLOCK_BOOTTIME`, which the host's wall clock cannot turn back and which goes on while the guest sleeps.

use std::time::Duration;

use command_line::{Answerer, Console, Failure};
use release_protocol::LeaseState;
use rustix::time::{ClockId, clock_gettime};

use crate::kbs::Refused;
use crate::session::LeaseHolder;

/// Time since the guest started, suspended time included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(Duration);

impl BootTime {
    /// Now.
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Self(Duration::new(seconds, nanoseconds))
    }

    fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    fn until(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }
}

/// When to renew and when to stop, from the last renewal on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    renew_at: BootTime,
    stop_at: BootTime,
}

impl Deadlines {
    /// Counted from when the renewal was ASKED for: the answer's way back must not lengthen the lease.
    pub(crate) fn of(holder: &LeaseHolder, asked_at: BootTime) -> Self {
        let lease = &holder.lease;
        Self {
            renew_at: asked_at.plus(jittered(Duration::from_secs(lease.renew_after_seconds()))),
            stop_at: asked_at.plus(Duration::from_secs(lease.ttl_seconds.saturating_add(lease.grace_seconds))),
        }
    }
}

/// Renews until the lease is lost; returns why it was.
pub(crate) async fn keep_lease(holder: &mut LeaseHolder, mut deadlines: Deadlines, console: &Console) -> Failure {
    let mut warned = false;
    let mut asked_at = BootTime::now();
    loop {
        tokio::select! {
            () = wait_until(deadlines.renew_at) => {}
            news = holder.news() => {
                if let LeaseState::Ended { reason } = news {
                    return Failure::denied("the service ended the lease").cause(reason).from_answerer(Answerer::Service);
                }
                // Whatever the service says, it is not asked without a pause.
                wait_until(asked_at.plus(NEWS_RENEWAL_PAUSE)).await;
            }
        }
        asked_at = BootTime::now();
        let renewal = tokio::time::timeout(deadlines.stop_at.until(), holder.renew()).await;
        match renewal {
            Ok(Ok(())) => {
                deadlines = Deadlines::of(holder, asked_at);
                if std::mem::take(&mut warned) {
                    console.say("the service is back; the lease is renewed");
                }
            }
            Ok(Err(Refused::Final(failure))) => return failure,
            Ok(Err(Refused::Unavailable(failure))) => {
                let left = deadlines.stop_at.until();
                if left.is_zero() {
                    return failure;
                }
                if !std::mem::replace(&mut warned, true) {
                    console.say(format!(
                        "{}; the workload can go on for {} s without it",
                        failure.message,
                        left.as_secs()
                    ));
                }
                let pause = Duration::from_secs(holder.lease.renew_after_seconds()).min(RETRY_MAX);
                deadlines.renew_at = BootTime::now().plus(pause.min(left));
            }
            Err(_) => return Failure::unavailable("the service did not answer before the lease and its grace ended"),
        }
    }
}

/// A little less than `duration`: guests that started together do not renew together for ever.
fn jittered(duration: Duration) -> Duration {
    let part = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    duration.saturating_sub(duration / 10 * part / 255)
}

/// The shortest time from one renewal to another that news ask for.
const NEWS_RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two tries to renew.
const RETRY_MAX: Duration = Duration::from_secs(10);

async fn wait_until(time: BootTime) {
    // Tokio's clock stops while the guest sleeps; short naps let the boot clock decide.
    loop {
        let left = time.until();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}
