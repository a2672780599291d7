//! The gRPC server: `keyprovider.KeyProviderService` as Go's ocicrypt dials it, within limits, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use command_line::{Console, ExitCode, Failure, FailureContext as _, StopSignals};
use ocicrypt::keyprovider::{INPUT_MAX, Request};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Code, Response, Status};
use zeroize::Zeroizing;

use self::proto::key_provider_service_server::{KeyProviderService, KeyProviderServiceServer};
use self::proto::{KeyProviderKeyWrapProtocolInput as Input, KeyProviderKeyWrapProtocolOutput as Output};
use crate::address::ServerAddress;
use crate::{KeyProvider, answer, cannot, socket};

/// Requests that are worked on at once; the others wait.
const CONCURRENT_MAX: usize = 16;
/// Requests of one connection that are open at once.
const STREAMS_MAX: u32 = 64;
/// How long a request may take, waiting included: attestation asks the service and the platform.
const REQUEST_TIME: Duration = Duration::from_mins(2);
/// How long requests have to end once the server is told to stop.
const STOP_TIME: Duration = Duration::from_secs(10);
/// What gRPC's framing takes beside the message.
const FRAME_MAX: usize = 64;

/// Serves until SIGTERM or SIGINT. The address is printed once connections are taken.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(provider: impl KeyProvider, address: &ServerAddress, console: &Console) -> Result<(), Failure> {
    let cannot = || format!("cannot listen on `{address}`");
    match address {
        ServerAddress::Tcp(wanted) => {
            let listener = TcpListener::bind(wanted).await.or_fail(ExitCode::Other, cannot)?;
            let bound = ServerAddress::Tcp(listener.local_addr().or_fail(ExitCode::Other, cannot)?);
            run(provider, TcpListenerStream::new(listener), &bound, console).await
        }
        ServerAddress::Unix(path) => {
            let listener = socket::bind(path).await.or_fail(ExitCode::Other, cannot)?;
            let ended = run(provider, UnixListenerStream::new(listener), address, console).await;
            // Whoever comes later binds anew, whether this works or not.
            let _ = std::fs::remove_file(path);
            ended
        }
    }
}

async fn run<I, S>(
    provider: impl KeyProvider,
    incoming: I,
    address: &ServerAddress,
    console: &Console,
) -> Result<(), Failure>
where
    I: tokio_stream::Stream<Item = std::io::Result<S>> + Send,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + tonic::transport::server::Connected + Unpin + Send + 'static,
{
    let service = Service { provider: Arc::new(provider), turns: Arc::new(Semaphore::new(CONCURRENT_MAX)) };
    let service = KeyProviderServiceServer::new(service).max_decoding_message_size(INPUT_MAX + FRAME_MAX);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .timeout(REQUEST_TIME)
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move {
            // A sender that is gone means the same.
            let _ = stopped.await;
        });
    tokio::pin!(server);
    let mut signals = StopSignals::listen()?;
    console.say(format!("key provider on {address} (`\"grpc\": \"{address}\"` in OCICRYPT_KEYPROVIDER_CONFIG)"));
    console.result(&json!({"listening": address.to_string()}), || address.to_string());
    let failed = || "the gRPC server failed".to_owned();
    tokio::select! {
        ended = &mut server => return ended.or_fail(ExitCode::Other, failed),
        () = signals.asked() => {}
    }
    console.say("stopping");
    let _ = stop.send(());
    match tokio::time::timeout(STOP_TIME, server).await {
        Ok(ended) => ended.or_fail(ExitCode::Other, failed),
        Err(_) => Err(Failure::other(format!("requests were cut off after {} s", STOP_TIME.as_secs()))),
    }
}

struct Service<P> {
    provider: Arc<P>,
    turns: Arc<Semaphore>,
}

impl<P: KeyProvider> Service<P> {
    /// The answer to a request that must be of one kind.
    async fn answer(
        &self,
        request: tonic::Request<Input>,
        is_right: fn(&Request) -> bool,
    ) -> Result<Response<Output>, Status> {
        let input = Zeroizing::new(request.into_inner().input);
        let request = Request::from_json(&input).or_fail(ExitCode::BadInput, cannot);
        let _turn = self.turns.acquire().await.map_err(|_| Status::unavailable("stopping"))?;
        let answered = async {
            let request = request?;
            if !is_right(&request) {
                return Err(Failure::bad_input("the message is one of the other call"));
            }
            answer(&*self.provider, request).await
        };
        let answer = answered.await.map_err(|failure| refusal(&failure))?;
        Ok(Response::new(Output { output: answer.to_json().as_bytes().to_vec() }))
    }
}

#[tonic::async_trait]
impl<P: KeyProvider> KeyProviderService for Service<P> {
    async fn wrap_key(&self, request: tonic::Request<Input>) -> Result<Response<Output>, Status> {
        self.answer(request, |request| matches!(request, Request::Wrap(_))).await
    }

    async fn un_wrap_key(&self, request: tonic::Request<Input>) -> Result<Response<Output>, Status> {
        self.answer(request, |request| matches!(request, Request::Unwrap(_))).await
    }
}

/// What a client shows of a failure: one line, like everything that tools print of a provider.
fn refusal(failure: &Failure) -> Status {
    let code = match failure.code {
        ExitCode::Usage | ExitCode::BadInput => Code::InvalidArgument,
        ExitCode::VerificationFailed => Code::FailedPrecondition,
        ExitCode::Denied | ExitCode::LeaseLost => Code::PermissionDenied,
        ExitCode::Unavailable => Code::Unavailable,
        _ => Code::Internal,
    };
    let mut line = failure.message.clone();
    for cause in &failure.causes {
        line.push_str(": ");
        line.push_str(cause);
    }
    if let Some(hint) = &failure.hint {
        line.push_str("; ");
        line.push_str(hint);
    }
    tracing::warn!("refused a request: {line}");
    Status::new(code, line)
}

#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
mod proto {
    tonic::include_proto!("keyprovider");
}

#[cfg(test)]
mod tests;
