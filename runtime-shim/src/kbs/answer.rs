//! The service's answers: read up to a bound, and what a refusal or silence means to whoever asked.

use std::error::Error;

use command_line::{Answerer, ExitCode, Failure, FailureContext as _};
use release_protocol::Problem;
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use super::{Refused, ServiceClient};

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;

impl ServiceClient {
    pub(super) async fn document<T: DeserializeOwned>(&self, answer: Response) -> Result<T, Refused> {
        let bytes = self.body(answer).await?;
        Ok(serde_json::from_slice(&bytes).or_fail(ExitCode::VerificationFailed, || {
            format!("the answer of the service at `{}` cannot be used", self.base)
        })?)
    }

    pub(super) async fn body(&self, mut answer: Response) -> Result<Vec<u8>, Refused> {
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(
                    Failure::verification(format!("the answer of the service at `{}` is too long", self.base)).into()
                );
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() { Ok(bytes) } else { Err(self.refused(status, &bytes).into()) }
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> Failure {
        let problem: Option<Problem> = serde_json::from_slice(bytes).ok();
        let code = problem.as_ref().and_then(Problem::code).unwrap_or_default().to_owned();
        let entry = problem.as_ref().and_then(|problem| problem.entry);
        let detail = problem.as_ref().map_or_else(|| format!("HTTP status {status}"), |problem| problem.detail.clone());
        let mut failure = match (status, code.as_str()) {
            (_, "evidence-rejected") => {
                Failure::verification("the service does not accept this machine's launch evidence")
                    .hint("ask the vendor which platforms, firmware and TCB it accepts")
            }
            (_, "seats-exhausted") => Failure::denied("all seats of the licence are taken")
                .hint("stop another instance, or ask the vendor for more seats"),
            (StatusCode::UNAUTHORIZED, _) if self.license.is_none() => {
                Failure::denied("the service does not give what it is asked for")
                    .hint("see that the resource is there and that the service's policies allow it to this guest")
            }
            (StatusCode::UNAUTHORIZED, _) => Failure::verification("the service wants a fresh attestation"),
            (StatusCode::FORBIDDEN, _) => Failure::denied("the service denies the release")
                .hint("the reasons above say what to ask the vendor for"),
            (StatusCode::NOT_FOUND, _) => Failure::denied(
                "the service does not know the key or secret that it is asked for",
            )
            .hint("ask the vendor whether the image was packed for this service, and what its secrets are called"),
            (StatusCode::BAD_REQUEST, _) => Failure::other("the service cannot read this shim's request")
                .hint("shim and service may be of different versions"),
            (status, _) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Failure::unavailable(format!("the service at `{}` cannot answer now", self.base))
                    .hint("try again later")
            }
            _ => Failure::other(format!("the service at `{}` refuses", self.base)),
        };
        let reasons = problem.map(|problem| problem.reasons).unwrap_or_default();
        failure.causes = if reasons.is_empty() { vec![detail] } else { reasons };
        if let (Some(entry), Some(hint)) = (entry, failure.hint.take()) {
            failure.hint = Some(format!("{hint}; it is audit entry {entry} there"));
        }
        failure.from_answerer(Answerer::Service)
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> Refused {
        if is_untrusted(error) {
            let failure = Failure::verification(format!(
                "the service at `{}` shows a certificate that {} did not issue",
                self.base, self.authority
            ))
            .caused_by(error)
            .hint(
                "somebody may stand between this machine and the vendor; ask the vendor whether its authority changed",
            );
            return Refused::Final(failure);
        }
        let failure = Failure::unavailable(format!("the service at `{}` does not answer", self.base))
            .caused_by(error)
            .hint("check the network between this machine and the vendor's service, then try again");
        Refused::Unavailable(failure)
    }
}

/// Whether a certificate was refused, anywhere below `error`.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An io::Error hides what it wraps from `source`.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
