//! The agent's socket: made for its owner alone, one conversation a connection, peers checked by their credentials.

use std::fs;
use std::fs::TryLockError;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as BlockingListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use command_line::{ExitCode, Failure, FailureContext as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};

use super::Agent;
use super::protocol::{Answer, ContainerName, FrameError, Request, read, write, write_key};

/// How long a face may take to say what it wants.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// A socket that is listened at, and the right to be the one agent there.
pub(super) struct Listener {
    socket: UnixListener,
    _lock: fs::File,
}

/// Listens at `path`. A socket that nobody listens at is replaced; an agent that lives is not.
pub(super) fn listen(path: &Path) -> Result<Listener, Failure> {
    let cannot = || format!("cannot listen at `{}`", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    make_directory(directory)?;
    let lock = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path.with_extension("lock"));
    let lock = lock.or_fail(ExitCode::Other, cannot)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Failure::bad_input(format!("an agent listens at `{}` already", path.display()))
                .hint("one agent serves the whole node; name another place by `--socket`"));
        }
        Err(TryLockError::Error(error)) => return Err(Failure::other(cannot()).caused_by(&error)),
    }
    // At its place it is for its owner only from the first moment: it is made beside it and renamed.
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let made = (|| {
        let _ = fs::remove_file(&partial);
        let socket = BlockingListener::bind(&partial)?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o600))?;
        fs::rename(&partial, path)?;
        socket.set_nonblocking(true)?;
        UnixListener::from_std(socket)
    })();
    Ok(Listener { socket: made.or_fail(ExitCode::Other, cannot)?, _lock: lock })
}

/// Makes a directory for its owner alone, or sees that nobody else may write to the one that is there.
pub(super) fn make_directory(directory: &Path) -> Result<(), Failure> {
    let cannot = || format!("cannot use the directory `{}`", directory.display());
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.or_fail(ExitCode::Other, cannot)?;
    let found = fs::metadata(directory).or_fail(ExitCode::Other, cannot)?;
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    if !is_own || found.mode() & 0o022 != 0 {
        return Err(Failure::bad_input(cannot())
            .cause("others than the agent's user may write to it")
            .hint("name a directory of its own, or let it be made"));
    }
    Ok(())
}

/// Puts a link to a file into the place of whatever is there.
pub(super) fn link(file: &Path, link: &Path) -> Result<(), Failure> {
    let cannot = || format!("cannot make the link `{}`", link.display());
    let file = std::path::absolute(file).or_fail(ExitCode::Other, cannot)?;
    let partial = link.with_extension(format!("{}.partial", std::process::id()));
    let _ = fs::remove_file(&partial);
    std::os::unix::fs::symlink(file, &partial)
        .and_then(|()| fs::rename(&partial, link))
        .or_fail(ExitCode::Other, cannot)
}

/// Answers faces for ever.
pub(super) async fn serve(agent: &Arc<Agent>, listener: &Listener) {
    loop {
        match listener.socket.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(Arc::clone(agent), stream))),
            Err(error) => {
                // Out of descriptors, most likely: others are closed meanwhile.
                tracing::error!(%error, "a face cannot be answered");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(agent: Arc<Agent>, mut stream: UnixStream) {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == own => {}
        Ok(peer) => return tracing::warn!(uid = peer.uid(), "another user asked and was not answered"),
        Err(error) => return tracing::warn!(%error, "somebody asked who cannot be known"),
    }
    if let Err(error) = answer(&agent, &mut stream).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a face went away");
    }
}

async fn answer(agent: &Arc<Agent>, stream: &mut UnixStream) -> Result<(), FrameError> {
    let request = match tokio::time::timeout(REQUEST_WAIT, read(stream)).await {
        Ok(request) => request?,
        Err(_) => return Ok(()),
    };
    let answer = match request {
        Request::Unwrap(request) => match agent.unwrap(&request).await {
            Ok(key) => {
                write(stream, &Answer::Key).await?;
                return write_key(stream, &key).await;
            }
            Err(failure) => Err(failure),
        },
        Request::Start(request) => agent.start(request).await.map(|granted| match granted {
            None => Answer::NotSealed,
            Some((lease, stop_at)) => Answer::Granted { lease, stop_at_nanoseconds: stop_at.to_nanoseconds() },
        }),
        Request::Started(request) => agent.started(request).map(|()| Answer::Done),
        Request::Ended(container) => {
            agent.ended(&container);
            Ok(Answer::Done)
        }
        Request::Status => Ok(Answer::Status(agent.containers.status())),
        Request::Watch(container) => return watch(agent, stream, &container).await,
    };
    write(stream, &answer.unwrap_or_else(|failure| failed(&failure))).await
}

/// Tells of the container's deadlines until it is let go or the face goes.
async fn watch(agent: &Agent, stream: &mut UnixStream, container: &ContainerName) -> Result<(), FrameError> {
    let Some(mut deadlines) = agent.containers.find(container).map(|container| container.deadlines()) else {
        let failure = Failure::denied(format!("container {} holds no lease of this agent", container.id));
        return write(stream, &failed(&failure)).await;
    };
    loop {
        let stop_at_nanoseconds = deadlines.borrow_and_update().to_nanoseconds();
        write(stream, &Answer::Deadline { stop_at_nanoseconds }).await?;
        tokio::select! {
            changed = deadlines.changed() => if changed.is_err() { return Ok(()) },
            // It says nothing more: what comes is its end.
            _ = stream.read_u8() => return Ok(()),
        }
    }
}

fn failed(failure: &Failure) -> Answer {
    Answer::Failed(failure.to_json())
}
