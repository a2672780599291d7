//! Group commit: decisions that arrive while a transaction is being written share the next one. One wait for the disk, and
//! one turn at the lock that replicas share, serves them all.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::audit::{AuditKind, append_said};
use super::batch::Batch;
use super::grown::Grown;
use super::key_release::{ReleaseOutcome, ReleaseRequest, release};
use super::lease::{LeaseOutcome, LeaseRequest, decide};
use super::reader::Kept;
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
    Release(Box<ReleaseRequest>),
}

#[derive(Debug)]
enum Outcome {
    Lease(Box<LeaseOutcome>),
    Entry(u64),
    Release(ReleaseOutcome),
}

/// An outcome, and what the log grew by with it.
type Answer = (Outcome, Option<Grown>);

#[derive(Debug)]
struct Asked {
    effect: Effect,
    now: Timestamp,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
}

/// The writer's door.
#[derive(Clone, Debug)]
pub(super) struct Group {
    door: mpsc::Sender<Asked>,
    /// The connection that the writer has to itself.
    own: Kept,
}

impl Group {
    /// Starts the writer; it ends with the last copy of its door.
    pub(super) fn start(writer: Writer, own: Kept) -> Self {
        let (door, mut asked) = mpsc::channel(WAITING);
        let kept = own.clone();
        tokio::spawn(async move {
            let mut together = Vec::with_capacity(MOST);
            while asked.recv_many(&mut together, MOST).await > 0 {
                write(&writer, &kept, std::mem::take(&mut together)).await;
            }
        });
        Self { door, own }
    }

    /// Gives the writer's connection back to the pool, for good once that is closed.
    pub(super) fn let_go(&self) {
        self.own.clear();
    }

    /// Grants or renews a lease, or denies it.
    pub(super) async fn lease(
        &self,
        request: LeaseRequest,
        now: Timestamp,
    ) -> Result<(LeaseOutcome, Option<Grown>), StoreError> {
        match self.ask(Effect::Lease(Box::new(request)), now).await? {
            (Outcome::Lease(outcome), grown) => Ok((*outcome, grown)),
            _ => Err(StoreError::Writer),
        }
    }

    /// Appends an entry whose body says all that it should.
    pub(super) async fn entry(&self, kind: AuditKind, body: Value, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Effect::Entry(kind, body), now).await? {
            (Outcome::Entry(number), _) => Ok(number),
            _ => Err(StoreError::Writer),
        }
    }

    /// Records that a key is released under a lease, or denies it.
    pub(super) async fn release(&self, request: ReleaseRequest, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        match self.ask(Effect::Release(Box::new(request)), now).await? {
            (Outcome::Release(outcome), _) => Ok(outcome),
            _ => Err(StoreError::Writer),
        }
    }

    async fn ask(&self, effect: Effect, now: Timestamp) -> Result<Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.door.send(Asked { effect, now, answer }).await.map_err(|_| StoreError::Writer)?;
        answered.await.map_err(|_| StoreError::Writer)?
    }
}

/// Writes all in one transaction; where one of them fails, each in its own.
async fn write(writer: &Writer, own: &Kept, together: Vec<Asked>) {
    match at_once(writer, own, &together).await {
        Ok((outcomes, grown)) => {
            for (asked, outcome) in together.into_iter().zip(outcomes) {
                // Whoever asked may have gone; what was decided stands.
                drop(asked.answer.send(Ok((outcome, grown.clone()))));
            }
        }
        // Whether it took effect is not known: nothing is tried again, and whoever asked has to ask anew.
        Err(Failed::Commit(error)) => {
            tracing::error!(%error, decisions = together.len(), "a transaction could not be committed");
            for asked in together {
                drop(asked.answer.send(Err(StoreError::Writer)));
            }
        }
        Err(Failed::Before(_)) if together.len() > 1 => {
            for asked in together {
                Box::pin(write(writer, own, vec![asked])).await;
            }
        }
        Err(Failed::Before(error)) => {
            if let Some(asked) = together.into_iter().next() {
                drop(asked.answer.send(Err(error)));
            }
        }
    }
}

/// Why nothing was written.
enum Failed {
    /// One of the decisions failed.
    Before(StoreError),
    /// All were made, but it is not known whether they were written.
    Commit(StoreError),
}

async fn at_once(writer: &Writer, own: &Kept, together: &[Asked]) -> Result<(Vec<Outcome>, Option<Grown>), Failed> {
    let mut connection = own.take().await.map_err(Failed::Before)?;
    let mut transaction = writer.begin_on(connection.sql()).await.map_err(Failed::Before)?;
    match carry_out(&mut transaction, together).await {
        Ok(outcomes) => {
            let grown = transaction.commit().await.map_err(Failed::Commit)?;
            connection.keep();
            Ok((outcomes, grown))
        }
        Err(error) => {
            // Dropped, it would be rolled back at the connection's next use, which may come too late for others.
            drop(transaction.rollback().await);
            Err(Failed::Before(error))
        }
    }
}

async fn carry_out(transaction: &mut Write<'_>, together: &[Asked]) -> Result<Vec<Outcome>, StoreError> {
    let (mut leases, mut licenses) = (Vec::new(), BTreeSet::new());
    for Asked { effect, .. } in together {
        match effect {
            Effect::Lease(request) => {
                leases.push(&request.id);
                // One that is renewed has its seat.
                licenses.extend((!request.renewal).then(|| request.license.claims.id.clone()));
            }
            Effect::Release(request) => leases.push(&request.lease),
            Effect::Entry(..) => {}
        }
    }
    let mut batch = Batch::read(transaction, &leases, &licenses).await?;
    let mut outcomes = Vec::with_capacity(together.len());
    for Asked { effect, now, .. } in together {
        outcomes.push(match effect {
            Effect::Lease(request) => Outcome::Lease(Box::new(decide(&mut batch, transaction, request, *now).await?)),
            Effect::Release(request) => Outcome::Release(release(&mut batch, transaction, request, *now).await?),
            Effect::Entry(kind, body) => Outcome::Entry(append_said(transaction, *kind, body.clone(), *now).await?),
        });
    }
    batch.write(transaction).await?;
    Ok(outcomes)
}
