//! While the workload runs: renew the lease, hear of its end, pass signals on, and stop everything when the lease is gone.
//!
//! Time is `CLOCK_BOOTTIME`, which the host's wall clock cannot turn back and which goes on while the guest sleeps.

use std::time::Duration;

use command_line::{Answerer, Console, Failure};
use held_lease::BootTime;
use release_protocol::LeaseState;

use crate::kbs::Refused;
use crate::session::LeaseHolder;

/// When to renew and when to stop, from the last renewal on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    renew_at: BootTime,
    /// When lease and grace end.
    lease_end: BootTime,
    /// When the workload stops: then, or when the allowance to do without the service is over.
    stop_at: BootTime,
}

impl Deadlines {
    /// When the workload stops unless the lease is renewed.
    pub(crate) fn stop_at(&self) -> BootTime {
        self.stop_at
    }

    /// How long the workload can go on without the service.
    pub(crate) fn left(&self) -> Duration {
        self.stop_at.until()
    }

    /// Counted from when the renewal was ASKED for: the answer's way back must not lengthen the lease.
    pub(crate) fn of(holder: &LeaseHolder, asked_at: BootTime) -> Self {
        let lease = &holder.lease;
        let lease_end = asked_at.plus(Duration::from_secs(lease.ttl_seconds.saturating_add(lease.grace_seconds)));
        let renew_at = asked_at.plus(jittered(Duration::from_secs(lease.renew_after_seconds())));
        let mut deadlines = Self { renew_at, lease_end, stop_at: lease_end };
        if holder.is_cut_off() {
            // Its lease was renewed nobody knows when.
            (deadlines.renew_at, deadlines.lease_end) = (BootTime::now(), BootTime::now());
        }
        deadlines.refresh(holder);
        deadlines
    }

    /// Takes up what has become of the allowance to do without the service: it can be renewed by file.
    fn refresh(&mut self, holder: &LeaseHolder) {
        if let Some(offline) = holder.offline() {
            self.stop_at = offline.ends_at().max(self.lease_end);
        }
    }
}

/// Renews until the lease is lost; returns why it was. `on_renewal` hears of each renewal.
pub(crate) async fn keep_lease(
    holder: &mut LeaseHolder,
    mut deadlines: Deadlines,
    mut on_renewal: impl FnMut(&LeaseHolder, Deadlines),
    console: &Console,
) -> Failure {
    let mut warned = false;
    let mut asked_at = BootTime::now();
    loop {
        deadlines.refresh(holder);
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
        let renewal = tokio::select! {
            renewal = holder.renew() => renewal,
            () = wait_until(deadlines.stop_at) => {
                return Failure::unavailable("the service did not answer before the lease and its grace ended");
            }
        };
        match renewal {
            Ok(()) => {
                deadlines = Deadlines::of(holder, asked_at);
                on_renewal(holder, deadlines);
                if std::mem::take(&mut warned) {
                    console.say("the service is back; the lease is renewed");
                }
            }
            Err(Refused::Final(failure)) => return failure,
            Err(Refused::Unavailable(failure)) => {
                deadlines.refresh(holder);
                let left = deadlines.left();
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

/// Waits by the guest's boot clock.
pub(crate) async fn wait_until(time: BootTime) {
    // Tokio's clock stops while the guest sleeps; short naps let the boot clock decide.
    loop {
        let left = time.until();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}
