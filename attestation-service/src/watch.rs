//! Revocation pushed: a guest holds one request open and hears at once that its lease may not go on, or that what it rests
//! on has changed, so that it has to be renewed now.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use release_protocol::{LeaseId, LeaseNews, LeaseState};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::release::Refusal;
use crate::service::Service;

/// How long a request is held; below the limit that requests have, and the guests' own.
const HOLD: Duration = Duration::from_secs(20);

/// What the vendor's people did while this service ran.
#[derive(Debug)]
pub(crate) struct Changes(watch::Sender<Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Counts every change.
    all: u64,
    /// Counts changes after which a lease has to be judged again by evidence and policy.
    judged_again: u64,
    /// The service stops: nobody is to wait any more.
    stopping: bool,
}

/// What a change is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// Licences and leases: the database alone knows what it means.
    Licensing,
    /// Policies, reference values, platforms: only a renewal shows what it means.
    Release,
}

impl Changes {
    /// Nothing has changed yet. The count begins anywhere: a guest that comes from before a restart renews once.
    pub(crate) fn new() -> Self {
        let judged_again = RandomState::new().hash_one(0) >> 16;
        Self(watch::channel(Seen { all: 0, judged_again, stopping: false }).0)
    }

    /// How often leases had to be judged again so far; what a guest's `since` is compared with.
    pub(crate) fn count(&self) -> u64 {
        self.0.borrow().judged_again
    }

    /// Wakes all who wait.
    pub(crate) fn happened(&self, change: Change) {
        self.0.send_modify(|seen| {
            seen.all = seen.all.wrapping_add(1);
            if change == Change::Release {
                seen.judged_again = seen.judged_again.wrapping_add(1);
            }
        });
    }
}

impl Service {
    /// Lets go all who wait, and lets nobody wait again.
    pub(crate) fn stop_watches(&self) {
        self.changes.0.send_modify(|seen| seen.stopping = true);
    }

    /// Says that something was changed.
    pub(crate) fn changed(&self, change: Change) {
        self.changes.happened(change);
    }

    /// Answers `GET /kbs/v0/lease/watch`: waits until there is news of the session's lease, for a while. A token that has
    /// expired serves: a long lease outlives it, and all it is told is whether its own lease lives.
    pub(crate) async fn watch_lease(&self, token: Option<&str>, since: Option<u64>) -> Result<LeaseNews, Refusal> {
        let token = token.ok_or_else(|| Refusal::NotAttested("there is no attestation token".to_owned()))?;
        let session = self.tokens.check_for_return(token).map_err(|error| Refusal::NotAttested(error.to_string()))?;
        let lease = session.lease.ok_or_else(|| Refusal::Unknown("the session has no lease".to_owned()))?;
        let mut changes = self.changes.0.subscribe();
        let until = Instant::now() + HOLD;
        let since = since.unwrap_or_else(|| self.changes.count());
        loop {
            let Seen { judged_again: now, stopping, .. } = *changes.borrow_and_update();
            if let Some(state) = self.news_of(&lease, since, now).await? {
                return Ok(LeaseNews { state, since: now });
            }
            // The service stops, or the time is over.
            let waited = tokio::time::timeout_at(until, changes.changed());
            if stopping || !matches!(waited.await, Ok(Ok(()))) {
                return Ok(LeaseNews { state: LeaseState::Live, since: now });
            }
        }
    }

    async fn news_of(&self, lease: &LeaseId, since: u64, now: u64) -> Result<Option<LeaseState>, Refusal> {
        if let Some(reason) = self.store.lease_refusal(lease, self.now()).await? {
            return Ok(Some(LeaseState::Ended { reason }));
        }
        Ok((now != since).then_some(LeaseState::Renew))
    }
}
