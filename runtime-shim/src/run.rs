//! `run` and `unpack`: the whole road, and what must be undone at its end.

pub(crate) mod caretaker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use command_line::{Answerer, Console, ExitCode, Failure, FailureContext as _};
use held_lease::BootTime;
use runtime_shim::bundle::{Network, SecretFile};
use runtime_shim::runtime::{self, Running, RuntimeChoice};
use runtime_shim::unpack::remove_tree;
use rustix::process::Signal;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::caretaker::Caretaker;
use crate::cli::{ImageArgs, NetworkMode, RunArgs, RuntimeKind, UnpackArgs};
use crate::materialize;
use crate::secrets::SecretFiles;
use crate::session::{self, Held, LeaseHolder, Released, Session};
use crate::stop::Stop;
use crate::supervise::{Deadlines, keep_lease, wait_until};

/// Unpacks an image to an OCI bundle, or only verifies it.
pub(crate) async fn unpack(args: UnpackArgs, console: &Console) -> Result<(), Failure> {
    let Some(directory) = args.directory else { return verify(&args.image, console).await };
    if directory.exists() {
        return Err(Failure::bad_input(format!("`{}` exists already", directory.display())).hint("name a new folder"));
    }
    let instance = Instance::create(directory)?;
    let Session { mut released, held } = session::open(&args.image, &[], console).await?;
    let never = Arc::new(Stop::default());
    let made = make_bundle(&mut released, &instance, Network::Host, &[], &never, console).await;
    held.release().await;
    let report = made?;
    let directory = instance.keep();
    let document = json!({
        "bundle": directory, "manifest": released.image.manifest_digest, "entries": report.entries,
        "plain_bytes": report.plain_bytes, "skipped_devices": report.skipped_devices,
        "skipped_xattrs": report.skipped_xattrs,
    });
    console.result(&document, || directory.display().to_string());
    Ok(())
}

/// Opens an image and makes every check, writing nothing.
async fn verify(image: &ImageArgs, console: &Console) -> Result<(), Failure> {
    let Session { mut released, held } = session::open(image, &[], console).await?;
    let verified = materialize::verify(&mut released, console).await;
    held.release().await;
    let layers = released.image.layers.iter().zip(verified?);
    let layers: Vec<_> = layers.map(|(layer, plain_bytes)| layer.verified(plain_bytes)).collect();
    let manifest = &released.image.manifest_digest;
    console.result(&json!({ "manifest": manifest, "signers": released.image.signers, "layers": layers }), || {
        let layers = layers.iter().map(ToString::to_string);
        std::iter::once(format!("manifest {manifest}  signature")).chain(layers).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// Runs an image; gives the workload's exit code.
pub(crate) async fn run(args: RunArgs, console: &Console) -> Result<u8, Failure> {
    let asked_at = BootTime::now();
    let offline = args.offline_state.as_deref();
    let mut session = session::open_keeping(&args.image, &args.args, offline, console).await?;
    let outcome = run_leased(&args, &mut session, asked_at, console).await;
    session.held.release().await;
    outcome
}

async fn run_leased(
    args: &RunArgs,
    session: &mut Session,
    asked_at: BootTime,
    console: &Console,
) -> Result<u8, Failure> {
    let id = format!("sealift-{}", uuid::Uuid::new_v4().simple());
    let state = args.state_dir.clone().unwrap_or_else(default_state_directory);
    let directory = state.join(&id);
    // The last to go, when everything else is cleaned up.
    let _caretaker = Caretaker::leave(&directory)?;
    let instance = Instance::create(directory)?;
    let network = match args.network {
        NetworkMode::Host => Network::Host,
        NetworkMode::None => Network::None,
    };
    let Session { released, held } = session;
    let deadlines = match &*held {
        Held::Lease(holder) => Some(Deadlines::of(holder, asked_at)),
        Held::Joint(_) | Held::Token(_) => None,
    };
    let secrets = SecretFiles::fetch(&args.secret, &released.product, held, instance.path()).await?;
    let secret_files = secrets.as_ref().map(SecretFiles::files).unwrap_or_default();
    let lease = async {
        match (held, deadlines) {
            (Held::Lease(holder), Some(deadlines)) => {
                say_how_long(holder, &deadlines, console);
                let Some(offline) = holder.offline().cloned() else {
                    return keep_lease(holder, deadlines, |_, _| {}, console).await;
                };
                let lost = tokio::select! {
                    lost = keep_lease(holder, deadlines, |_, _| {}, console) => lost,
                    never = Arc::clone(&offline).keep_counting() => match never {},
                };
                offline.lost(&lost);
                lost
            }
            (Held::Joint(joint), _) => joint.keep(asked_at, console).await,
            // Nothing ends it but the workload itself, which has been said.
            _ => std::future::pending().await,
        }
    };
    tokio::pin!(lease);
    let stop = Arc::new(Stop::default());
    // A large image takes longer than a lease lives.
    let lost = {
        let making = make_bundle(released, &instance, network, secret_files, &stop, console);
        tokio::pin!(making);
        tokio::select! {
            made = &mut making => made.map(|_| None)?,
            lost = &mut lease => {
                stop.all();
                // Its own error is a consequence of ours; what it made goes with it.
                let _ = making.await;
                Some(lost)
            }
        }
    };
    if let Some(lost) = lost {
        return Err(lease_lost(lost, instance.remove()));
    }
    let choice = match args.runtime {
        RuntimeKind::Auto => RuntimeChoice::Auto,
        RuntimeKind::Crun => RuntimeChoice::Crun,
        RuntimeKind::Embedded => RuntimeChoice::Embedded,
        RuntimeKind::Runc => RuntimeChoice::Runc,
    };
    // Signals are ours before there is a workload that they could miss.
    let mut signals = forwarded_signals()?;
    let started = runtime::start(choice, instance.path(), &id, &runtime_state(instance.path())).await;
    let mut running = started.map_err(|error| {
        Failure::other("cannot start the workload")
            .caused_by(&error)
            .from_answerer(Answerer::Runtime)
            .hint("choose another runtime by `--runtime`; `sealift-shim doctor` says what this machine lacks")
    })?;
    console.say(format!("running under {}", running.name()));
    let lost = loop {
        tokio::select! {
            code = running.wait() => return code.or_fail(ExitCode::Other, || "the workload could not be run".to_owned()),
            Some(signal) = signals.recv() => pass_on(&running, signal).await,
            lost = &mut lease => break lost,
        }
    };
    let stopped = stop_workload(&mut running, Duration::from_secs(args.stop_timeout)).await;
    let removed = instance.remove();
    Err(lease_lost(lost, stopped.and(removed)))
}

fn say_how_long(holder: &LeaseHolder, deadlines: &Deadlines, console: &Console) {
    let (every, left) = (holder.lease.renew_after_seconds(), deadlines.left().as_secs());
    console
        .say(format!("the lease is renewed every {every} s; without the service the workload can go on for {left} s"));
    if !holder.has_signed_time() {
        console.say("note: the licence names no log key: nothing but this machine's own clock bounds the lease");
    }
}

async fn make_bundle(
    released: &mut Released,
    instance: &Instance,
    network: Network,
    secrets: &[SecretFile],
    stop: &Arc<Stop>,
    console: &Console,
) -> Result<runtime_shim::unpack::UnpackReport, Failure> {
    let report = materialize::root_filesystem(released, &instance.path().join("rootfs"), stop, console).await?;
    materialize::config(released, instance.path(), network, secrets)?;
    Ok(report)
}

/// SIGTERM, then SIGKILL when the time is over, by the clock that bounds the lease.
async fn stop_workload(running: &mut Running, timeout: Duration) -> Result<(), Failure> {
    pass_on(running, Signal::TERM).await;
    tokio::select! {
        ended = running.wait() => if ended.is_ok() { return Ok(()) },
        () = wait_until(BootTime::now().plus(timeout)) => {}
    }
    running.kill().await.or_fail(ExitCode::Other, || "the workload could not be killed".to_owned())
}

async fn pass_on(running: &Running, signal: Signal) {
    if let Err(error) = running.signal(signal).await {
        tracing::warn!(%error, "a signal could not be passed on");
    }
}

/// What ended the lease, and whether everything ended with it.
fn lease_lost(cause: Failure, stopped: Result<(), Failure>) -> Failure {
    let message = match &stopped {
        Ok(()) => "the lease was lost: the workload was stopped and its files removed".to_owned(),
        Err(failure) => format!("the lease was lost, and {}", failure.message),
    };
    let mut failure = Failure::new(ExitCode::LeaseLost, message).cause(cause.message).from_answerer(cause.answerer);
    failure.causes.extend(cause.causes);
    failure.causes.extend(stopped.err().into_iter().flat_map(|failure| failure.causes));
    failure.hint = cause.hint;
    failure
}

/// The signals that go on to the workload.
fn forwarded_signals() -> Result<mpsc::Receiver<Signal>, Failure> {
    let (sender, receiver) = mpsc::channel(16);
    let kinds = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::quit(), Signal::QUIT),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
        (SignalKind::window_change(), Signal::WINCH),
    ];
    for (kind, passed) in kinds {
        let mut stream = signal(kind).or_fail(ExitCode::Other, || "cannot listen for signals".to_owned())?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(passed).await.is_err() {
                    break;
                }
            }
        });
    }
    Ok(receiver)
}

/// An instance's directory; removed with everything in it unless it is kept.
struct Instance {
    directory: PathBuf,
    is_kept: bool,
}

impl Instance {
    fn create(directory: PathBuf) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let failed = || format!("cannot make `{}`", directory.display());
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent)
                .or_fail(ExitCode::BadInput, failed)
                .map_err(|failure| failure.hint("name another place by `--state-dir`"))?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(&directory).or_fail(ExitCode::BadInput, failed)?;
        Ok(Self { directory, is_kept: false })
    }

    fn path(&self) -> &Path {
        &self.directory
    }

    /// Removes it now, and says so where that fails.
    fn remove(mut self) -> Result<(), Failure> {
        self.is_kept = true;
        let failed = || format!("the workload's files in `{}` could not be removed", self.directory.display());
        remove_tree(&self.directory).or_fail(ExitCode::Other, failed)
    }

    fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        self.directory.clone()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = remove_tree(&self.directory)
        {
            tracing::error!(%error, path = %self.directory.display(), "cannot remove the workload's files");
        }
    }
}

/// Where runc and crun keep theirs.
fn runtime_state(instance: &Path) -> PathBuf {
    instance.join("state")
}

/// Root's below /var/lib, a user's below the home; both must be on storage that only the guest can read.
fn default_state_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/sealift");
    }
    match std::env::var_os("XDG_DATA_HOME")
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share").into()))
    {
        Some(data) => Path::new(&data).join("sealift"),
        None => std::env::temp_dir().join(format!("sealift-{}", rustix::process::geteuid().as_raw())),
    }
}
