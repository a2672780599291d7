//! The client of the service above the relay. It trusts the licence's certificate authority alone.

use std::sync::Arc;
use std::time::Duration;

use attestation_service::api::Delegation;
use command_line::{Answerer, ExitCode, Failure, FailureContext as _, LOOPBACK, local_name};
use jose::jwe::{EphemeralKey, Jwe};
use launch_evidence::Attester;
use release_protocol::{
    AttestAnswer, Attestation, Challenge, Evidence, KBS_PREFIX, KBS_VERSION, LeaseNews, LicenseFile, Problem,
    RelayStatement, Request, ResourcePath, RuntimeData, Tee, TeePubKey, report_data,
};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

/// The largest answer that is read but for a delegation, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// How often a request is made that is one too many for the service, and how long it is waited in between at the most.
const TRIES: u32 = 20;
const RETRY_MAX: u64 = 10;

/// The relay's conversation with the service above. Its key is new with each start of the relay.
pub(super) struct Parent {
    http: reqwest::Client,
    license: LicenseFile,
    own_url: Url,
    attester: Arc<dyn Attester>,
    key: EphemeralKey,
}

impl Parent {
    pub(super) fn new(license: LicenseFile, own_url: Url, attester: Arc<dyn Attester>) -> Result<Self, Failure> {
        let service = &license.unverified().service;
        let authority = reqwest::Certificate::from_pem(service.ca_pem.as_bytes())
            .or_fail(ExitCode::BadInput, || "the licence's certificate authority is malformed".to_owned())?;
        let http = reqwest::Client::builder()
            .https_only(true)
            .tls_certs_only([authority])
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .resolve_to_addrs(local_name(&service.url), &LOOPBACK)
            .build()
            .or_fail(ExitCode::Other, || "cannot set up the HTTPS client".to_owned())?;
        let key = EphemeralKey::generate().or_fail(ExitCode::Other, || "cannot make the relay's key".to_owned())?;
        Ok(Self { http, license, own_url, attester, key })
    }

    fn base(&self) -> &Url {
        &self.license.unverified().service.url
    }

    /// Proves what runs here and asks for the authority: a new lease, or with `renews` the one that is held.
    pub(super) async fn attest(&self, renews: bool) -> Result<AttestAnswer, Failure> {
        let tee: Tee = self.attester.tee().parse().or_fail(ExitCode::Other, || "no TEE that is known".to_owned())?;
        let request = Request { version: KBS_VERSION.to_owned(), tee, extra_params: Value::String(String::new()) };
        let challenge: Challenge = self.document(self.request(Method::POST, "auth")?.json(&request)).await?;
        let public = serde_json::to_value(self.key.jwk()).and_then(serde_json::from_value::<TeePubKey>);
        let runtime_data = RuntimeData {
            nonce: challenge.nonce,
            tee_pubkey: public.or_fail(ExitCode::Other, || "cannot write the relay's public key".to_owned())?,
            license: Some(self.license.token().to_owned()),
            workload: None,
            lease: renews.then(|| release_protocol::LeaseId(self.key.thumbprint())),
            relay: Some(RelayStatement { url: self.own_url.clone() }),
            offline: false,
            renewal: None,
        };
        let runtime_data =
            runtime_data.to_members().or_fail(ExitCode::Other, || "cannot write the runtime data".to_owned())?;
        let bound =
            report_data(&runtime_data, "").or_fail(ExitCode::Other, || "cannot bind the runtime data".to_owned())?;
        let attester = Arc::clone(&self.attester);
        // The host may let the platform's answer wait.
        let evidence = tokio::task::spawn_blocking(move || attester.evidence(&bound)).await;
        let primary_evidence = evidence
            .or_fail(ExitCode::Other, || "cannot get launch evidence".to_owned())?
            .map_err(|error| super::attester::failure(&error))?;
        let tee_evidence = Evidence { primary_evidence, additional_evidence: String::new() };
        let attestation = Attestation { init_data: None, runtime_data, tee_evidence };
        self.document(self.request(Method::POST, "attest")?.json(&attestation)).await
    }

    /// What may be handed on.
    pub(super) async fn delegation(&self, token: &str) -> Result<Delegation, Failure> {
        let request = self.request(Method::GET, "delegation")?.bearer_auth(token);
        self.parse(&self.send(request, Delegation::MAX_LEN).await?)
    }

    /// One image key.
    pub(super) async fn key(&self, token: &str, path: &ResourcePath) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let request = self.request(Method::GET, &format!("resource/{path}"))?.bearer_auth(token);
        let bytes = self.send(request, ANSWER_MAX).await?;
        let cannot = || format!("the service's answer for `{path}` does not open");
        let message = Jwe::parse(&bytes).or_fail(ExitCode::VerificationFailed, cannot)?;
        let key = self.key.decrypt(&message).or_fail(ExitCode::VerificationFailed, cannot)?;
        if key.len() != 32 {
            return Err(Failure::verification(format!("the key `{path}` has {} bytes, not 32", key.len())));
        }
        Ok(key)
    }

    /// Waits for news of the lease; after a while the service says that there are none.
    pub(super) async fn watch(&self, token: &str, since: Option<u64>) -> Result<LeaseNews, Failure> {
        let path = since.map_or_else(|| "lease/watch".to_owned(), |since| format!("lease/watch?since={since}"));
        self.document(self.request(Method::GET, &path)?.bearer_auth(token)).await
    }

    /// Gives the lease back.
    pub(super) async fn end_lease(&self, token: &str) -> Result<(), Failure> {
        let request = self.request(Method::POST, "lease/end")?.bearer_auth(token);
        self.send(request, ANSWER_MAX).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let url = self.base().join(&format!("{KBS_PREFIX}/{path}"));
        let url = url.or_fail(ExitCode::BadInput, || format!("`{}` is no address of a service", self.base()))?;
        Ok(self.http.request(method, url))
    }

    async fn document<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        self.parse(&self.send(request, ANSWER_MAX).await?)
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes).or_fail(ExitCode::VerificationFailed, || {
            format!("the answer of the service at `{}` cannot be used", self.base())
        })
    }

    /// Sends a request; one that comes too fast for the service, as a relay with many keys makes them, later again.
    async fn send(&self, request: RequestBuilder, most: usize) -> Result<Vec<u8>, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let again = request.try_clone();
            let answer = request_of(again)?.send().await.map_err(|error| self.unreachable(&error))?;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS && tries < TRIES {
                let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
                tokio::time::sleep(Duration::from_secs(after.unwrap_or(1).min(RETRY_MAX))).await;
                continue;
            }
            return self.body(answer, most).await;
        }
    }

    async fn body(&self, mut answer: Response, most: usize) -> Result<Vec<u8>, Failure> {
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > most {
                return Err(Failure::verification(format!("the service at `{}` answers too much", self.base())));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() { Ok(bytes) } else { Err(self.refused(status, &bytes)) }
    }

    fn refused(&self, status: StatusCode, bytes: &[u8]) -> Failure {
        let problem: Option<Problem> = serde_json::from_slice(bytes).ok();
        let code = problem.as_ref().and_then(Problem::code).unwrap_or_default().to_owned();
        let failure = match status {
            _ if code == "evidence-rejected" => {
                Failure::verification("the vendor's service does not accept this machine's launch evidence")
                    .hint("ask the vendor which platforms, firmware and TCB it accepts")
            }
            StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
                Failure::denied("the vendor's service delegates nothing to this relay")
                    .hint("the reasons above say what to ask the vendor for")
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Failure::unavailable(format!("the service at `{}` cannot answer now", self.base()))
                    .hint("try again later")
            }
            _ => Failure::other(format!("the service at `{}` refuses", self.base())),
        };
        let detail = problem.as_ref().map_or_else(|| format!("HTTP status {status}"), |problem| problem.detail.clone());
        let reasons = problem.map(|problem| problem.reasons).unwrap_or_default();
        let causes = if reasons.is_empty() { vec![detail] } else { reasons };
        causes.into_iter().fold(failure, Failure::cause).from_answerer(Answerer::Service)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::unavailable(format!("the service at `{}` does not answer", self.base()))
            .caused_by(error)
            .hint("check the network between the relay and the vendor's service, then try again")
    }
}

/// None of our requests streams its body: each can be made again.
fn request_of(request: Option<RequestBuilder>) -> Result<RequestBuilder, Failure> {
    request.ok_or_else(|| Failure::other("a request cannot be made again"))
}
