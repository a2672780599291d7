//! The service's client: challenge, attestation, keys, renewal. Trusts the licence's certificate authority alone.

mod answer;

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use command_line::{Answerer, ExitCode, Failure, FailureContext as _, LOOPBACK, local_name};
use held_lease::BootTime;
pub(crate) use held_lease::Refused;
use jose::jwe::{EphemeralKey, Jwe};
use launch_evidence::Attester;
use ocicrypt::cipher::KeyEncryptionKey;
use release_protocol::{
    AttestAnswer, Attestation, Challenge, Evidence, InitData, KBS_PREFIX, KBS_VERSION, LeaseId, LeaseNews, LicenseFile,
    LogPlace, Request, ResourcePath, RuntimeData, Tee, TeePubKey, Workload, report_data,
};
use reqwest::StatusCode;
use reqwest::header::{COOKIE, HeaderValue, SET_COOKIE};
use serde_json::Value;
use transparency_log::ConsistencyProof;
use url::Url;
use zeroize::Zeroizing;

/// The longest initialisation data, in bytes.
const INIT_DATA_MAX: u64 = 256 * 1024;

/// One guest's conversation with its service.
pub(crate) struct ServiceClient {
    http: reqwest::Client,
    base: Url,
    /// What evidence states; none for a service that knows of no licences.
    license: Option<LicenseFile>,
    /// By whose word the service's certificate is believed, for a reader.
    authority: &'static str,
    init_data: Option<InitData>,
    key: EphemeralKey,
    /// Whether evidence asks for what the guest may do without the service.
    keeps_sealed: bool,
}

/// A challenge, and the session that its answer belongs to, where the service keeps sessions.
#[derive(Debug)]
pub(crate) struct Challenged {
    challenge: Challenge,
    session: Option<HeaderValue>,
}

/// The answer to an attestation, and when it was asked for and had.
pub(crate) struct Attested {
    pub(crate) answer: AttestAnswer,
    /// When the evidence was sent.
    pub(crate) asked: BootTime,
    pub(crate) answered: BootTime,
}

impl ServiceClient {
    /// A client for the service that the licence names, with a fresh ephemeral key.
    pub(crate) fn new(license: LicenseFile) -> Result<Self, Failure> {
        let service = &license.unverified().service;
        if service.url.scheme() != "https" {
            return Err(Failure::bad_input(format!("the licence's service `{}` is not https", service.url)));
        }
        let ca = reqwest::Certificate::from_pem(service.ca_pem.as_bytes())
            .or_fail(ExitCode::BadInput, || "the licence's certificate authority is malformed".to_owned())?;
        let client = Self::at(service.url.clone(), Some(ca), "the licence's authority")?;
        Ok(Self { license: Some(license), ..client })
    }

    /// A client that states no licence, with a fresh ephemeral key. Without an authority it speaks in the clear, which is the
    /// caller's to allow.
    pub(crate) fn at(
        base: Url,
        authority: Option<reqwest::Certificate>,
        authority_name: &'static str,
    ) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .https_only(authority.is_some())
            .tls_certs_only(authority)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .resolve_to_addrs(local_name(&base), &LOOPBACK)
            .build()
            .or_fail(ExitCode::Other, || "cannot set up the HTTPS client".to_owned())?;
        let key = EphemeralKey::generate().or_fail(ExitCode::Other, || "cannot make the guest's key".to_owned())?;
        Ok(Self { http, base, license: None, authority: authority_name, init_data: None, key, keeps_sealed: false })
    }

    /// The same, for a guest that was launched with these initialisation data.
    pub(crate) fn with_init_data(self, file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else { return Ok(self) };
        let cannot = || format!("cannot read the initialisation data `{}`", file.display());
        let mut body = String::new();
        let opened = std::fs::File::open(file).or_fail(ExitCode::BadInput, cannot)?;
        opened.take(INIT_DATA_MAX + 1).read_to_string(&mut body).or_fail(ExitCode::BadInput, cannot)?;
        if body.len() as u64 > INIT_DATA_MAX {
            return Err(Failure::bad_input(format!("`{}` has more than {INIT_DATA_MAX} bytes", file.display())));
        }
        let format = file.extension().and_then(|extension| extension.to_str()).unwrap_or("text").to_owned();
        Ok(Self { init_data: Some(InitData { format, body }), ..self })
    }

    /// The same, for a guest that goes on with a lease of this key.
    pub(crate) fn with_key(self, key: EphemeralKey) -> Self {
        Self { key, keeps_sealed: true, ..self }
    }

    /// The same, for a guest that keeps its keys sealed.
    pub(crate) fn keeping_sealed(self) -> Self {
        Self { keeps_sealed: true, ..self }
    }

    /// The guest's key.
    pub(crate) fn key(&self) -> &EphemeralKey {
        &self.key
    }

    /// Asks for a challenge, which evidence of this TEE is to answer.
    pub(crate) async fn challenge(&self, attester: &Arc<dyn Attester>) -> Result<Challenged, Refused> {
        let tee: Tee = attester
            .tee()
            .parse()
            .or_fail(ExitCode::Other, || format!("`{}` is no TEE that the protocol knows", attester.tee()))?;
        let request = Request { version: KBS_VERSION.to_owned(), tee, extra_params: Value::String(String::new()) };
        let answer = self.http.post(self.url("auth")?).json(&request).send().await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        let session = answer.headers().get(SET_COOKIE).and_then(session_of);
        let challenge = self.document(answer).await?;
        Ok(Challenged { challenge, session })
    }

    /// Attests in answer to a challenge, stating `workload`; `lease` renews one.
    pub(crate) async fn attest(
        &self,
        attester: &Arc<dyn Attester>,
        Challenged { challenge, session }: Challenged,
        workload: Option<&Workload>,
        lease: Option<&LeaseId>,
    ) -> Result<Attested, Refused> {
        let runtime_data = RuntimeData {
            nonce: challenge.nonce,
            tee_pubkey: self.public_key()?,
            license: self.license.as_ref().map(|license| license.token().to_owned()),
            workload: workload.cloned(),
            lease: lease.cloned(),
            relay: None,
            offline: self.keeps_sealed,
            renewal: None,
        };
        let attestation = self.evidence(attester, &runtime_data).await?;
        let asked = BootTime::now();
        let mut request = self.http.post(self.url("attest")?).json(&attestation);
        if let Some(session) = session {
            request = request.header(COOKIE, session);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let answer = self.document(answer).await?;
        Ok(Attested { answer, asked, answered: BootTime::now() })
    }

    /// Evidence over what the guest states.
    pub(crate) async fn evidence(
        &self,
        attester: &Arc<dyn Attester>,
        runtime_data: &RuntimeData,
    ) -> Result<Attestation, Failure> {
        let runtime_data =
            runtime_data.to_members().or_fail(ExitCode::Other, || "cannot write the runtime data".to_owned())?;
        let bound =
            report_data(&runtime_data, "").or_fail(ExitCode::Other, || "cannot bind the runtime data".to_owned())?;
        let attester = Arc::clone(attester);
        // The host may let the platform's answer wait: that must not hold up whoever watches the lease's end.
        let evidence = tokio::task::spawn_blocking(move || attester.evidence(&bound));
        let primary_evidence = evidence
            .await
            .or_fail(ExitCode::Other, || "cannot get launch evidence".to_owned())?
            .map_err(|error| crate::attester::failure(&error))?;
        // A service of ours reads the raw report, whose every byte the signature covers; others know the structure only.
        let primary_evidence =
            if self.license.is_some() { primary_evidence } else { launch_evidence::in_stock_form(primary_evidence) };
        Ok(Attestation {
            init_data: self.init_data.clone(),
            runtime_data,
            tee_evidence: Evidence { primary_evidence, additional_evidence: String::new() },
        })
    }

    /// Fetches a secret under the attestation's token.
    pub(crate) async fn fetch_secret(&self, token: &str, path: &ResourcePath) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let url = self.url(&format!("resource/{path}"))?;
        let answer = self.http.get(url).bearer_auth(token).send().await.map_err(|error| self.unreachable(&error))?;
        let bytes = self.body(answer).await?;
        let cannot = || format!("the service's answer for `{path}` does not open");
        let message = Jwe::parse(&bytes).or_fail(ExitCode::VerificationFailed, cannot)?;
        Ok(self.key.decrypt(&message).or_fail(ExitCode::VerificationFailed, cannot)?)
    }

    /// Fetches one image key under the attestation's token.
    pub(crate) async fn fetch_key(&self, token: &str, path: &ResourcePath) -> Result<KeyEncryptionKey, Refused> {
        let plain = self.fetch_secret(token, path).await?;
        Ok(KeyEncryptionKey::try_init(|key| {
            if plain.len() != key.len() {
                return Err(Failure::verification(format!("the key `{path}` has {} bytes, not 32", plain.len())));
            }
            key.copy_from_slice(&plain);
            Ok(())
        })?)
    }

    /// Gives the lease back; the workload has stopped.
    pub(crate) async fn end_lease(&self, token: &str) -> Result<(), Refused> {
        let url = self.url("lease/end")?;
        let answer = self.http.post(url).bearer_auth(token).send().await.map_err(|error| self.unreachable(&error))?;
        self.body(answer).await.map(drop)
    }

    /// Waits for news of the lease. The service holds the request for a while and then says that there are none.
    pub(crate) async fn watch(&self, token: &str, since: Option<u64>) -> Result<LeaseNews, Refused> {
        let mut url = self.url("lease/watch")?;
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("since", &since.to_string());
        }
        let answer = self.http.get(url).bearer_auth(token).send().await.map_err(|error| self.unreachable(&error))?;
        let bytes = self.body(answer).await?;
        Ok(serde_json::from_slice(&bytes)
            .or_fail(ExitCode::VerificationFailed, || "the service's news of the lease cannot be read".to_owned())?)
    }

    /// The proof that the service's log of `new` entries extends that of `old`.
    pub(crate) async fn log_consistency(&self, old: u64, new: u64) -> Result<ConsistencyProof, Refused> {
        let mut url = self.url("log/consistency")?;
        url.query_pairs_mut().append_pair("old", &old.to_string()).append_pair("new", &new.to_string());
        let answer = self.http.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        let bytes = self.body(answer).await?;
        Ok(serde_json::from_slice(&bytes)
            .or_fail(ExitCode::VerificationFailed, || "the service's proof of its log cannot be read".to_owned())?)
    }

    /// Where a leaf stands in the newest checkpoint that witnesses cosigned.
    pub(crate) async fn witnessed_place(&self, index: u64) -> Result<LogPlace, Refused> {
        let mut url = self.url("log/witnessed")?;
        url.query_pairs_mut().append_pair("index", &index.to_string());
        let answer = self.http.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status() == StatusCode::NOT_FOUND {
            let failure = Failure::unavailable("no witness has cosigned the service's log that far yet")
                .from_answerer(Answerer::Service)
                .hint("try again later; if it stays so, ask the vendor whether its log has witnesses");
            return Err(Refused::Final(failure));
        }
        let bytes = self.body(answer).await?;
        Ok(serde_json::from_slice(&bytes)
            .or_fail(ExitCode::VerificationFailed, || "the service's proof of its log cannot be read".to_owned())?)
    }

    /// Whether the service answers, and accepts simulated platforms.
    pub(crate) async fn health(&self) -> Result<bool, Refused> {
        let url = self
            .base
            .join("/healthz")
            .or_fail(ExitCode::BadInput, || format!("`{}` is no address of a service", self.base))?;
        let answer = self.http.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        let bytes = self.body(answer).await?;
        let health: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(health["simulated_platforms_allowed"].as_bool().unwrap_or(false))
    }

    /// The guest's key as evidence states it.
    pub(crate) fn public_key(&self) -> Result<TeePubKey, Failure> {
        serde_json::to_value(self.key.jwk())
            .and_then(serde_json::from_value)
            .or_fail(ExitCode::Other, || "cannot write the guest's public key".to_owned())
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        self.base
            .join(&format!("{KBS_PREFIX}/{path}"))
            .or_fail(ExitCode::BadInput, || format!("`{}` is no address of a service", self.base))
    }
}

/// The name and value of a cookie, without what a browser is told about it.
fn session_of(cookie: &HeaderValue) -> Option<HeaderValue> {
    let pair = cookie.as_bytes().split(|byte| *byte == b';').next()?;
    let mut session = HeaderValue::from_bytes(pair).ok()?;
    session.set_sensitive(true);
    Some(session)
}
