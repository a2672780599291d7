//! Asks a served simulated guest for evidence: over a socket, or inside a virtual machine over a serial port that leads to
//! the socket.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use zeroize::Zeroizing;

use super::server::{ANSWER, Answer, Derived, Request, SILENCE};
use crate::attester::{Attester, AttesterError, DerivedKey};
use crate::snp::TEE;

/// How often a request is made whose connection is lost.
const TRIES: u32 = 3;

/// The attester of a guest that a [`SimulatedServer`](super::SimulatedServer) serves.
#[derive(Clone, Debug)]
pub struct SimulatedAttester {
    path: PathBuf,
}

impl SimulatedAttester {
    /// An attester over the socket or serial port at `path`, after one connection has shown that somebody listens. Each
    /// request is a connection of its own.
    ///
    /// # Errors
    /// [`AttesterError::Missing`] without a socket, [`AttesterError::Io`] when nobody listens.
    pub fn connect(path: &Path) -> Result<Self, AttesterError> {
        let attester = Self { path: path.to_owned() };
        attester.open()?;
        Ok(attester)
    }

    fn open(&self) -> Result<Connection, AttesterError> {
        let Ok(metadata) = self.path.metadata() else {
            let hint = "no simulated guest is served there: launch one first";
            return Err(AttesterError::Missing { path: self.path.clone(), hint });
        };
        let opened = if metadata.file_type().is_char_device() {
            Port::open(&self.path).map(Connection::Port)
        } else {
            connect(&self.path).map(Connection::Socket)
        };
        opened.map_err(|source| self.io("connected to", source))
    }

    /// One request, one line of an answer.
    fn ask(&self, request: &[u8]) -> Result<Vec<u8>, AttesterError> {
        let mut connection = self.open()?;
        connection.write_all(request).map_err(|source| self.io("written", source))?;
        let mut line = Vec::new();
        let mut reader = BufReader::new(connection).take(ANSWER);
        reader.read_until(b'\n', &mut line).map_err(|source| self.io("read", source))?;
        Ok(line)
    }

    fn io(&self, operation: &'static str, source: io::Error) -> AttesterError {
        AttesterError::Io { path: self.path.clone(), operation, source }
    }
}

impl Attester for SimulatedAttester {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, AttesterError> {
        match self.converse(&Request::ReportData(hex::encode(report_data)))? {
            Answer::Evidence(evidence) => Ok(evidence),
            Answer::Error(reason) => Err(AttesterError::Refused(reason)),
            Answer::DerivedKey(_) => Err(AttesterError::Malformed("a key in the place of evidence".to_owned())),
        }
    }

    fn derived_key(&self, context: &'static str) -> Result<DerivedKey, AttesterError> {
        let digits = match self.converse(&Request::Derive(Derived::Key))? {
            Answer::DerivedKey(digits) => digits,
            Answer::Error(reason) => return Err(AttesterError::Refused(reason)),
            Answer::Evidence(_) => return Err(AttesterError::Malformed("evidence in the place of a key".to_owned())),
        };
        let mut key = Zeroizing::new([0; DerivedKey::LEN]);
        hex::decode_to_slice(digits.as_bytes(), &mut key[..])
            .map_err(|_| AttesterError::Malformed("the derived key has not 64 hexadecimal digits".to_owned()))?;
        DerivedKey::expand(&key, context)
    }
}

impl SimulatedAttester {
    /// One request and its answer.
    fn converse(&self, request: &Request) -> Result<Answer, AttesterError> {
        let mut line = serde_json::to_vec(request).map_err(|error| AttesterError::Malformed(error.to_string()))?;
        line.push(b'\n');
        let mut tries = 1;
        let line = loop {
            match self.ask(&line).map(Zeroizing::new) {
                // The server closes what stays silent; behind a serial port that shows only when it is used.
                Err(AttesterError::Io { source, .. })
                    if source.kind() == io::ErrorKind::ConnectionReset && tries < TRIES =>
                {
                    tries += 1;
                }
                answer => break answer?,
            }
        };
        if line.last() != Some(&b'\n') {
            return Err(AttesterError::Malformed("the answer is cut short".to_owned()));
        }
        serde_json::from_slice(&line).map_err(|error| AttesterError::Malformed(error.to_string()))
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// One request's way to the server and back.
enum Connection {
    Port(Port),
    Socket(UnixStream),
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Port(port) => port.read(bytes),
            Self::Socket(socket) => socket.read(bytes),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Port(port) => port.write(bytes),
            Self::Socket(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A virtio serial port. It never blocks: while the host's side is not connected it can be neither read nor written, and
/// says so in ways that differ from a socket's.
struct Port {
    file: File,
    /// When this conversation has lasted too long.
    until: Instant,
}

impl Port {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(Self { file, until: Instant::now() + SILENCE })
    }

    /// Waits until the port can be read or written; a nap where the host's side is gone and may come back.
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the simulated platform does not answer"));
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [PollFd::from_borrowed_fd(self.file.as_fd(), flags)];
        poll(&mut polled, Some(&timeout))?;
        if !polled.iter().any(|port| port.revents().intersects(flags)) {
            std::thread::sleep(NAP);
        }
        Ok(())
    }
}

/// How long a port whose host's side is gone is left alone.
const NAP: std::time::Duration = std::time::Duration::from_millis(50);

impl Read for Port {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::IN)?;
            match self.file.read(bytes) {
                Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::OUT)?;
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
