//! Whether an installed runtime works here: it makes the very container that is to run, without starting it, and takes it
//! away again. Being on PATH says little: crun refuses hybrid control groups, runc needs a user namespace or root.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::{command, prefix};

/// The longest that one step may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that is told of what a runtime said, in characters.
const SAID_MAX: usize = 300;

/// Tries; what the runtime said when it cannot is logged.
pub(super) async fn can_make(name: &str, program: &Path, bundle: &Path, id: &str, state: &Path) -> bool {
    match try_it(name, program, bundle, id, state).await {
        Ok(()) => true,
        Err(cause) => {
            tracing::warn!("{name} is installed and does not work here, so it is passed over: {cause}");
            false
        }
    }
}

async fn try_it(name: &str, program: &Path, bundle: &Path, id: &str, state: &Path) -> Result<(), String> {
    let prefix = prefix(name, program);
    let trial = format!("{id}-trial");
    let said = state.join(format!("{trial}.log"));
    fs::create_dir_all(state).map_err(|error| error.to_string())?;
    // A file, not a pipe: the container that waits to be started would hold the pipe open.
    let log = fs::File::create(&said).map_err(|error| error.to_string())?;
    let mut create = command(&prefix, state);
    create.arg("create").arg("--bundle").arg(bundle).arg(&trial).stderr(log);
    let created = step(&mut create).await;
    let mut delete = command(&prefix, state);
    delete.args(["delete", "--force"]).arg(&trial).stderr(Stdio::null());
    // One that was not made cannot be deleted: no news.
    let deleted = step(&mut delete).await;
    let words = fs::read_to_string(&said).unwrap_or_default();
    // Nothing but our own log file is lost when this fails.
    let _ = fs::remove_file(&said);
    let short = || words.trim().chars().take(SAID_MAX).collect::<String>();
    match (created, deleted) {
        (Ok(true), Ok(true)) => Ok(()),
        (Ok(true), _) => Err("what it made it could not delete".to_owned()),
        (Ok(false), _) => Err(short()),
        (Err(error), _) => Err(error),
    }
}

async fn step(command: &mut tokio::process::Command) -> Result<bool, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let status = tokio::time::timeout(PATIENCE, command.status()).await;
    status
        .map_err(|_| format!("no answer for {} s", PATIENCE.as_secs()))?
        .map(|status| status.success())
        .map_err(|error| error.to_string())
}
