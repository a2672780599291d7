//! `oci-runtime`: stands between a container engine and runc or crun. A container of a sealed image is created under a lease of
//! the agent's or not at all; everything else is the runtime's own, which takes this process's place.

mod arguments;
mod container_image;
mod containerd;
mod docker;
mod log;
mod storage;
pub(crate) mod watchdog;

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use command_line::{ExitCode, Failure, FailureContext as _};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use self::arguments::{Call, Creation, Mode};
use self::watchdog::Watchdog;
use crate::agent::client::{AgentClient, DEFAULT_SOCKET, Verdict};
use crate::agent::process::ProcessName;
use crate::agent::protocol::{ContainerImage, ContainerName, StartRequest, StartedRequest};
use crate::agent::record::{DEFAULT_STATE, KnownImages, images_beside, images_in};

/// The names under which this program is this command: engines take a program without arguments.
const LINKS: [&str; 2] = ["sealift-runtime", "sealift-oci-runtime"];
/// The command's name, where it is one of `sealift-shim`.
const COMMAND: &str = "oci-runtime";

/// The longest container configuration that is read, in bytes.
const CONFIG_MAX: u64 = 16 << 20;

/// The runtime's words, when this process was started as an OCI runtime. Not by the command line's own parser: a container
/// engine calls a dozen times a second, and most calls are none of ours.
pub(crate) fn intercepted() -> Option<Vec<OsString>> {
    let mut args = std::env::args_os();
    let program = args.next()?;
    let name = Path::new(&program).file_name()?.to_str()?;
    if LINKS.contains(&name) {
        return Some(args.collect());
    }
    let is_command = args.next().is_some_and(|word| word == COMMAND);
    let words: Vec<OsString> = args.collect();
    let asks_for_help = matches!(words.as_slice(), [word] if word == "--help" || word == "-h");
    (is_command && !asks_for_help).then_some(words)
}

/// Does what the words say; gives the exit code.
pub(crate) fn run(words: Vec<OsString>) -> u8 {
    let call = Call::parse(words);
    match handle(&call) {
        Ok(code) => code,
        Err(failure) => {
            log::report(&call, &failure);
            ExitCode::Other as u8
        }
    }
}

fn handle(call: &Call) -> Result<u8, Failure> {
    let inner = inner_runtime(call)?;
    let Some(creation) = call.creation()? else { return Err(replace(&inner, call)) };
    let bundle = creation.bundle.canonicalize();
    let bundle =
        bundle.or_fail(ExitCode::BadInput, || format!("there is no bundle `{}`", creation.bundle.display()))?;
    let config = read_config(&creation.config.clone().unwrap_or_else(|| bundle.join("config.json")))?;
    let root = bundle.join(config["root"]["path"].as_str().unwrap_or_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_fail(ExitCode::Other, || "cannot start the asynchronous runtime".to_owned())?;
    runtime.block_on(async {
        let Some(image) = container_image::of(&bundle, &creation.id, &root).await? else {
            return Err(replace(&inner, call));
        };
        let client = AgentClient::new(call.agent.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)));
        let container = ContainerName { id: creation.id.clone(), root: call.root(&inner) };
        let request = start_request(container.clone(), image.clone(), &config);
        match client.start(request).await {
            Ok(Verdict::NotSealed) => Err(replace(&inner, call)),
            Ok(Verdict::Granted { stop_at_nanoseconds, .. }) => {
                let guarded =
                    Guarded { call, creation: &creation, inner: &inner, client, container, stop_at_nanoseconds };
                guarded.create().await
            }
            Err(failure) if failure.code == ExitCode::Unavailable && client.is_absent() => {
                // Without an agent, what is not sealed runs all the same.
                if image.is_sealed || is_known(&client, &image)? { Err(failure) } else { Err(replace(&inner, call)) }
            }
            Err(failure) => Err(failure),
        }
    })
}

/// Becomes the inner runtime; returns only when that fails.
fn replace(inner: &Path, call: &Call) -> Failure {
    let error = Command::new(inner).args(&call.words).exec();
    cannot_start(inner).caused_by(&error)
}

fn cannot_start(inner: &Path) -> Failure {
    Failure::other(format!("cannot start the OCI runtime `{}`", inner.display()))
        .hint("name it by `--inner` or SEALIFT_INNER_RUNTIME")
}

/// The runtime that is named, else the first one on the path, else where distributions put it: engines that clear their
/// environment leave none.
fn inner_runtime(call: &Call) -> Result<PathBuf, Failure> {
    if let Some(inner) = &call.inner {
        return Ok(inner.clone());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
    let candidates = ["runc", "crun"].iter().flat_map(|name| directories.iter().map(move |place| place.join(name)));
    candidates.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        Failure::other("there is neither runc nor crun").hint("name the runtime by `--inner` or SEALIFT_INNER_RUNTIME")
    })
}

fn read_config(file: &Path) -> Result<Value, Failure> {
    let cannot = || format!("cannot read the container's configuration `{}`", file.display());
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).or_fail(ExitCode::BadInput, cannot)?;
    opened.take(CONFIG_MAX).read_to_end(&mut bytes).or_fail(ExitCode::BadInput, cannot)?;
    serde_json::from_slice(&bytes).or_fail(ExitCode::BadInput, cannot)
}

fn start_request(container: ContainerName, image: ContainerImage, config: &Value) -> StartRequest {
    let words = config["process"]["args"].as_array().into_iter().flatten();
    StartRequest {
        container,
        image,
        command: words.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        has_read_only_root: config["root"]["readonly"].as_bool().unwrap_or(false),
    }
}

/// Whether an agent that is not there now has noted the image as sealed.
fn is_known(client: &AgentClient, image: &ContainerImage) -> Result<bool, Failure> {
    let files = [images_beside(client.socket()), images_in(Path::new(DEFAULT_STATE))];
    for file in files {
        if KnownImages::load(file)?.of_container(image).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The creation of a container that was granted a lease.
struct Guarded<'a> {
    call: &'a Call,
    creation: &'a Creation,
    inner: &'a Path,
    client: AgentClient,
    container: ContainerName,
    stop_at_nanoseconds: u64,
}

impl Guarded<'_> {
    async fn create(self) -> Result<u8, Failure> {
        let mut child = Command::new(self.inner);
        child.args(&self.call.words);
        if self.creation.mode == Mode::Attached {
            return self.attached(child).await;
        }
        let status = child.status().map_err(|error| cannot_start(self.inner).caused_by(&error));
        match status {
            Ok(status) if status.success() => {}
            failed => {
                // The runtime has said why.
                self.give_back().await;
                return failed.map(code);
            }
        }
        self.guard().await?;
        Ok(0)
    }

    /// `run` without `--detach`: this process stays, and passes signals on.
    async fn attached(self, child: Command) -> Result<u8, Failure> {
        let cannot = || "cannot listen for signals".to_owned();
        let mut terminate = signal(SignalKind::terminate()).or_fail(ExitCode::Other, cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).or_fail(ExitCode::Other, cannot)?;
        let mut child =
            tokio::process::Command::from(child).spawn().map_err(|error| cannot_start(self.inner).caused_by(&error))?;
        let mut is_guarded = false;
        loop {
            let signal = tokio::select! {
                status = child.wait() => {
                    self.give_back().await;
                    return status.map(code).or_fail(ExitCode::Other, || "the container could not be run".to_owned());
                }
                _ = terminate.recv() => rustix::process::Signal::TERM,
                _ = interrupt.recv() => rustix::process::Signal::INT,
                () = tokio::time::sleep(APPEARS), if !is_guarded => {
                    if self.pid().is_some() {
                        is_guarded = true;
                        self.guard().await?;
                    }
                    continue;
                }
            };
            if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
            {
                // It may have ended this moment.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// Tells the agent of the container and leaves a watchdog with it; deletes the container where that fails.
    async fn guard(&self) -> Result<(), Failure> {
        let guarded = async {
            let no_process = || Failure::other(format!("container {} has no process", self.creation.id));
            let pid = self.pid().ok_or_else(no_process)?;
            let process = ProcessName::of(pid).or_fail(ExitCode::Other, || no_process().message)?;
            let runtime = self.call.runtime_words(self.inner);
            let watchdog = Watchdog {
                socket: self.client.socket().to_owned(),
                container: self.container.clone(),
                process,
                runtime: runtime.clone(),
                stop_at_nanoseconds: self.stop_at_nanoseconds,
            };
            watchdog.leave()?;
            self.client.started(StartedRequest { container: self.container.clone(), pid, runtime }).await
        };
        let guarded = guarded.await;
        if guarded.is_err() {
            self.delete();
            self.give_back().await;
        }
        guarded
    }

    /// The container's first process, as the runtime noted it.
    fn pid(&self) -> Option<i32> {
        if let Some(file) = &self.creation.pid_file
            && let Ok(text) = std::fs::read_to_string(file)
        {
            return text.trim().parse().ok();
        }
        let output = self.ask(&["state"]).stdout(Stdio::piped()).output().ok()?;
        let state: Value = serde_json::from_slice(&output.stdout).ok()?;
        state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)
    }

    fn delete(&self) {
        if let Err(error) = self.ask(&["delete", "--force"]).status() {
            tracing::error!(%error, "a container that lost its lease could not be deleted");
        }
    }

    fn ask(&self, command: &[&str]) -> Command {
        let words = self.call.runtime_words(self.inner);
        let mut asked = Command::new(self.inner);
        asked.args(words.iter().skip(1)).args(command).arg(&self.creation.id);
        asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asked
    }

    async fn give_back(&self) {
        if let Err(failure) = self.client.ended(self.container.clone()).await {
            tracing::warn!("the agent was not told: {}", failure.message);
        }
    }
}

/// How often it is looked whether a container that is run has its process.
const APPEARS: Duration = Duration::from_millis(50);

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
