//! The client of the service above the relay. It trusts the licence's certificate authority alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attestation_service::api::Delegation;
use command_line::{Answerer, ExitCode, Failure, FailureContext as _, LOOPBACK, local_name};
use held_lease::{BootTime, Refused};
use jose::jwe::{EphemeralKey, Jwe};
use launch_evidence::Attester;
use release_protocol::{
    AttestAnswer, Attestation, Challenge, Evidence, KBS_PREFIX, KBS_VERSION, LeaseId, LeaseNews, LicenseFile, Problem,
    RelayStatement, Request, ResourcePath, RuntimeData, Tee, TeePubKey, report_data,
};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use transparency_log::ConsistencyProof;
use url::Url;
use zeroize::Zeroizing;

/// The largest answer that is read but for a delegation, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// How often a request is made that is one too many for the service, as those of a relay with many keys may be.
const TRIES: u32 = 20;
/// How often one is made that the service cannot answer now. Whoever renews says in between that it goes on without it.
const TRIES_UNAVAILABLE: u32 = 3;
/// The longest pause that one request waits for. After a longer one that the service asks for it is given up; the next
/// request waits for what is left.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// The pause after a request too many where the service names none.
const PAUSE: Duration = Duration::from_secs(1);

/// The relay's conversation with the service above.
pub(super) struct Parent {
    http: reqwest::Client,
    license: LicenseFile,
    statement: RelayStatement,
    attester: Arc<dyn Attester>,
    key: EphemeralKey,
    /// Before then the service asked not to be asked.
    not_before: Mutex<Option<BootTime>>,
}

/// The answer to an attestation, and when it was asked for and had.
pub(super) struct Attested {
    pub(super) answer: AttestAnswer,
    /// When the evidence was sent.
    pub(super) asked: BootTime,
    pub(super) answered: BootTime,
}

impl Parent {
    /// The conversation of the relay that says this of itself, with this key.
    pub(super) fn new(
        license: LicenseFile,
        statement: RelayStatement,
        attester: Arc<dyn Attester>,
        key: EphemeralKey,
    ) -> Result<Self, Failure> {
        let service = &license.unverified().service;
        let authority = reqwest::Certificate::from_pem(service.ca_pem.as_bytes())
            .or_fail(ExitCode::BadInput, || "the licence's certificate authority is malformed".to_owned())?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true)
            .tls_certs_only([authority])
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .resolve_to_addrs(local_name(&service.url), &LOOPBACK)
            .build()
            .or_fail(ExitCode::Other, || "cannot set up the HTTPS client".to_owned())?;
        Ok(Self { http, license, statement, attester, key, not_before: Mutex::new(None) })
    }

    /// Whether its key is an earlier start's.
    pub(super) fn resumes(&self) -> bool {
        self.statement.resumes
    }

    pub(super) fn own_key(&self) -> &EphemeralKey {
        &self.key
    }

    pub(super) fn is_simulated(&self) -> bool {
        self.attester.is_simulated()
    }

    fn base(&self) -> &Url {
        &self.license.unverified().service.url
    }

    /// Proves what runs here and asks for the authority: a new lease, or the one that is held.
    pub(super) async fn attest(&self, lease: Option<&LeaseId>) -> Result<Attested, Failure> {
        let tee: Tee = self.attester.tee().parse().or_fail(ExitCode::Other, || "no TEE that is known".to_owned())?;
        let request = Request { version: KBS_VERSION.to_owned(), tee, extra_params: Value::String(String::new()) };
        let challenge: Challenge = self.document(self.request(Method::POST, "auth")?.json(&request)).await?;
        let public = serde_json::to_value(self.key.jwk()).and_then(serde_json::from_value::<TeePubKey>);
        let runtime_data = RuntimeData {
            nonce: challenge.nonce,
            tee_pubkey: public.or_fail(ExitCode::Other, || "cannot write the relay's public key".to_owned())?,
            license: Some(self.license.token().to_owned()),
            workload: None,
            lease: lease.cloned(),
            relay: Some(self.statement.clone()),
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
        self.pause().await;
        let asked = BootTime::now();
        let answer = self.document(self.request(Method::POST, "attest")?.json(&attestation)).await?;
        Ok(Attested { answer, asked, answered: BootTime::now() })
    }

    /// The proof that the service's log of `new` entries extends that of `old`.
    pub(super) async fn log_consistency(&self, old: u64, new: u64) -> Result<ConsistencyProof, Refused> {
        let request = self.request(Method::GET, &format!("log/consistency?old={old}&new={new}"))?;
        Ok(self.document(request).await?)
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

    /// Sends a request. One that the service cannot answer now is made again after the pause that it asks for.
    async fn send(&self, request: RequestBuilder, most: usize) -> Result<Vec<u8>, Failure> {
        let mut tries = 0;
        loop {
            self.pause().await;
            tries += 1;
            let answer = request_of(request.try_clone())?.send().await.map_err(|error| self.unreachable(&error))?;
            let (most_tries, pause) = match (answer.status(), retry_after(&answer)) {
                (StatusCode::TOO_MANY_REQUESTS, pause) => (TRIES, pause.unwrap_or(PAUSE)),
                (StatusCode::SERVICE_UNAVAILABLE, Some(pause)) => (TRIES_UNAVAILABLE, pause),
                _ => return self.body(answer, most).await,
            };
            *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(BootTime::now().plus(pause));
            if tries >= most_tries || pause > PAUSE_MAX {
                return self.body(answer, most).await;
            }
        }
    }

    /// Waits until the service may be asked.
    async fn pause(&self) {
        let not_before = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(not_before) = not_before {
            tokio::time::sleep(not_before.until()).await;
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

/// A key that nobody has seen.
pub(super) fn new_key() -> Result<EphemeralKey, Failure> {
    EphemeralKey::generate().or_fail(ExitCode::Other, || "cannot make the relay's key".to_owned())
}

/// The pause that an answer asks for, in seconds; services of ours name no date.
fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// None of our requests streams its body: each can be made again.
fn request_of(request: Option<RequestBuilder>) -> Result<RequestBuilder, Failure> {
    request.ok_or_else(|| Failure::other("a request cannot be made again"))
}
