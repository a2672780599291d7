//! How both programs answer ocicrypt's key provider protocol: once, on stdin and stdout, or for as long as they run, as a
//! gRPC server. Where keys come from is the programs'.
#![forbid(unsafe_code)]

mod address;
mod server;
mod socket;

use std::future::Future;
use std::io::Write as _;

use command_line::{ExitCode, Failure, FailureContext as _};
use ocicrypt::keyprovider::{Answer, OWN_PROVIDER, PROVIDER, Request, UnwrapRequest, WrapRequest};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::BrokerPacket;

pub use self::address::{ListenArgs, ParseAddressError, ServerAddress};
pub use self::server::serve;

/// What a program does with the requests of the protocol.
pub trait KeyProvider: Send + Sync + 'static {
    /// Wraps the key of a layer that was encrypted.
    fn wrap(&self, request: WrapRequest) -> impl Future<Output = Result<BrokerPacket, Failure>> + Send;

    /// Gives the key of a layer that is to be decrypted.
    fn unwrap(&self, request: UnwrapRequest) -> impl Future<Output = Result<PrivateOptions, Failure>> + Send;
}

/// Answers one request that another tool writes to stdin, on stdout: the protocol's `cmd` form.
///
/// # Errors
/// For what is no request, and for what the provider refuses.
pub async fn answer_once(provider: &impl KeyProvider) -> Result<(), Failure> {
    let request = Request::read(std::io::stdin()).or_fail(ExitCode::BadInput, cannot).map_err(|failure| {
        failure.hint(format!(
            "this program is run by skopeo, buildah or podman as the key provider `{OWN_PROVIDER}` or `{PROVIDER}`"
        ))
    })?;
    let answer = answer(provider, request).await?;
    std::io::stdout().write_all(answer.to_json().as_bytes()).or_fail(ExitCode::Other, || "cannot answer".to_owned())
}

async fn answer(provider: &impl KeyProvider, request: Request) -> Result<Answer, Failure> {
    match request {
        Request::Wrap(request) => provider.wrap(request).await.map(Answer::Wrapped),
        Request::Unwrap(request) => provider.unwrap(request).await.map(Answer::Unwrapped),
        _ => Err(Failure::bad_input(cannot())),
    }
}

fn cannot() -> String {
    "cannot answer the request".to_owned()
}
