//! Asks a served simulated guest for evidence.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::server::{ANSWER, Answer, Request, SILENCE};
use crate::attester::{Attester, AttesterError};
use crate::snp::TEE;

/// The attester of a guest that a [`SimulatedServer`](super::SimulatedServer) serves.
#[derive(Clone, Debug)]
pub struct SimulatedAttester {
    path: PathBuf,
}

impl SimulatedAttester {
    /// An attester over the socket at `path`, after one connection has shown that somebody listens. Each
    /// request is a connection of its own.
    ///
    /// # Errors
    /// [`AttesterError::Missing`] without a socket, [`AttesterError::Io`] when nobody listens.
    pub fn connect(path: &Path) -> Result<Self, AttesterError> {
        let attester = Self { path: path.to_owned() };
        attester.open()?;
        Ok(attester)
    }

    fn open(&self) -> Result<UnixStream, AttesterError> {
        if !self.path.exists() {
            let hint = "no simulated guest is served there: launch one first";
            return Err(AttesterError::Missing { path: self.path.clone(), hint });
        }
        let open = || {
            let stream = UnixStream::connect(&self.path)?;
            stream.set_read_timeout(Some(SILENCE))?;
            stream.set_write_timeout(Some(SILENCE))?;
            Ok(stream)
        };
        open().map_err(|source| self.io("connected to", source))
    }

    fn io(&self, operation: &'static str, source: std::io::Error) -> AttesterError {
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
        let stream = self.open()?;
        let request = Request { report_data: hex::encode(report_data) };
        let mut line = serde_json::to_vec(&request).map_err(|error| AttesterError::Malformed(error.to_string()))?;
        line.push(b'\n');
        (&stream).write_all(&line).map_err(|source| self.io("written", source))?;
        let mut line = Vec::new();
        let mut reader = BufReader::new(&stream).take(ANSWER);
        reader.read_until(b'\n', &mut line).map_err(|source| self.io("read", source))?;
        if line.last() != Some(&b'\n') {
            return Err(AttesterError::Malformed("the answer is cut short".to_owned()));
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Evidence(evidence)) => Ok(evidence),
            Ok(Answer::Error(reason)) => Err(AttesterError::Refused(reason)),
            Err(error) => Err(AttesterError::Malformed(error.to_string())),
        }
    }
}
