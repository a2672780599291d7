//! The faces' side of the agent's socket: asks, and gives the agent's failures as they were. Holds nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use command_line::{ExitCode, Failure, FailureContext as _};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::BrokerPacket;
use tokio::net::UnixStream;

use super::protocol::{
    Answer, ContainerName, ContainerStatus, FrameError, ImageHint, Request, StartRequest, StartedRequest,
    UnwrapRequest, read, read_key, write,
};

/// Where the agent listens unless it is told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/sealift/agent.sock";

/// How long an answer may take: the agent asks registry, platform and service, each with limits of its own.
const ANSWER_WAIT: Duration = Duration::from_mins(2);

/// An agent, asked anew over a connection of its own for each request.
#[derive(Clone, Debug)]
pub(crate) struct AgentClient {
    socket: PathBuf,
}

/// Whether a container may be created.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It holds a lease, with which it may go on until then on `CLOCK_BOOTTIME`.
    Granted { lease: String, stop_at_nanoseconds: u64 },
    /// Its image needs none.
    NotSealed,
}

impl AgentClient {
    /// The agent that listens there.
    pub(crate) fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether nobody listens there.
    pub(crate) fn is_absent(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.socket).is_err()
    }

    /// The key of the layer that carries `packet`.
    ///
    /// # Errors
    /// The agent's own failure; [`ExitCode::Unavailable`] when there is no agent.
    pub(crate) async fn unwrap(
        &self,
        packet: &BrokerPacket,
        image: Option<ImageHint>,
    ) -> Result<PrivateOptions, Failure> {
        let request = Request::Unwrap(UnwrapRequest { packet: packet.to_json(), image });
        let asked = async {
            let (answer, mut stream) = self.ask(&request).await?;
            match answer {
                Answer::Key => read_key(&mut stream).await,
                _ => Err(unexpected()),
            }
        };
        self.in_time(asked).await
    }

    /// Asks for a container's lease, before it is created.
    pub(crate) async fn start(&self, request: StartRequest) -> Result<Verdict, Failure> {
        match self.in_time(self.ask(&Request::Start(request))).await?.0 {
            Answer::Granted { lease, stop_at_nanoseconds } => Ok(Verdict::Granted { lease, stop_at_nanoseconds }),
            Answer::NotSealed => Ok(Verdict::NotSealed),
            _ => Err(unexpected()),
        }
    }

    /// Says that a container with a lease is there, and how it is killed.
    pub(crate) async fn started(&self, request: StartedRequest) -> Result<(), Failure> {
        self.done(&Request::Started(request)).await
    }

    /// Says that a container with a lease did not come to be, or is gone.
    pub(crate) async fn ended(&self, container: ContainerName) -> Result<(), Failure> {
        self.done(&Request::Ended(container)).await
    }

    /// Which containers hold leases.
    pub(crate) async fn status(&self) -> Result<Vec<ContainerStatus>, Failure> {
        match self.in_time(self.ask(&Request::Status)).await?.0 {
            Answer::Status(containers) => Ok(containers),
            _ => Err(unexpected()),
        }
    }

    /// Begins to watch a container's deadline; gives it, and the connection on which later ones come.
    pub(crate) async fn watch(&self, container: ContainerName) -> Result<(u64, UnixStream), Failure> {
        match self.in_time(self.ask(&Request::Watch(container))).await? {
            (Answer::Deadline { stop_at_nanoseconds }, stream) => Ok((stop_at_nanoseconds, stream)),
            _ => Err(unexpected()),
        }
    }

    async fn done(&self, request: &Request) -> Result<(), Failure> {
        match self.in_time(self.ask(request)).await?.0 {
            Answer::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Sends the request; gives the answer unless it is a failure, and the connection.
    async fn ask(&self, request: &Request) -> Result<(Answer, UnixStream), Failure> {
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .or_fail(ExitCode::Unavailable, || format!("no agent answers at `{}`", self.socket.display()))
            .map_err(|failure| {
                failure.hint("start it with `sealift-shim agent`, or name its socket by SEALIFT_AGENT")
            })?;
        self.check_peer(&stream)?;
        let exchange: Result<Answer, FrameError> = async {
            write(&mut stream, request).await?;
            read(&mut stream).await
        }
        .await;
        match exchange.or_fail(ExitCode::Unavailable, || self.no_answer())? {
            Answer::Failed(failure) => {
                let failure = Failure::from_json(&failure);
                Err(failure.unwrap_or_else(|| Failure::other("the agent says that it failed, and not why")))
            }
            answer => Ok((answer, stream)),
        }
    }

    /// What somebody else's program says at that place is not believed.
    fn check_peer(&self, stream: &UnixStream) -> Result<(), Failure> {
        let peer = stream.peer_cred().or_fail(ExitCode::Other, || "cannot see who the agent is".to_owned())?;
        if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        let message = format!("the agent at `{}` is another user's ({})", self.socket.display(), peer.uid());
        Err(Failure::verification(message))
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_WAIT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::unavailable(self.no_answer())),
        }
    }

    fn no_answer(&self) -> String {
        format!("the agent at `{}` does not answer", self.socket.display())
    }
}

fn unexpected() -> Failure {
    Failure::other("the agent answers something else than was asked")
        .hint("agent and shim may be of different versions: restart the agent")
}
