//! Being told to stop.

use tokio::signal::unix::{SignalKind, signal};

use crate::{ExitCode, Failure, FailureContext as _};

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be listened for.
pub async fn stop_asked() -> Result<(), Failure> {
    let failed = || "cannot listen for signals".to_owned();
    let mut terminate = signal(SignalKind::terminate()).or_fail(ExitCode::Other, failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).or_fail(ExitCode::Other, failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
