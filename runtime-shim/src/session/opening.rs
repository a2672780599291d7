//! The two ways to the keys of an image that was verified: the service's, and what was kept sealed of an earlier time.

use std::sync::Arc;

use command_line::{Console, Failure};
use held_lease::ClockCheck;
use jose::signing::VerifyingKey;
use launch_evidence::Attester;
use ocicrypt::options::PrivateOptions;
use release_protocol::{Obligations, ResourcePath, Workload};

use super::{Accepted, Conversation, LeaseHolder, check_obligations};
use crate::image::SignedImage;
use crate::kbs::{Challenged, Refused};
use crate::offline::OfflineState;

/// A verified image, and what is to run of it.
pub(super) struct Opening<'a> {
    pub(super) image: &'a SignedImage,
    pub(super) keys: &'a [VerifyingKey],
    pub(super) key_paths: &'a [ResourcePath],
    pub(super) workload: Workload,
    pub(super) attester: Arc<dyn Attester>,
}

/// Who holds the lease, what that obliges to, and the layers' keys.
pub(super) type Held = (LeaseHolder, Obligations, Vec<Option<PrivateOptions>>);

/// What the service gave.
pub(super) struct Online {
    holder: LeaseHolder,
    accepted: Accepted,
    layer_keys: Vec<Option<PrivateOptions>>,
}

impl Opening<'_> {
    /// Attests and receives the keys; goes on with the lease that is kept, where one is.
    pub(super) async fn online(
        &self,
        conversation: Conversation,
        challenge: Result<Challenged, Refused>,
        offline: Option<&OfflineState>,
    ) -> Result<Online, Failure> {
        let challenge = challenge.map_err(Refused::into_failure)?;
        let kept = offline.map(OfflineState::lease).transpose()?.flatten();
        let Conversation { client, receipts } = conversation;
        let (client, lease) = match (kept, offline) {
            (Some((lease, key)), _) => (client.with_key(key), Some(lease)),
            (None, Some(_)) => (client.keeping_sealed(), None),
            (None, None) => (client, None),
        };
        let is_new = lease.is_none();
        let (workload, attester) = (self.workload.clone(), Arc::clone(&self.attester));
        let (holder, accepted) = Conversation { client, receipts }.hold(challenge, workload, attester, lease).await?;
        let received = async {
            check_obligations(&accepted.obligations, &self.workload, self.keys)?;
            self.image.unwrap(&holder.fetch_keys(self.key_paths).await?)
        };
        match received.await {
            Ok(layer_keys) => Ok(Online { holder, accepted, layer_keys }),
            Err(failure) => {
                if is_new {
                    holder.release().await;
                }
                Err(failure)
            }
        }
    }

    /// Starts from what was kept sealed, since the service does not answer.
    pub(super) fn resume(
        self,
        conversation: Conversation,
        offline: OfflineState,
        unavailable: Failure,
        console: &Console,
    ) -> Result<Held, Failure> {
        let message = unavailable.message.clone();
        let resumed = offline.resume(unavailable, &self.workload)?;
        check_obligations(&resumed.obligations, &self.workload, self.keys)?;
        let left = resumed.offline.ends_at().until().as_secs();
        console.say(format!(
            "{message}; starting from the sealed state with lease {}: {left} s are left without the service",
            resumed.lease.id
        ));
        let holder = LeaseHolder {
            lease: resumed.lease,
            client: conversation.client.with_key(resumed.key),
            attester: self.attester,
            workload: self.workload,
            token: resumed.token.to_string(),
            since: resumed.since,
            receipts: conversation.receipts,
            clock: ClockCheck::default(),
            offline: Some(Arc::new(resumed.offline)),
        };
        Ok((holder, resumed.obligations, resumed.layer_keys))
    }
}

impl Online {
    pub(super) fn into_held(self) -> Held {
        (self.holder, self.accepted.obligations, self.layer_keys)
    }

    /// Keeps what a later start needs, where an allowance was granted.
    pub(super) async fn keep(self, offline: OfflineState, console: &Console) -> Result<Held, Failure> {
        let Self { mut holder, accepted, layer_keys } = self;
        let is_new = offline.lease()?.is_none();
        let grant = holder.grant(&accepted.obligations, accepted.receipt.as_ref(), accepted.asked);
        match offline.keep(&grant, &layer_keys) {
            Ok(Some(kept)) => {
                let left = kept.ends_at().until().as_secs();
                console.say(format!(
                    "the keys are kept sealed to this guest: for {left} s it can start without the service"
                ));
                holder.offline = Some(Arc::new(kept));
            }
            Ok(None) => console.say(
                "note: neither licence nor policy let this guest start without the service: nothing is kept sealed",
            ),
            Err(failure) => {
                // What is kept of an earlier time still holds its seat.
                if is_new {
                    holder.release().await;
                }
                return Err(failure);
            }
        }
        Ok((holder, accepted.obligations, layer_keys))
    }
}
