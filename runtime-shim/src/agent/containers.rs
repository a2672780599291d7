//! Containers that hold leases: each has a lease of its own, renewed while it runs, given back when it is gone; when the lease
//! is lost, the container is stopped. What is needed to take them up again after a restart lies on disk.

mod life;
mod take_up;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use command_line::Failure;
use held_lease::BootTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::process::ProcessName;
use super::protocol::{ContainerName, ContainerStatus};
use super::record;
use crate::session::LeaseHolder;

/// The containers of a node.
pub(crate) struct Containers {
    file: PathBuf,
    all: Mutex<HashMap<ContainerName, Arc<Container>>>,
}

/// One of them.
pub(crate) struct Container {
    note: Mutex<Note>,
    /// Until when it may go on without another word.
    deadline: watch::Sender<BootTime>,
    /// What is known of its end.
    stage: watch::Sender<Stage>,
}

/// How far a container has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// It may be created.
    Granted,
    /// Its first process is there.
    Created(ProcessName),
    /// A face says that it is gone, or never came to be.
    Ended,
}

/// What is kept on disk of a container.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Note {
    pub(super) container: ContainerName,
    pub(super) manifest_digest: String,
    pub(super) reference: String,
    pub(super) command: Vec<String>,
    pub(super) has_read_only_root: bool,
    pub(super) process: Option<ProcessName>,
    /// The words by which it is killed.
    pub(super) runtime: Vec<String>,
    pub(super) stop_at_nanoseconds: u64,
    pub(super) lease: Option<LeaseNote>,
    /// The boot that `stop_at_nanoseconds` and the process are of.
    pub(super) boot: String,
}

/// What is kept of a lease: enough to give it back.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct LeaseNote {
    pub(super) id: String,
    pub(super) license: String,
    /// A bearer's: it can end and watch the lease. No key comes by it to anyone but the process that attested.
    token: String,
}

impl std::fmt::Debug for LeaseNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseNote").field("id", &self.id).finish_non_exhaustive()
    }
}

impl LeaseNote {
    fn of(holder: &LeaseHolder) -> Self {
        Self {
            id: holder.lease.id.to_string(),
            license: holder.lease.license.clone(),
            token: holder.token().to_owned(),
        }
    }
}

impl Containers {
    /// No containers yet; those of an earlier agent are in the notes, to be taken up.
    pub(super) fn load(state: &Path) -> Result<(Self, Vec<Note>), Failure> {
        let file = state.join("containers.json");
        let notes = record::read(&file)?.unwrap_or_default();
        Ok((Self { file, all: Mutex::default() }, notes))
    }

    /// Whether a container of the image runs under a lease that was not seen to end.
    pub(crate) fn has_live_lease(&self, manifest_digest: &str) -> bool {
        self.lock().values().any(|container| {
            let note = container.note();
            note.lease.is_some() && note.manifest_digest == manifest_digest && !container.time_left().is_zero()
        })
    }

    /// The container of this name.
    pub(crate) fn find(&self, name: &ContainerName) -> Option<Arc<Container>> {
        self.lock().get(name).cloned()
    }

    /// All of them, for people.
    pub(crate) fn status(&self) -> Vec<ContainerStatus> {
        let mut all: Vec<ContainerStatus> = self.lock().values().map(|container| container.status()).collect();
        all.sort_by(|a, b| a.container.cmp(&b.container));
        all
    }

    fn add(&self, note: Note) -> Arc<Container> {
        let stage = note.process.map_or(Stage::Granted, Stage::Created);
        let container = Arc::new(Container {
            deadline: watch::Sender::new(BootTime::from_nanoseconds(note.stop_at_nanoseconds)),
            stage: watch::Sender::new(stage),
            note: Mutex::new(note),
        });
        let name = container.note().container.clone();
        self.lock().insert(name, Arc::clone(&container));
        self.keep();
        container
    }

    fn remove(&self, container: &Container) {
        let name = container.note().container.clone();
        self.lock().remove(&name);
        self.keep();
    }

    /// Writes all notes. A disk that takes none is told of; the containers go on, and a restart would not find them.
    fn keep(&self) {
        let all = self.lock();
        let notes: Vec<Note> = all.values().map(|container| container.note().clone()).collect();
        // Under the lock: the newest notes are the last that are written.
        if let Err(failure) = record::write(&self.file, &notes) {
            tracing::error!("{failure}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerName, Arc<Container>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Container {
    /// Hears of its deadlines; the channel closes when the container is let go.
    pub(crate) fn deadlines(&self) -> watch::Receiver<BootTime> {
        self.deadline.subscribe()
    }

    fn note(&self) -> MutexGuard<'_, Note> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time_left(&self) -> Duration {
        self.deadline.borrow().until()
    }

    fn status(&self) -> ContainerStatus {
        let note = self.note();
        ContainerStatus {
            container: note.container.clone(),
            reference: note.reference.clone(),
            manifest_digest: note.manifest_digest.clone(),
            lease: note.lease.as_ref().map(|lease| lease.id.clone()),
            pid: note.process.map(|process| process.pid),
            seconds_left: self.time_left().as_secs(),
        }
    }
}

/// The kernel's name of this boot.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
