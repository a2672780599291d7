//! Registries: the OCI distribution protocol over HTTP.
//!
//! [distribution-spec v1.1]: <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md>
//!
//! `oci-client` (see [`authentication`]) gets tokens. The requests are our own over the same TLS settings, because they
//! need what it does not offer: systems without root certificates, bounded bodies, statuses and `Retry-After`, reads that
//! go on after a break, and uploads whose digest is known at their end. ARCHITECTURE.md says it for each.

mod authentication;
mod challenge;
mod pull;
mod push;
mod retry;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

pub(crate) use self::authentication::Access;
use self::authentication::Authenticator;
pub(crate) use self::pull::{download, download_range};
pub(crate) use self::push::{SubjectNoted, UploadSink};
use crate::digest::Digest;
use crate::error::{Corruption, Error, Unavailability};
use crate::local::blocking;
use crate::manifest::{ManifestError, RawManifest};
use crate::options::{RetryPolicy, StoreOptions};
use crate::reference::RegistryReference;
use crate::{limits, media_type};

/// One repository of a registry.
#[derive(Debug)]
pub(crate) struct Registry {
    reference: RegistryReference,
    /// `scheme://host/v2/repository/`
    base: Url,
    name: String,
    http: Client,
    authenticator: Authenticator,
    retry: RetryPolicy,
    idle_timeout: Duration,
}

/// What a request is for, for error messages.
#[derive(Clone, Debug)]
struct Purpose {
    /// `read blob sha256:…`
    action: String,
    /// What a 404 means: `blob sha256:…`
    object: String,
}

impl Registry {
    pub(crate) async fn open(
        reference: &RegistryReference,
        access: Access,
        options: &StoreOptions,
    ) -> Result<Self, Error> {
        let roots = transport::extra_roots(options)?;
        let http = transport::client(reference, &roots, options)?;
        let scheme = transport::scheme(reference, &http, options).await;
        let host = match reference.host() {
            // The name of the hub is not the name of its registry.
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let name = format!("docker://{reference}");
        let base = format!("{scheme}://{host}/v2/{}/", reference.repository());
        let base = base.parse().map_err(|_| {
            Error::corrupt("reference", &*name, Corruption::Protocol { problem: "it makes no URL".to_owned() })
        })?;
        let authenticator = Authenticator::new(reference, access, scheme, http.clone(), &roots, options);
        let (retry, idle_timeout) = (options.retry, options.idle_timeout);
        Ok(Self { reference: reference.clone(), base, name, http, authenticator, retry, idle_timeout })
    }

    pub(crate) fn reference(&self) -> &RegistryReference {
        &self.reference
    }

    /// The manifest with a digest.
    pub(crate) async fn manifest(&self, digest: &Digest) -> Result<RawManifest, Error> {
        let raw = self.read_manifest(&digest.to_string(), &format!("manifest {digest}")).await?;
        if raw.digest == *digest {
            return Ok(raw);
        }
        let source = Corruption::Digest { found: raw.digest, wanted: *digest };
        Err(Error::corrupt(format!("manifest {digest}"), &*self.name, source))
    }

    /// The manifest with a tag.
    pub(crate) async fn tagged(&self, tag: &str) -> Result<RawManifest, Error> {
        self.read_manifest(tag, &format!("tag {tag}")).await
    }

    /// The registry's list of what refers to a manifest; none where it keeps no such lists.
    pub(crate) async fn referrers(&self, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let purpose = Purpose::read(&format!("referrers of {digest}"));
        let url = self.url(&format!("referrers/{digest}"), &purpose)?;
        let mut failures = 0;
        loop {
            let response = self
                .send(&purpose, || self.http.request(Method::GET, url.clone()).header(ACCEPT, media_type::OCI_INDEX))
                .await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.fail(&purpose, response).await),
            }
            match read_limited(response, limits::MANIFEST_BYTES + 1, self.idle_timeout).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(source) => self.pause(&purpose, &mut failures, source, None).await?,
            }
        }
    }

    async fn read_manifest(&self, name: &str, object: &str) -> Result<RawManifest, Error> {
        let purpose = Purpose::read(object);
        let url = self.url(&format!("manifests/{name}"), &purpose)?;
        let mut failures = 0;
        let (headers, bytes) = loop {
            let accepted = media_type::ACCEPTED.join(", ");
            let response =
                self.send(&purpose, || self.http.request(Method::GET, url.clone()).header(ACCEPT, &accepted)).await?;
            if response.status() != StatusCode::OK {
                return Err(self.fail(&purpose, response).await);
            }
            let headers = response.headers().clone();
            match read_limited(response, limits::MANIFEST_BYTES + 1, self.idle_timeout).await {
                Ok(bytes) => break (headers, bytes),
                Err(source) => self.pause(&purpose, &mut failures, source, None).await?,
            }
        };
        let (object, store) = (object.to_owned(), self.name.clone());
        blocking(move || judge(&headers, bytes, &object, &store)).await
    }

    /// Sends a request that may be repeated: shows credentials when asked, waits and tries again while the failure may
    /// pass. Any other answer is the caller's to judge.
    async fn send(&self, purpose: &Purpose, build: impl Fn() -> RequestBuilder) -> Result<Response, Error> {
        self.send_within(self.idle_timeout, purpose, build).await
    }

    /// [`Registry::send`] for answers that take their time.
    async fn send_within(
        &self,
        patience: Duration,
        purpose: &Purpose,
        build: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut failures = 0;
        let mut has_answered = false;
        loop {
            let (request, version) = self.authorized(build()).await;
            let response = match tokio::time::timeout(patience, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    let is_final = transport::is_bad_certificate(&error);
                    let source = Unavailability::Connection(Box::new(error.without_url()));
                    if is_final {
                        return Err(self.unavailable(purpose, source));
                    }
                    self.pause(purpose, &mut failures, source, None).await?;
                    continue;
                }
                Err(_) => {
                    let source = Unavailability::Timeout { seconds: patience.as_secs() };
                    self.pause(purpose, &mut failures, source, None).await?;
                    continue;
                }
            };
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !has_answered {
                match self.authenticator.answer(response.headers(), version).await {
                    Ok(true) => {
                        has_answered = true;
                        continue;
                    }
                    Ok(false) => return Ok(response),
                    Err(Error::Unavailable { source, .. }) => {
                        self.pause(purpose, &mut failures, source, None).await?;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            if !retry::is_passing(status) {
                return Ok(response);
            }
            let asked = retry::asked(response.headers());
            let source = Unavailability::Status { status: status.as_u16() };
            self.pause(purpose, &mut failures, source, asked).await?;
        }
    }

    /// Adds credentials to a request when it goes to the registry itself: an upload's or redirect's other host never sees
    /// them.
    async fn authorized(&self, request: RequestBuilder) -> (RequestBuilder, u64) {
        let goes_home = request
            .try_clone()
            .and_then(|request| request.build().ok())
            .is_some_and(|request| request.url().origin() == self.base.origin());
        if goes_home { self.authenticator.apply(request).await } else { (request, 0) }
    }

    /// Counts a failure and waits; gives the failure back when the tries are used up.
    async fn pause(
        &self,
        purpose: &Purpose,
        failures: &mut u32,
        source: Unavailability,
        asked: Option<Duration>,
    ) -> Result<(), Error> {
        *failures += 1;
        if *failures >= self.retry.attempts {
            return Err(self.unavailable(purpose, source));
        }
        let delay = retry::delay(&self.retry, *failures, asked);
        tracing::debug!(store = %self.name, action = purpose.action, cause = %source, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// The error for an answer that was no success.
    async fn fail(&self, purpose: &Purpose, response: Response) -> Error {
        let status = response.status();
        let body = read_limited(response, REMARK_BYTES, self.idle_timeout).await.unwrap_or_default();
        let (store, action, detail) = (self.name.clone(), purpose.action.clone(), remark_of(&body));
        match status.as_u16() {
            404 => Error::NotFound { object: purpose.object.clone(), store },
            status @ (401 | 403) => Error::Denied { store, action, status, detail },
            status if retry::is_passing(StatusCode::from_u16(status).unwrap_or_default()) => {
                self.unavailable(purpose, Unavailability::Status { status })
            }
            status => Error::Refused { store, action, status, detail },
        }
    }

    fn url(&self, path: &str, purpose: &Purpose) -> Result<Url, Error> {
        self.base.join(path).map_err(|_| self.protocol(purpose, "no URL can be made"))
    }

    fn protocol(&self, purpose: &Purpose, problem: &str) -> Error {
        let source = Corruption::Protocol { problem: problem.to_owned() };
        Error::corrupt(purpose.object.as_str(), &*self.name, source)
    }

    fn unavailable(&self, purpose: &Purpose, source: Unavailability) -> Error {
        Error::Unavailable { store: self.name.clone(), action: purpose.action.clone(), source }
    }

    fn timeout(&self) -> Unavailability {
        Unavailability::Timeout { seconds: self.idle_timeout.as_secs() }
    }
}

impl Purpose {
    fn read(object: &str) -> Self {
        Self { action: format!("read {object}"), object: object.to_owned() }
    }

    fn write(object: &str) -> Self {
        Self { action: format!("write {object}"), object: object.to_owned() }
    }
}

/// Checks a manifest against its limit, its digest and its announced type. Hashes, so it is for a blocking thread.
fn judge(headers: &HeaderMap, bytes: Bytes, object: &str, store: &str) -> Result<RawManifest, Error> {
    let corrupt = |source: Corruption| Error::corrupt(object, store, source);
    if bytes.len() > limits::MANIFEST_BYTES {
        return Err(corrupt(ManifestError::Size { found: bytes.len() }.into()));
    }
    if let Some(wanted) = digest_header(headers) {
        let found = Digest::of(&bytes);
        if found != wanted {
            return Err(corrupt(Corruption::Digest { found, wanted }));
        }
    }
    let announced = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let announced = announced.map(|value| value.split(';').next().unwrap_or(value).trim());
    RawManifest::new(bytes, announced).map_err(|error| corrupt(error.into()))
}

/// Reads a body, at most `limit` bytes of it.
async fn read_limited(mut response: Response, limit: usize, idle: Duration) -> Result<Bytes, Unavailability> {
    let mut body = BytesMut::new();
    loop {
        match tokio::time::timeout(idle, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = limit.saturating_sub(body.len());
                body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if chunk.len() >= room {
                    return Ok(body.freeze());
                }
            }
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(error)) => return Err(Unavailability::Connection(Box::new(error.without_url()))),
            Err(_) => return Err(Unavailability::Timeout { seconds: idle.as_secs() }),
        }
    }
}

/// A registry's own words about an error, fit for a terminal: `errors[0].message` where the body is the specified JSON.
fn remark_of(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["errors"][0]["message"].as_str().filter(|message| !message.is_empty());
    let message = message.or_else(|| json["errors"][0]["code"].as_str()).or_else(|| json["details"].as_str());
    let text = message.map_or_else(
        // Pages of HTML help nobody.
        || if body.starts_with(b"<") { String::new() } else { String::from_utf8_lossy(body).into_owned() },
        str::to_owned,
    );
    text.trim().chars().filter(|character| !character.is_control()).take(REMARK_CHARACTERS).collect()
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// A shared registry, as streams and writers hold it.
type Shared = Arc<Registry>;

const REMARK_BYTES: usize = 64 * 1024;
const REMARK_CHARACTERS: usize = 200;
