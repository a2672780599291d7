//! Serves a launched guest on a unix socket: the simulated counterpart of `/dev/sev-guest`.
//!
//! The protocol is lines of JSON, any number of requests on a connection, answered in order:
//!
//! ```text
//! → {"report_data": "<128 lower-case hexadecimal digits>"}
//! ← {"evidence": {"report": …, "cert_chain": […], "simulated": true}}
//! → {"derive": "key"}
//! ← {"derived_key": "<64 lower-case hexadecimal digits>"}
//! ← {"error": "<why not>"}        in place of either
//! ```
//!
//! A request has at most 256 bytes, an answer 64 KiB; a connection that stays silent for ten seconds is closed.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::platform::io as file_error;
use super::{SimulatedError, SimulatedGuest};

/// The longest request line, in bytes.
const REQUEST: u64 = 256;
/// The longest answer line, in bytes.
pub(crate) const ANSWER: u64 = 64 * 1024;
/// How long a connection may stay silent.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);
/// The most connections at once; further ones are closed at once.
const CONNECTIONS: usize = 32;

/// A request for a report, or for the launch's derived key.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Derive(Derived),
    ReportData(String),
}

/// What can be derived.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Derived {
    Key,
}

/// The answer to it.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    DerivedKey(Zeroizing<String>),
    Evidence(Value),
    Error(String),
}

/// A guest that is served until this is dropped.
#[derive(Debug)]
pub struct SimulatedServer {
    path: PathBuf,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SimulatedServer {
    /// Serves `guest` on a socket at `path`, mode 0600, in a thread of its own. A socket that a dead server
    /// left is replaced.
    ///
    /// # Errors
    /// [`SimulatedError::SocketInUse`] when another server answers there, or the socket cannot be made.
    pub fn start(path: &Path, guest: SimulatedGuest) -> Result<Self, SimulatedError> {
        let listener = bind(path)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || accept(&listener, &Arc::new(guest), &seen));
        Ok(Self { path: path.to_owned(), stopped, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until the process ends or the socket fails.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been printed; there is nothing left to serve.
            let _ = thread.join();
        }
    }
}

impl Drop for SimulatedServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the thread from `accept`.
        let woken = UnixStream::connect(&self.path).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> Result<UnixListener, SimulatedError> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(SimulatedError::SocketInUse(path.to_owned()));
            }
            fs::remove_file(path).map_err(|source| file_error(path, "replaced", source))?;
            UnixListener::bind(path)
        }
        bound => bound,
    };
    let listener = listener.map_err(|source| file_error(path, "made", source))?;
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, mode).map_err(|source| file_error(path, "made private", source))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, guest: &Arc<SimulatedGuest>, stopped: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for connection in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        // A connection that is gone before it was accepted; or too many of them, which pass.
        let Ok(connection) = connection else { continue };
        if open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (guest, open) = (Arc::clone(guest), Arc::clone(&open));
        std::thread::spawn(move || {
            // A client that went away, or sent what is no line; the connection is closed.
            let _ = converse(&connection, &guest);
            open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn converse(connection: &UnixStream, guest: &SimulatedGuest) -> io::Result<()> {
    connection.set_read_timeout(Some(SILENCE))?;
    connection.set_write_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    loop {
        let mut line = Vec::new();
        (&mut reader).take(REQUEST).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let answer =
            if whole { answer(&line, guest) } else { Err("a request is one line of at most 256 bytes".to_owned()) };
        let mut text = Zeroizing::new(serde_json::to_vec(&answer.unwrap_or_else(Answer::Error))?);
        text.push(b'\n');
        writer.write_all(&text)?;
        if !whole {
            return Ok(());
        }
    }
}

fn answer(line: &[u8], guest: &SimulatedGuest) -> Result<Answer, String> {
    let asked = match serde_json::from_slice(line).map_err(|error| format!("no request: {error}"))? {
        Request::Derive(Derived::Key) => {
            return Ok(Answer::DerivedKey(Zeroizing::new(hex::encode(&guest.derived_key()[..]))));
        }
        Request::ReportData(text) => text,
    };
    let mut report_data = [0; 64];
    hex::decode_to_slice(&asked, &mut report_data)
        .map_err(|_| "`report_data` has to be 128 hexadecimal digits".to_owned())?;
    guest.evidence(&report_data).map(Answer::Evidence).map_err(|error| error.to_string())
}
