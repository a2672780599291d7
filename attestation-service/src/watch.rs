//! Revocation pushed: a guest holds one request open and hears at once that its lease may not go on, or that what it rests
//! on has changed, so that it has to be renewed now. What there is to hear stands beside the audit log (`store/news.rs`).

use std::sync::Arc;
use std::time::Duration;

use release_protocol::{LeaseNews, LeaseState};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::release::Refusal;
use crate::service::Service;
use crate::store::Listener;

/// How long a request is held; below the limit that requests have, and the guests' own.
const HOLD: Duration = Duration::from_secs(20);
/// How often a database that others write to is asked for news.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Whether the service stops: nobody is to wait any more.
#[derive(Debug)]
pub(crate) struct Stopping(watch::Sender<bool>);

impl Stopping {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Service {
    /// Lets go all who wait, and lets nobody wait again.
    pub(crate) fn stop_watches(&self) {
        self.stopping.0.send_replace(true);
    }

    /// Hears of what other replicas write, until the service stops.
    pub(crate) async fn hear_of_replicas(self: Arc<Self>) {
        let mut stopping = self.stopping.0.subscribe();
        let mut deaf = false;
        while self.store.is_shared() && !*stopping.borrow_and_update() {
            match self.store.ask_for_news().await {
                Ok(()) => deaf = false,
                Err(error) if !std::mem::replace(&mut deaf, true) => {
                    tracing::warn!(%error, "other replicas are not heard; their guests renew in time all the same");
                }
                Err(_) => {}
            }
            // Its own news are asked for, too: others' may have come before them.
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = self.store.has_news() => {}
                _ = stopping.changed() => {}
            }
        }
    }

    /// Answers `GET /kbs/v0/lease/watch`: waits until there is news of the session's lease, for a while. A token that has
    /// expired serves: a long lease outlives it, and all it is told is whether its own lease lives.
    pub(crate) async fn watch_lease(&self, token: Option<&str>, since: Option<u64>) -> Result<LeaseNews, Refusal> {
        let token = token.ok_or_else(|| Refusal::NotAttested("there is no attestation token".to_owned()))?;
        let session = self.tokens.check_for_return(token).map_err(|error| Refusal::NotAttested(error.to_string()))?;
        let lease = session.lease.ok_or_else(|| Refusal::Unknown("the session has no lease".to_owned()))?;
        let listener = Listener { lease: lease.0.clone(), license: session.license, product: session.product };
        let (mut news, mut stopping) = (self.store.news(), self.stopping.0.subscribe());
        let until = Instant::now() + HOLD;
        let since = since.unwrap_or_else(|| news.borrow().judged_again);
        if since > news.borrow().judged_again {
            // From a replica that knows more, or from before a database was restored: then it is not known here either.
            self.store.ask_for_news().await?;
        }
        // Up to which entry the lease was looked at.
        let mut seen = None;
        loop {
            let told = news.borrow_and_update().clone();
            if seen.is_none_or(|seen| told.may_end(&listener, seen)) {
                self.metrics.leases_looked_at.count();
                if let Some(reason) = self.store.lease_refusal(&lease, self.now()).await? {
                    return Ok(LeaseNews { state: LeaseState::Ended { reason }, since: told.judged_again });
                }
            }
            if told.judges_again(&listener, since) {
                return Ok(LeaseNews { state: LeaseState::Renew, since: told.judged_again });
            }
            seen = Some(told.changed);
            let stops = *stopping.borrow_and_update();
            let waited = tokio::time::timeout_at(until, async {
                tokio::select! {
                    heard = news.changed() => heard,
                    stops = stopping.changed() => stops,
                }
            });
            // The service stops, or the time is over.
            if stops || !matches!(waited.await, Ok(Ok(()))) {
                return Ok(LeaseNews { state: LeaseState::Live, since: told.judged_again });
            }
        }
    }
}
