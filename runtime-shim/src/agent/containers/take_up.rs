//! After a restart: containers that an earlier agent left running get a new lease each, and the old one is given back. Those
//! that get none stop when the old one would have ended.

use std::sync::Arc;
use std::time::Duration;

use command_line::{ExitCode, Failure};
use held_lease::BootTime;
use tokio::time::sleep;

use super::{Container, Note, boot};
use crate::agent::Agent;
use crate::agent::licenses::Held;
use crate::supervise::wait_until;

/// The pause between two tries.
const AGAIN: Duration = Duration::from_secs(1);

impl Agent {
    /// Takes up what an earlier agent noted.
    pub(in crate::agent) fn take_up(self: &Arc<Self>, notes: Vec<Note>) {
        let boot = boot();
        for note in notes {
            let agent = Arc::clone(self);
            if note.boot != boot {
                tokio::spawn(async move { agent.give_back(&note).await });
                continue;
            }
            let container = self.containers.add(note);
            tokio::spawn(agent.take_up_one(container));
        }
    }

    async fn take_up_one(self: Arc<Self>, container: Arc<Container>) {
        let stop_at = BootTime::from_nanoseconds(container.note().stop_at_nanoseconds);
        let taken = tokio::select! {
            held = self.lease_again(&container) => held.map(Some),
            () = container.over() => Ok(None),
            () = wait_until(stop_at) => {
                Err(Failure::unavailable("the service did not answer before the lease and its grace ended"))
            }
        };
        match taken {
            Ok(Some(Held { holder, deadlines, turn, .. })) => {
                drop(turn);
                self.note_lease(&container, &holder, deadlines);
                self.console.say(format!("container {} goes on under a new lease", container.note().container.id));
                self.live(container, holder, deadlines).await;
                return;
            }
            Ok(None) => {}
            Err(lost) => self.stop(&container, &lost).await,
        }
        let note = container.note().clone();
        self.give_back(&note).await;
        self.containers.remove(&container);
    }

    /// Asks for a lease until there is an answer.
    async fn lease_again(&self, container: &Container) -> Result<Held, Failure> {
        let note = container.note().clone();
        let known = self.known.with_manifest(&note.manifest_digest);
        let known = known.ok_or_else(|| Failure::other("the container's image is not in the agent's record"))?;
        let mut has_old_seat = note.lease.is_some();
        loop {
            match self.licenses.hold(&known, &note.command).await {
                Ok(held) if held.obligations.read_only_root && !note.has_read_only_root => {
                    held.holder.release().await;
                    return Err(Failure::denied("the release policy wants the root file system to be read-only"));
                }
                Ok(held) => {
                    self.give_back(&note).await;
                    return Ok(held);
                }
                Err(failure) if failure.code == ExitCode::Unavailable => sleep(AGAIN).await,
                // The only free seat may be the one that the container had.
                Err(failure) if failure.code == ExitCode::Denied && has_old_seat => {
                    has_old_seat = false;
                    self.give_back(&note).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Gives back the lease in a note. A service that is out of reach lets it lapse.
    async fn give_back(&self, note: &Note) {
        if let Some(lease) = &note.lease
            && let Err(failure) = self.licenses.end(&lease.license, &lease.token).await
        {
            tracing::warn!("the lease of an earlier agent could not be given back and lapses: {}", failure.message);
        }
    }
}
