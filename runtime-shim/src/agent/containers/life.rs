//! One container's life under its lease: asked for, granted, there, renewed, gone or stopped.

use std::sync::Arc;
use std::time::Duration;

use command_line::{ExitCode, Failure, FailureContext as _};
use held_lease::BootTime;

use super::{Container, LeaseNote, Note, Stage, boot};
use crate::agent::Agent;
use crate::agent::licenses::Held;
use crate::agent::process::{ContainerProcess, ProcessName};
use crate::agent::protocol::{ContainerName, ImageHint, StartRequest, StartedRequest};
use crate::agent::record::KnownImage;
use crate::session::LeaseHolder;
use crate::supervise::{Deadlines, keep_lease, wait_until};

/// How long a container may take to be there once it was granted a lease.
const CREATION: Duration = Duration::from_mins(1);

/// How long the lease of an earlier container of the same name may take to be given back.
const GIVING_BACK: Duration = Duration::from_secs(20);

impl Agent {
    /// Asks for the lease of a container that is to be created; `None` when its image needs none.
    pub(crate) async fn start(self: &Arc<Self>, request: StartRequest) -> Result<Option<(String, BootTime)>, Failure> {
        let Some(image) = self.sealed_image(&request).await? else { return Ok(None) };
        self.wait_for_earlier(&request.container).await?;
        let Held { holder, deadlines, obligations, turn } = self.licenses.hold(&image, &request.command).await?;
        if obligations.read_only_root && !request.has_read_only_root {
            holder.release().await;
            return Err(Failure::denied("the release policy wants the root file system to be read-only")
                .hint("start the container with a read-only root file system (`--read-only`)"));
        }
        drop(turn);
        let lease = LeaseNote::of(&holder);
        let note = Note {
            container: request.container,
            manifest_digest: image.manifest_digest.clone(),
            reference: image.reference.clone(),
            command: request.command,
            has_read_only_root: request.has_read_only_root,
            process: None,
            runtime: Vec::new(),
            stop_at_nanoseconds: deadlines.stop_at().to_nanoseconds(),
            lease: Some(lease.clone()),
            boot: boot(),
        };
        self.console
            .say(format!("container {} holds lease {} of licence {}", note.container.id, lease.id, lease.license));
        let container = self.containers.add(note);
        tokio::spawn(Arc::clone(self).live(container, holder, deadlines));
        Ok(Some((lease.id, deadlines.stop_at())))
    }

    /// The sealed image that the container is of. One that nobody has told of yet is opened by the engine's name for it.
    async fn sealed_image(&self, request: &StartRequest) -> Result<Option<Arc<KnownImage>>, Failure> {
        let image = &request.image;
        if let Some(known) = self.known.of_container(image) {
            return Ok(Some(known));
        }
        if !image.is_sealed {
            return Ok(None);
        }
        let hint = ImageHint { reference: image.reference.clone(), manifest_digest: image.manifest_digest.clone() };
        let known = self.open(&hint.reference()?).await?;
        if image.manifest_digest.as_ref().is_some_and(|digest| *digest != known.manifest_digest) {
            return Err(Failure::verification(format!(
                "`{}` is another image now than the container's",
                image.reference
            )));
        }
        Ok(Some(known))
    }

    /// A container that is created again finds the seat that it gives back.
    async fn wait_for_earlier(&self, name: &ContainerName) -> Result<(), Failure> {
        let until = BootTime::now().plus(GIVING_BACK);
        while let Some(earlier) = self.containers.find(name) {
            if earlier.is_there() {
                return Err(Failure::other(format!("container {} is there already", name.id)));
            }
            earlier.stage.send_replace(Stage::Ended);
            if until.until().is_zero() {
                return Err(Failure::unavailable(format!("an earlier container {} is still there", name.id)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Hears that a container's first process is there.
    pub(crate) fn started(&self, request: StartedRequest) -> Result<(), Failure> {
        let name = &request.container;
        let gone = || {
            Failure::new(
                ExitCode::LeaseLost,
                format!("the lease of container {} was lost before it was there", name.id),
            )
        };
        let container = self.containers.find(name).ok_or_else(gone)?;
        let process = ProcessName::of(request.pid)
            .or_fail(ExitCode::Other, || format!("container {} has no process {}", name.id, request.pid))?;
        {
            let mut note = container.note();
            // Either whoever stops it sees the process, or it is told here.
            if note.lease.is_none() {
                return Err(gone());
            }
            note.process = Some(process);
            note.runtime = request.runtime;
        }
        self.containers.keep();
        container.stage.send_replace(Stage::Created(process));
        Ok(())
    }

    /// Hears that a container is gone.
    pub(crate) fn ended(&self, name: &ContainerName) {
        if let Some(container) = self.containers.find(name) {
            container.stage.send_replace(Stage::Ended);
        }
    }

    /// Keeps the lease for as long as the container is there; stops the container when the lease is lost.
    pub(super) async fn live(
        self: Arc<Self>,
        container: Arc<Container>,
        mut holder: LeaseHolder,
        deadlines: Deadlines,
    ) {
        let renewed = |holder: &LeaseHolder, deadlines: Deadlines| {
            self.note_lease(&container, holder, deadlines);
        };
        let lost = tokio::select! {
            lost = keep_lease(&mut holder, deadlines, renewed, &self.console) => Some(lost),
            () = container.over() => None,
        };
        container.note().lease = None;
        if let Some(lost) = lost {
            self.stop(&container, &lost).await;
        } else if container.is_there() {
            self.stop(&container, &Failure::other("it was said to be gone, or came too late")).await;
        }
        self.licenses.release(&holder).await;
        self.containers.remove(&container);
    }

    pub(super) fn note_lease(&self, container: &Container, holder: &LeaseHolder, deadlines: Deadlines) {
        {
            let mut note = container.note();
            note.lease = Some(LeaseNote::of(holder));
            note.stop_at_nanoseconds = deadlines.stop_at().to_nanoseconds();
        }
        self.containers.keep();
        container.deadline.send_replace(deadlines.stop_at());
    }

    /// Stops a container whose lease is lost.
    pub(super) async fn stop(&self, container: &Container, lost: &Failure) {
        let (name, runtime, process) = {
            let note = container.note();
            (note.container.clone(), note.runtime.clone(), note.process)
        };
        let causes = lost.causes.iter().fold(lost.message.clone(), |text, cause| format!("{text}: {cause}"));
        self.console.say(format!("container {} is stopped: {causes}", name.id));
        // One that is being created is told when it says that it is there.
        let Some(process) = process else { return };
        match ContainerProcess::open(process) {
            Ok(Some(process)) => process.stop(&runtime, &name.id, self.stop_timeout).await,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, container = name.id, "a container cannot be stopped"),
        }
    }
}

impl Container {
    /// Whether its first process is there.
    pub(super) fn is_there(&self) -> bool {
        let process = self.note().process;
        process.is_some_and(|process| !matches!(ContainerProcess::open(process), Ok(None)))
    }

    /// Waits until it is gone, or has not come to be.
    pub(super) async fn over(&self) {
        let mut stages = self.stage.subscribe();
        let created_by = BootTime::now().plus(CREATION);
        loop {
            let stage = *stages.borrow_and_update();
            match stage {
                Stage::Ended => return,
                Stage::Granted => {
                    tokio::select! {
                        changed = stages.changed() => if changed.is_err() { return },
                        () = wait_until(created_by) => return,
                    }
                }
                Stage::Created(process) => match ContainerProcess::open(process) {
                    Ok(None) => return,
                    Ok(Some(process)) => {
                        tokio::select! {
                            changed = stages.changed() => if changed.is_err() { return },
                            () = process.gone() => return,
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "a container cannot be watched");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
            }
        }
    }
}
