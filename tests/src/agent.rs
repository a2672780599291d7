//! The agent of a node, and its socket as faces speak to it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::running::Running;

/// An agent that runs; killed, as by SIGKILL, with this.
#[derive(Debug)]
pub struct Agent {
    _running: Running,
    socket: PathBuf,
}

impl Agent {
    /// Starts it by `command`, which listens at `socket`.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(command: &mut Command, socket: &Path, log: &Path) -> Self {
        Self { _running: Running::start(command, log), socket: socket.to_owned() }
    }

    /// What it answers to a request.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn ask(&self, request: &Value) -> Value {
        answer(&mut self.send(request)).expect("an answer")
    }

    /// The key of the layer that carries a packet, as JSON; else the failure.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn unwrap(&self, packet: &str, image: Option<&str>) -> Result<Value, Value> {
        let image = image.map(|reference| json!({"reference": reference}));
        let mut stream = self.send(&json!({"unwrap": {"packet": packet, "image": image}}));
        match answer(&mut stream).expect("an answer") {
            Value::String(word) if word == "key" => Ok(answer(&mut stream).expect("a key")),
            mut other => Err(other["failed"]["error"].take()),
        }
    }

    /// The containers that hold leases.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn containers(&self) -> Vec<Value> {
        self.ask(&json!("status"))["status"].as_array().expect("a list").clone()
    }

    fn send(&self, request: &Value) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).expect("agent");
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("timeout");
        let text = request.to_string();
        let length = u32::try_from(text.len()).expect("length").to_be_bytes();
        stream.write_all(&[&length, text.as_bytes()].concat()).expect("request");
        stream
    }
}

/// Reads one frame; `None` when the other side closes.
pub fn answer(stream: &mut UnixStream) -> Option<Value> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; usize::try_from(u32::from_be_bytes(length)).ok()?];
    stream.read_exact(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
