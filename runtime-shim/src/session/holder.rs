//! Who holds a lease: renews it, hears of its end, asks for keys under it, and gives it back.

use std::sync::Arc;
use std::time::Duration;

use command_line::Failure;
use held_lease::{BootTime, ClockCheck, Exchange, ReceiptBook, clocks_parted};
use launch_evidence::Attester;
use ocicrypt::cipher::KeyEncryptionKey;
use release_protocol::{Lease, LeaseState, Obligations, ResourcePath, Workload};
use transparency_log::Receipt;
use zeroize::Zeroizing;

use super::no_lease;
use crate::kbs::{Attested, Refused, ServiceClient};
use crate::offline::{Grant, Offline};

/// Who holds the lease, and how to renew it.
pub(crate) struct LeaseHolder {
    pub(crate) lease: Lease,
    pub(super) client: ServiceClient,
    pub(super) attester: Arc<dyn Attester>,
    pub(super) workload: Workload,
    pub(super) token: String,
    /// What the service wants to hear with the next request for news.
    pub(super) since: Option<u64>,
    /// Its receipts; none for a service without a log.
    pub(super) receipts: Option<ReceiptBook>,
    /// What its signed times say of this guest's clock.
    pub(super) clock: ClockCheck,
    /// What lets it do without the service for a while.
    pub(super) offline: Option<Arc<Offline>>,
}

impl LeaseHolder {
    /// What lets it do without the service for a while.
    pub(crate) fn offline(&self) -> Option<&Arc<Offline>> {
        self.offline.as_ref()
    }

    /// Whether the service has not answered since the start.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.offline.as_ref().is_some_and(|offline| offline.is_cut_off())
    }

    /// Attests afresh and renews the lease.
    pub(crate) async fn renew(&mut self) -> Result<(), Refused> {
        let challenge = self.client.challenge(&self.attester).await?;
        let mut attested =
            self.client.attest(&self.attester, challenge, Some(&self.workload), Some(&self.lease.id)).await?;
        let receipt = attested.answer.receipt.clone();
        self.accept_receipt(&mut attested).await?;
        let answer = attested.answer;
        self.token = answer.token;
        self.since = answer.news_since;
        self.lease = answer.lease.ok_or_else(no_lease)?;
        if let Some(offline) = &self.offline {
            let obligations = answer.obligations.unwrap_or_default();
            offline.renewed(&self.grant(&obligations, receipt.as_ref(), attested.asked));
        }
        Ok(())
    }

    /// What is kept of the newest attestation.
    pub(super) fn grant<'a>(
        &'a self,
        obligations: &'a Obligations,
        receipt: Option<&'a Receipt>,
        asked: BootTime,
    ) -> Grant<'a> {
        let log_key = self.receipts.as_ref().map(ReceiptBook::log_key);
        Grant {
            workload: &self.workload,
            obligations,
            lease: &self.lease,
            token: &self.token,
            since: self.since,
            key: self.client.key(),
            log_key,
            receipt,
            asked,
        }
    }

    /// Believes a grant or renewal by its receipt: that it is in the log, and that it was decided now.
    pub(super) async fn accept_receipt(&mut self, attested: &mut Attested) -> Result<(), Refused> {
        let Some(receipts) = &mut self.receipts else { return Ok(()) };
        let receipt = attested.answer.receipt.take();
        let client = &self.client;
        let service = receipts.accept(receipt, &self.lease.id, |old, new| client.log_consistency(old, new)).await?;
        let exchange = Exchange { service, asked: attested.asked, answered: attested.answered };
        Ok(self.clock.accept(exchange).map_err(|diverged| {
            // What such a clock counts is worth nothing.
            if let Some(offline) = &self.offline {
                offline.forget();
            }
            clocks_parted(&diverged, "workload")
        })?)
    }

    /// The keys at these paths.
    pub(crate) async fn fetch_keys(&self, paths: &[ResourcePath]) -> Result<Vec<KeyEncryptionKey>, Failure> {
        let mut keys = Vec::with_capacity(paths.len());
        for path in paths {
            keys.push(self.client.fetch_key(&self.token, path).await.map_err(Refused::into_failure)?);
        }
        Ok(keys)
    }

    /// What the lease is for.
    pub(crate) fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The bearer's token by which the lease can be given back, also by another process.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Whether each renewal brings the service's time signed.
    pub(crate) fn has_signed_time(&self) -> bool {
        self.receipts.is_some()
    }

    /// Waits until the service says something else than that the lease lives. Trouble on the way is slept over: the
    /// renewals decide how long the workload goes on without the service.
    pub(crate) async fn news(&mut self) -> LeaseState {
        let mut pause = NEWS_PAUSE;
        loop {
            match self.client.watch(&self.token, self.since).await {
                Ok(news) => {
                    self.since = Some(news.since);
                    pause = NEWS_PAUSE;
                    if news.state != LeaseState::Live {
                        return news.state;
                    }
                }
                Err(refused) => {
                    tracing::debug!("no news of the lease: {}", refused.into_failure().message);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(NEWS_PAUSE_MAX);
                }
            }
        }
    }

    /// Fetches a secret beside the image's keys.
    pub(crate) async fn secret(&self, path: &ResourcePath) -> Result<Zeroizing<Vec<u8>>, Refused> {
        self.client.fetch_secret(&self.token, path).await
    }

    /// Gives the lease back. A service that is out of reach lets it lapse. One that a later start may go on with stays.
    pub(crate) async fn release(&self) {
        if let Some(offline) = &self.offline {
            return offline.count();
        }
        if let Err(refused) = self.client.end_lease(&self.token).await {
            tracing::warn!(
                "the lease could not be given back and lapses by itself: {}",
                refused.into_failure().message
            );
        }
    }
}

/// The shortest pause before news are asked for again after trouble.
const NEWS_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const NEWS_PAUSE_MAX: Duration = Duration::from_secs(30);
