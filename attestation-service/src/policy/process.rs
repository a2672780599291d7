//! Workers as their parent sees them: started for one policy, asked one input at a time, kept for the next one, killed
//! when they take too long.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::worker::{ARGUMENT, Answer, receive, send};
use super::{PolicyDecision, PolicyError, ReleasePolicy};

/// Workers that wait for an input of their policy, the one that has waited longest first.
static IDLE: Mutex<VecDeque<Worker>> = Mutex::new(VecDeque::new());

/// Compiles a policy in a worker, which then waits for its first input.
pub(super) fn compile(policy: &ReleasePolicy) -> Result<(), PolicyError> {
    let worker = Worker::start(policy)?;
    keep(worker);
    Ok(())
}

/// Evaluates a policy for an input in JSON.
pub(super) fn evaluate(policy: &ReleasePolicy, input: &[u8]) -> Result<PolicyDecision, PolicyError> {
    let mut worker = match waiting(policy) {
        Some(worker) => worker,
        None => Worker::start(policy)?,
    };
    let answer = worker.ask(input, ReleasePolicy::TIME_LIMIT + PATIENCE)?;
    if !answer.is_last {
        keep(worker);
    }
    answer.outcome?.ok_or_else(|| PolicyError::Process(ErrorKind::InvalidData.into()))
}

/// A process that evaluates one policy. It ends with this.
struct Worker {
    digest: Arc<str>,
    child: Child,
    socket: UnixStream,
}

impl Worker {
    fn start(policy: &ReleasePolicy) -> Result<Self, PolicyError> {
        let mut worker = Self::spawn(policy).map_err(PolicyError::Process)?;
        worker.ask(policy.source.as_bytes(), START_PATIENCE)?.outcome?;
        Ok(worker)
    }

    fn spawn(policy: &ReleasePolicy) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        // This very program, even where its file was replaced since. It gets no environment, which may hold secrets, and
        // no signal from the terminal: it ends when its socket is closed.
        let child = Command::new("/proc/self/exe")
            .arg0("policy-worker")
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { digest: policy.digest.clone(), child, socket })
    }

    fn ask(&mut self, frame: &[u8], patience: Duration) -> Result<Answer, PolicyError> {
        match self.exchange(frame, patience) {
            Ok(Some(answer)) => serde_json::from_slice(&answer).map_err(|error| PolicyError::Process(error.into())),
            Ok(None) => Err(self.ended()),
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => PolicyError::Time,
                ErrorKind::FileTooLarge => {
                    PolicyError::Evaluate(format!("its answer has more than {ANSWER_MAX} bytes"))
                }
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => self.ended(),
                _ => PolicyError::Process(error),
            }),
        }
    }

    fn exchange(&mut self, frame: &[u8], patience: Duration) -> io::Result<Option<Vec<u8>>> {
        self.socket.set_write_timeout(Some(patience))?;
        self.socket.set_read_timeout(Some(patience))?;
        send(&mut self.socket, frame)?;
        receive(&mut self.socket, ANSWER_MAX)
    }

    /// Why it has ended without an answer. A failed allocation and a full stack end it by a signal.
    fn ended(&mut self) -> PolicyError {
        match self.child.wait() {
            Ok(status) if status.signal().is_some() => PolicyError::Memory,
            Ok(status) => PolicyError::Evaluate(format!("its process ended early, {status}")),
            Err(error) => PolicyError::Process(error),
        }
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn waiting(policy: &ReleasePolicy) -> Option<Worker> {
    loop {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().rposition(|worker| worker.digest == policy.digest)?;
        let mut worker = idle.remove(at)?;
        drop(idle);
        if worker.is_alive() {
            return Some(worker);
        }
    }
}

fn keep(worker: Worker) {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    idle.push_back(worker);
    let surplus = if idle.len() > IDLE_MAX { idle.pop_front() } else { None };
    drop(idle);
    // Ends a process, so not under the lock.
    drop(surplus);
}

/// How long an evaluation may be silent beyond the time that the engine allows it: built-in functions do not look at the
/// clock, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a worker may take to start and compile.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 1024 * 1024;
/// How many workers wait for more. Each holds a few MiB of its own.
const IDLE_MAX: usize = 8;
