//! A process by a descriptor of its own (`pidfd`): a number that is used again cannot take its place. Waited for by the
//! asynchronous runtime, signalled. Knows nothing of containers.
#![expect(unsafe_code, reason = "the asynchronous runtime wants a promise about the descriptor; it is given here")]

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process, whether it still runs or not.
#[derive(Debug)]
pub struct ProcessDescriptor(AsyncFd<OwnedFd>);

impl ProcessDescriptor {
    /// Takes hold of the process that has this number now; `None` when there is none.
    ///
    /// # Panics
    /// Outside of the asynchronous runtime.
    pub fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        // SAFETY: an `OwnedFd` is open and the same until it is dropped, and nothing takes it out of here before.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(Some(Self(registered.map_err(io::Error::from)?)))
    }

    /// Waits until the process has ended.
    pub async fn ended(&self) -> io::Result<()> {
        // Readable from the end on, for ever: the guard's state is left as it is.
        self.0.readable().await.map(drop)
    }

    /// Sends a signal; one that has ended takes none, which is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.0.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
