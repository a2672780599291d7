//! Being told to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{ExitCode, Failure, FailureContext as _};

/// SIGTERM and SIGINT, which end the process until this is made.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen. Call it before anybody is told that the program runs.
    ///
    /// # Errors
    /// When the signals cannot be listened for.
    pub fn listen() -> Result<Self, Failure> {
        let failed = || "cannot listen for signals".to_owned();
        Ok(Self {
            terminate: signal(SignalKind::terminate()).or_fail(ExitCode::Other, failed)?,
            interrupt: signal(SignalKind::interrupt()).or_fail(ExitCode::Other, failed)?,
        })
    }

    /// Waits for one of them.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
