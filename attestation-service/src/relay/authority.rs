//! How long a relay may hand on what was delegated to it. No lease that it grants lasts longer: once its authority is over, the
//! service above may give the same seats to another relay.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::service::Service;

/// How long ago this machine booted, the time that it slept included.
pub fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// When a relay's authority ends, by [`boot_time`]; none of a service that is no relay.
#[derive(Debug, Default)]
pub(crate) struct RelayAuthority(Mutex<Option<Duration>>);

impl RelayAuthority {
    fn end(&self) -> MutexGuard<'_, Option<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// From now on it hands on what another service delegated to it, and its administrators can change nothing of that. It
    /// has no authority yet.
    pub fn act_as_relay(&self) {
        self.relay.end().get_or_insert_default();
    }

    /// A relay's authority ends then, by [`boot_time`].
    pub fn has_authority_until(&self, end: Duration) {
        *self.relay.end() = Some(end);
    }

    pub(crate) fn is_relay(&self) -> bool {
        self.relay.end().is_some()
    }

    /// How long a relay may still hand anything on, in seconds; `None` of a service that is no relay.
    pub(crate) fn authority_seconds(&self) -> Option<u64> {
        let end = *self.relay.end();
        end.map(|end| end.saturating_sub(boot_time()).as_secs())
    }
}
