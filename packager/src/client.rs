//! The admin API's client: HTTPS to the vendor's own service, trusting the home's certificate authority alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation_service::ServiceSettings;
use attestation_service::api::API_PREFIX;
use command_line::{Answerer, ExitCode, Failure, FailureContext as _, LOOPBACK, local_name};
use release_protocol::Problem;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use crate::home::VendorHome;

/// Whether the home's service says that it can do its work.
pub(crate) async fn is_ready(home: &VendorHome) -> bool {
    let Ok((http, base, _)) = reach(home) else { return false };
    let Ok(url) = base.join("/readyz") else { return false };
    let asked = http.get(url).timeout(READY_TIMEOUT).send().await;
    asked.is_ok_and(|answer| answer.status().is_success())
}

/// How the home's service is reached: by which client, where from here, and where by customers.
fn reach(home: &VendorHome) -> Result<(reqwest::Client, Url, Url), Failure> {
    let ServiceSettings { url: public, admin_url, .. } = home.settings()?.service;
    let base = admin_url.unwrap_or_else(|| public.clone());
    let ca_path = home.service().ca_path();
    let ca = std::fs::read(&ca_path)
        .or_fail(ExitCode::BadInput, || format!("cannot read the certificate authority `{}`", ca_path.display()))?;
    let ca = reqwest::Certificate::from_pem(&ca)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no certificate", ca_path.display()))?;
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([ca])
        .https_only(true)
        .timeout(Duration::from_mins(1))
        .resolve_to_addrs(local_name(&base), &LOOPBACK)
        .build()
        .or_fail(ExitCode::Other, || "cannot set up the HTTPS client".to_owned())?;
    Ok((http, base, public))
}

/// How long a service may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// A client with the home's admin token.
pub(crate) struct AdminClient {
    http: reqwest::Client,
    base: Url,
    /// How customers reach the service.
    public: Url,
    token: Zeroizing<String>,
}

impl AdminClient {
    /// A client for the home's service. `SEALIFT_TOKEN_FILE` names another token than the home's.
    pub(crate) fn new(home: &VendorHome) -> Result<Self, Failure> {
        let token = std::env::var_os("SEALIFT_TOKEN_FILE").map_or_else(|| home.admin_token_path(), PathBuf::from);
        Self::with_token(home, &token)
    }

    /// A client for the home's service, with the token in this file.
    pub(crate) fn with_token(home: &VendorHome, token_path: &Path) -> Result<Self, Failure> {
        let (http, base, public) = reach(home)?;
        let token = std::fs::read_to_string(token_path)
            .map(Zeroizing::new)
            .or_fail(ExitCode::BadInput, || format!("cannot read the API token `{}`", token_path.display()))?;
        Ok(Self { http, base, public, token: Zeroizing::new(token.trim().to_owned()) })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.parse(&self.send(Method::GET, path, None).await?)
    }

    pub(crate) async fn get_bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn get_text(&self, path: &str) -> Result<String, Failure> {
        let bytes = self.get_bytes(path).await?;
        String::from_utf8(bytes).or_fail(ExitCode::Other, || self.unreadable())
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).or_fail(ExitCode::Other, || "cannot write the request".to_owned())?;
        self.parse(&self.send(Method::POST, path, Some(body)).await?)
    }

    /// Posts a document whose answer is empty.
    pub(crate) async fn submit(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).or_fail(ExitCode::Other, || "cannot write the request".to_owned())?;
        self.send(Method::POST, path, Some(body)).await.map(drop)
    }

    pub(crate) async fn put_text(&self, path: &str, text: String) -> Result<(), Failure> {
        self.send(Method::PUT, path, Some(text.into_bytes())).await.map(drop)
    }

    /// Puts a secret's bytes. The request's copies are the HTTP client's.
    pub(crate) async fn put_secret(&self, path: &str, secret: &[u8]) -> Result<(), Failure> {
        self.send(Method::PUT, path, Some(secret.to_vec())).await.map(drop)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    /// `kbs://HOST:PORT` of the service, for key ids.
    pub(crate) fn key_authority(&self) -> Result<String, Failure> {
        let host =
            self.public.host_str().ok_or_else(|| Failure::bad_input(format!("`{}` names no host", self.public)))?;
        Ok(match self.public.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, Failure> {
        let url = self
            .base
            .join(&format!("{API_PREFIX}{path}"))
            .or_fail(ExitCode::Usage, || format!("`{path}` is no path of the service"))?;
        let mut request = self.http.request(method, url).bearer_auth(self.token.as_str());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        if status.is_success() { Ok(bytes) } else { Err(Self::refused(status, &bytes)) }
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes).or_fail(ExitCode::Other, || self.unreadable())
    }

    fn unreadable(&self) -> String {
        format!("the answer of the service at `{}` cannot be read", self.base)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::unavailable(format!("the service at `{}` does not answer", self.base))
            .caused_by(error)
            .hint("start it with `sealift serve`, or check `url` in the settings")
    }

    fn refused(status: StatusCode, bytes: &[u8]) -> Failure {
        let problem: Option<Problem> = serde_json::from_slice(bytes).ok();
        let detail = problem.map_or_else(|| format!("HTTP status {status}"), |problem| problem.detail);
        let (code, hint) = match status {
            StatusCode::UNAUTHORIZED => {
                (ExitCode::Denied, Some("the token in `admin.token` (or `SEALIFT_TOKEN_FILE`) is not accepted"))
            }
            StatusCode::FORBIDDEN => {
                (ExitCode::Denied, Some("`SEALIFT_TOKEN_FILE` names the file of another token than `admin.token`"))
            }
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::CONFLICT => (ExitCode::BadInput, None),
            status if status.is_server_error() => {
                (ExitCode::Unavailable, Some("try again; the service's log says more"))
            }
            _ => (ExitCode::Other, None),
        };
        let failure = Failure::new(code, detail).from_answerer(Answerer::Service);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
