//! The agent of a node: holds keys and leases for the container engines of the node, which ask it over a unix socket through
//! thin clients: key providers, the stream processor, the OCI runtime.

pub(crate) mod client;
mod containers;
mod keys;
mod licenses;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod record;
mod server;
pub(crate) mod status;

use std::sync::Arc;
use std::time::Duration;

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use image_store::ImageReference;
use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::containers::Containers;
use self::keys::Openables;
use self::licenses::Licenses;
use self::record::{KnownImages, images_beside, images_in};
use crate::attester;
use crate::cli::AgentArgs;

/// All that an agent holds.
pub(crate) struct Agent {
    licenses: Licenses,
    /// The images that this node may open, where no face says which it is.
    images: Vec<ImageReference>,
    known: KnownImages,
    openables: Openables,
    containers: Containers,
    stop_timeout: Duration,
    console: Console,
}

/// Runs the agent until it is told to end.
pub(crate) async fn run(args: AgentArgs, console: &Console) -> Result<(), Failure> {
    lock_memory()?;
    // What it cannot do without, before anything is made.
    let licenses = Licenses::open(args.licenses, attester::open(console)?, args.opening)?;
    let listener = server::listen(&args.socket)?;
    server::make_directory(&args.state_dir)?;
    let images = images_in(&args.state_dir);
    let known = KnownImages::load(images.clone())?;
    server::link(&images, &images_beside(&args.socket))?;
    let (containers, notes) = Containers::load(&args.state_dir)?;
    let agent = Arc::new(Agent {
        licenses,
        images: args.images,
        known,
        openables: Openables::default(),
        containers,
        stop_timeout: Duration::from_secs(args.stop_timeout),
        console: *console,
    });
    agent.take_up(notes);
    let opening = tokio::spawn(Arc::clone(&agent).open_all());
    // Who asks first finds them known; a registry that is away holds nobody up.
    let _ = tokio::time::timeout(OPENING, opening).await;
    let mut terminate = signal(SignalKind::terminate()).or_fail(ExitCode::Other, cannot_listen)?;
    let mut interrupt = signal(SignalKind::interrupt()).or_fail(ExitCode::Other, cannot_listen)?;
    console.result(&json!({"socket": args.socket}), || format!("listening at {}", args.socket.display()));
    tokio::select! {
        () = server::serve(&agent, &listener) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    console.say("the agent ends; containers go on until their leases are over, unless an agent takes them up again");
    Ok(())
}

impl Agent {
    /// Opens all images that this node may open, those that cannot be opened again and again: their layers are to be known
    /// before somebody starts them.
    async fn open_all(self: Arc<Self>) {
        let mut left: Vec<(&ImageReference, bool)> = self.images.iter().map(|image| (image, false)).collect();
        while !left.is_empty() {
            let mut failed = Vec::new();
            for (reference, is_told) in left {
                if let Err(failure) = self.open(reference).await {
                    if !is_told {
                        self.console.say(format!("note: `{reference}` cannot be opened yet: {}", failure.message));
                    }
                    failed.push((reference, true));
                }
            }
            left = failed;
            if !left.is_empty() {
                tokio::time::sleep(OPEN_AGAIN).await;
            }
        }
    }
}

/// How long the first faces may have to wait for images to be opened.
const OPENING: Duration = Duration::from_secs(10);

/// The pause before images are opened again that could not be.
const OPEN_AGAIN: Duration = Duration::from_secs(30);

fn cannot_listen() -> String {
    "cannot listen for signals".to_owned()
}

/// Keeps all of this process's memory off swap, keys on their way included, and from other processes of the same user.
fn lock_memory() -> Result<(), Failure> {
    let hint = "run the agent as root, or give it an unlimited RLIMIT_MEMLOCK (systemd: `LimitMEMLOCK=infinity`)";
    let limit = getrlimit(Resource::Memlock).maximum;
    // Where it may not be raised, the lock itself tells.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: limit, maximum: limit });
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .or_fail(ExitCode::Other, || "cannot lock the agent's memory".to_owned())
        .map_err(|failure| failure.hint(hint))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .or_fail(ExitCode::Other, || "cannot keep the agent's memory from others".to_owned())
}
