//! The process in which a policy is evaluated: the same program, started anew with one argument and a socket as its
//! stdin. It bounds its own memory before it reads anything, so that whatever a policy does, it can only end itself.
//!
//! Over the socket go frames: a length (four bytes, big-endian) and that many bytes. The first frame is the policy's
//! source, each further one an input in JSON; each is answered by an [`Answer`] in JSON.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::fs::{FileType, fstat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::engine::CompiledPolicy;
use super::{PolicyDecision, PolicyError, ReleasePolicy};

/// What the program is started with. A name that a test program takes for the test to run, so that the tests of this
/// crate, whose program is no `sealift`, are their own workers.
pub(super) const ARGUMENT: &str = "policy_worker";

/// What a worker says to a frame.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Answer {
    /// The decision; none to the first frame, which only compiles.
    pub(super) outcome: Result<Option<PolicyDecision>, PolicyError>,
    /// Whether the worker takes another input. One that has kept much memory does not.
    pub(super) is_last: bool,
}

/// Evaluates a policy where this process was started to do that, until nobody asks any more; `None` where it was not.
///
/// A program that uses [`ReleasePolicy`] calls this first thing in `main`, while it is single-threaded and holds nothing.
pub fn policy_worker() -> Option<ExitCode> {
    let is_asked = std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT);
    let stdin = io::stdin();
    if !is_asked || !fstat(&stdin).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket) {
        return None;
    }
    // Whoever started it learns of a failure by its end.
    Some(
        stdin
            .as_fd()
            .try_clone_to_owned()
            .and_then(|socket| work(socket.into()))
            .map_or_else(|_| ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    )
}

fn work(mut socket: UnixStream) -> io::Result<()> {
    let held_at_start = bound_memory()?;
    let Some(source) = receive(&mut socket, usize::MAX)? else { return Ok(()) };
    let policy = match String::from_utf8(source) {
        Ok(source) => CompiledPolicy::compile(&source),
        Err(error) => Err(PolicyError::Compile(error.to_string())),
    };
    let policy = match policy {
        Ok(policy) => policy,
        Err(error) => return answer(&mut socket, &Answer { outcome: Err(error), is_last: true }),
    };
    answer(&mut socket, &Answer { outcome: Ok(None), is_last: false })?;
    while let Some(input) = receive(&mut socket, usize::MAX)? {
        let outcome = policy.evaluate(&input).map(Some);
        drop(input);
        let is_last = data_bytes()? > held_at_start + KEPT_MAX;
        answer(&mut socket, &Answer { outcome, is_last })?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Lets this process take [`ReleasePolicy::MEMORY_LIMIT`] more than it has, and leave no core. An allocation that goes
/// beyond fails, which ends the process. Gives the bytes that it has.
fn bound_memory() -> io::Result<u64> {
    let held = data_bytes()?;
    for (resource, wanted) in [(Resource::Data, held + ReleasePolicy::MEMORY_LIMIT), (Resource::Core, 0)] {
        let limit = Some(getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(held)
}

/// The private writable memory of this process without its stack, which is what `RLIMIT_DATA` counts.
fn data_bytes() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmData:")?.strip_suffix("kB")?.trim().parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes * 1024).ok_or_else(|| ErrorKind::InvalidData.into())
}

fn answer(socket: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    send(socket, &serde_json::to_vec(answer)?)
}

/// Writes a frame.
pub(super) fn send(socket: &mut UnixStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| ErrorKind::InvalidInput)?;
    socket.write_all(&length.to_be_bytes())?;
    socket.write_all(frame)
}

/// Reads a frame of at most `limit` bytes; `None` where the other side has gone.
pub(super) fn receive(socket: &mut UnixStream, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match socket.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut frame = vec![0; length];
    socket.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// How much a worker may have kept after an evaluation to be asked again, in bytes.
const KEPT_MAX: u64 = 16 * 1024 * 1024;
