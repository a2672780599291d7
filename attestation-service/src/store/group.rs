//! Group commit: decisions that arrive while a transaction is being written share the next one. One wait for the disk, and
//! one turn at the lock that replicas share, serves them all.

use jiff::Timestamp;
use release_protocol::LeaseId;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::audit::{AuditKind, append_said};
use super::lease::{LeaseOutcome, LeaseRequest, decide, release};
use super::write::{Write, Writer};

/// The most decisions of one transaction: the first of them waits for the last.
const MOST: usize = 64;
/// How many may wait; whoever comes then waits for a place.
const WAITING: usize = 1024;

/// A decision to write. It may be tried twice, so it is not used up.
#[derive(Debug)]
enum Effect {
    Lease(Box<LeaseRequest>),
    Entry(AuditKind, Value),
    Release(LeaseId, Value),
}

#[derive(Debug)]
enum Outcome {
    Lease(LeaseOutcome),
    Entry(u64),
}

#[derive(Debug)]
struct Asked {
    effect: Effect,
    now: Timestamp,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// The writer's door.
#[derive(Clone, Debug)]
pub(super) struct Group(mpsc::Sender<Asked>);

impl Group {
    /// Starts the writer; it ends with the last copy of its door.
    pub(super) fn start(writer: Writer) -> Self {
        let (sender, mut asked) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut together = Vec::with_capacity(MOST);
            while asked.recv_many(&mut together, MOST).await > 0 {
                write(&writer, std::mem::take(&mut together)).await;
            }
        });
        Self(sender)
    }

    /// Grants or renews a lease, or denies it.
    pub(super) async fn lease(&self, request: &LeaseRequest, now: Timestamp) -> Result<LeaseOutcome, StoreError> {
        match self.ask(Effect::Lease(Box::new(request.clone())), now).await? {
            Outcome::Lease(outcome) => Ok(outcome),
            Outcome::Entry(_) => Err(StoreError::Writer),
        }
    }

    /// Appends an entry whose body says all that it should.
    pub(super) async fn entry(&self, kind: AuditKind, body: Value, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Effect::Entry(kind, body), now).await? {
            Outcome::Entry(number) => Ok(number),
            Outcome::Lease(_) => Err(StoreError::Writer),
        }
    }

    /// Records that a key is released under a lease.
    pub(super) async fn release(&self, id: &LeaseId, body: Value, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Effect::Release(id.clone(), body), now).await? {
            Outcome::Entry(number) => Ok(number),
            Outcome::Lease(_) => Err(StoreError::Writer),
        }
    }

    async fn ask(&self, effect: Effect, now: Timestamp) -> Result<Outcome, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked { effect, now, answer }).await.map_err(|_| StoreError::Writer)?;
        answered.await.map_err(|_| StoreError::Writer)?
    }
}

/// Writes all in one transaction; where one of them fails, each in its own.
async fn write(writer: &Writer, together: Vec<Asked>) {
    if together.len() > 1
        && let Some(outcomes) = at_once(writer, &together).await
    {
        for (asked, outcome) in together.into_iter().zip(outcomes) {
            // Whoever asked may have gone; what was decided stands.
            drop(asked.answer.send(outcome));
        }
        return;
    }
    for Asked { effect, now, answer } in together {
        drop(answer.send(alone(writer, &effect, now).await));
    }
}

/// `None` where nothing was written because one failed.
async fn at_once(writer: &Writer, together: &[Asked]) -> Option<Vec<Result<Outcome, StoreError>>> {
    let mut transaction = writer.begin().await.ok()?;
    let mut outcomes = Vec::with_capacity(together.len());
    for Asked { effect, now, .. } in together {
        let Ok(outcome) = carry_out(&mut transaction, effect, *now).await else {
            // Dropped, it would be rolled back at the connection's next use, which may come too late for others.
            drop(transaction.rollback().await);
            return None;
        };
        outcomes.push(Ok(outcome));
    }
    match transaction.commit().await {
        Ok(()) => Some(outcomes),
        // Whether it took effect is not known: nothing is tried again, and whoever asked has to ask anew.
        Err(error) => {
            tracing::error!(%error, decisions = together.len(), "a transaction could not be committed");
            Some(together.iter().map(|_| Err(StoreError::Writer)).collect())
        }
    }
}

async fn alone(writer: &Writer, effect: &Effect, now: Timestamp) -> Result<Outcome, StoreError> {
    let mut transaction = writer.begin().await?;
    let outcome = carry_out(&mut transaction, effect, now).await?;
    transaction.commit().await?;
    Ok(outcome)
}

async fn carry_out(transaction: &mut Write, effect: &Effect, now: Timestamp) -> Result<Outcome, StoreError> {
    match effect {
        Effect::Lease(request) => Ok(Outcome::Lease(decide(transaction, request, now).await?)),
        Effect::Release(id, body) => Ok(Outcome::Entry(release(transaction, id, body.clone(), now).await?)),
        Effect::Entry(kind, body) => Ok(Outcome::Entry(append_said(transaction, *kind, body.clone(), now).await?)),
    }
}
