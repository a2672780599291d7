//! Showing credentials to a registry, only when it asks and only to whom they belong.
//!
//! `oci-client` speaks the token protocol for anonymous users and passwords. What it lacks is done here: identity tokens
//! (an OAuth 2 refresh grant), the status of a token service that refuses, and systems without root certificates, where
//! its constructor panics.

use std::time::Duration;

use oci_distribution::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_distribution::errors::OciDistributionError;
use oci_distribution::secrets::RegistryAuth;
use oci_distribution::{Reference, RegistryOperation};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::challenge::Challenge;
use super::{read_limited, remark_of, transport};
use crate::credential::{AuthFiles, Credential, Secret};
use crate::error::{Corruption, Error, Unavailability};
use crate::local::blocking;
use crate::options::StoreOptions;
use crate::reference::RegistryReference;

/// What the registry is used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Holds credentials and the tokens got for them.
pub(super) struct Authenticator {
    reference: RegistryReference,
    access: Access,
    scheme: &'static str,
    http: Client,
    /// Made when the first token is wanted; none where it cannot be.
    token_client: OnceCell<Option<oci_distribution::Client>>,
    roots: Vec<CertificateDer<'static>>,
    user_agent: &'static str,
    files: AuthFiles,
    credential: OnceCell<Credential>,
    /// The value of `Authorization`, once one is wanted, and how often it changed.
    header: Mutex<(u64, Option<HeaderValue>)>,
    timeout: Duration,
}

/// The answer of a token service.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Authenticator {
    pub(super) fn new(
        reference: &RegistryReference,
        access: Access,
        scheme: &'static str,
        http: Client,
        roots: &[CertificateDer<'static>],
        options: &StoreOptions,
    ) -> Self {
        Self {
            reference: reference.clone(),
            access,
            scheme,
            http,
            token_client: OnceCell::new(),
            roots: roots.to_vec(),
            user_agent: options.user_agent,
            files: AuthFiles::new(options.auth_file.as_deref(), |name| std::env::var_os(name)),
            credential: OnceCell::new(),
            header: Mutex::new((0, None)),
            timeout: options.idle_timeout,
        }
    }

    /// Adds `Authorization` to a request that goes to the registry itself. Returns which version of it was used.
    pub(super) async fn apply(&self, request: RequestBuilder) -> (RequestBuilder, u64) {
        let (version, header) = &*self.header.lock().await;
        match header {
            Some(header) => (request.header(AUTHORIZATION, header.clone()), *version),
            None => (request, *version),
        }
    }

    /// Answers a 401 to a request that was sent with the given version. `Ok(false)` when there is nothing (more) to show.
    pub(super) async fn answer(&self, headers: &HeaderMap, version: u64) -> Result<bool, Error> {
        let mut header = self.header.lock().await;
        if header.0 != version {
            return Ok(true);
        }
        let Some(challenge) = Challenge::from_headers(headers) else { return Ok(false) };
        let credential = self
            .credential
            .get_or_try_init(|| {
                let (files, reference) = (self.files.clone(), self.reference.clone());
                blocking(move || files.find(&reference))
            })
            .await?;
        let value = match (challenge, credential) {
            (Challenge::Basic, Credential::Basic { user, password }) => basic(user, password),
            (Challenge::Basic, _) => return Ok(false),
            (Challenge::Bearer { realm, service, scope }, credential) => {
                self.check_realm(&realm, credential)?;
                let token = self.token(&realm, service.as_deref(), scope.as_deref(), credential).await?;
                Zeroizing::new(format!("Bearer {}", token.expose()))
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| self.broken("its token is no header value"))?;
        value.set_sensitive(true);
        *header = (version + 1, Some(value));
        Ok(true)
    }

    /// Credentials that are for https never go out over http because the answer names such a realm.
    fn check_realm(&self, realm: &str, credential: &Credential) -> Result<(), Error> {
        let url: Url = realm.parse().map_err(|_| self.broken("its token service is no URL"))?;
        let is_safe = match url.scheme() {
            "https" => true,
            "http" => self.scheme == "http" || matches!(credential, Credential::Anonymous),
            _ => false,
        };
        if is_safe { Ok(()) } else { Err(self.broken("it wants credentials sent over plain http")) }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        credential: &Credential,
    ) -> Result<Secret, Error> {
        let authentication = match credential {
            Credential::Anonymous => RegistryAuth::Anonymous,
            Credential::Basic { user, password } => RegistryAuth::Basic(user.clone(), password.expose().to_owned()),
            Credential::IdentityToken(_) => return self.exchange(realm, service, scope, credential).await,
        };
        let Some(token_client) = self.token_client().await? else {
            return self.exchange(realm, service, scope, credential).await;
        };
        let (host, repository) = (self.reference.host().to_owned(), self.reference.repository().to_owned());
        let image = Reference::with_tag(host, repository, "latest".to_owned());
        let operation = match self.access {
            Access::Read => RegistryOperation::Pull,
            Access::Write => RegistryOperation::Push,
        };
        match token_client.auth(&image, &authentication, operation).await {
            Ok(Some(token)) => Ok(Secret::new(token)),
            // Its error does not tell a wrong password from a service that is down.
            Ok(None) | Err(OciDistributionError::AuthenticationFailure(_)) => {
                self.exchange(realm, service, scope, credential).await
            }
            Err(OciDistributionError::RequestError(error)) => Err(self.unreachable(error)),
            Err(_) => Err(self.broken("the answer of its token service cannot be read")),
        }
    }

    async fn token_client(&self) -> Result<&Option<oci_distribution::Client>, Error> {
        let make = || {
            let configuration = ClientConfig {
                protocol: if self.scheme == "http" { ClientProtocol::Http } else { ClientProtocol::Https },
                extra_root_certificates: self
                    .roots
                    .iter()
                    .map(|root| Certificate { encoding: CertificateEncoding::Der, data: root.to_vec() })
                    .collect(),
                read_timeout: Some(self.timeout),
                connect_timeout: Some(self.timeout),
                user_agent: self.user_agent,
                ..ClientConfig::default()
            };
            // It reads the system's certificates.
            blocking(move || {
                let client = || oci_distribution::Client::try_from(configuration).ok();
                Ok(transport::system_has_roots().then(client).flatten())
            })
        };
        self.token_client.get_or_try_init(make).await
    }

    /// The token protocol by hand: GET with a password, POST with an identity token.
    async fn exchange(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        credential: &Credential,
    ) -> Result<Secret, Error> {
        let request = self.token_request(realm, service, scope, credential)?;
        let response = request.timeout(self.timeout).send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let body = read_limited(response, TOKEN_BYTES, self.timeout).await.map_err(|error| self.unavailable(error))?;
        let body = Zeroizing::new(body.to_vec());
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(self.unavailable(Unavailability::Status { status: status.as_u16() }));
        }
        if !status.is_success() {
            return Err(Error::Denied {
                store: self.reference.name(),
                action: ACTION.to_owned(),
                status: status.as_u16(),
                detail: remark_of(&body),
            });
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| self.broken("the answer of its token service cannot be read"))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| self.broken("its token service gave no token"))?;
        Ok(Secret::new(token))
    }

    fn token_request(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        credential: &Credential,
    ) -> Result<RequestBuilder, Error> {
        let own_scope = match self.access {
            Access::Read => format!("repository:{}:pull", self.reference.repository()),
            Access::Write => format!("repository:{}:pull,push", self.reference.repository()),
        };
        let scope = scope.unwrap_or(&own_scope);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("scope", scope);
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        let mut url: Url = realm.parse().map_err(|_| self.broken("its token service is no URL"))?;
        Ok(match credential {
            Credential::IdentityToken(token) => {
                query.append_pair("grant_type", "refresh_token").append_pair("client_id", "sealift");
                query.append_pair("refresh_token", token.expose());
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                self.http.post(url).header(CONTENT_TYPE, form).body(query.finish())
            }
            credential => {
                url.query_pairs_mut().extend_pairs(form_urlencoded::parse(query.finish().as_bytes()));
                let request = self.http.get(url);
                match credential {
                    Credential::Basic { user, password } => request.basic_auth(user, Some(password.expose())),
                    _ => request,
                }
            }
        })
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
        self.unavailable(Unavailability::Connection(Box::new(error.without_url())))
    }

    fn unavailable(&self, source: Unavailability) -> Error {
        Error::Unavailable { store: self.reference.name(), action: ACTION.to_owned(), source }
    }

    fn broken(&self, problem: &str) -> Error {
        let source = Corruption::Protocol { problem: problem.to_owned() };
        Error::corrupt("authentication", self.reference.name(), source)
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authenticator").field("reference", &self.reference).finish_non_exhaustive()
    }
}

fn basic(user: &str, password: &Secret) -> Zeroizing<String> {
    use base64::Engine as _;
    let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    Zeroizing::new(format!("Basic {}", encoded.as_str()))
}

const ACTION: &str = "get a token";
const TOKEN_BYTES: usize = 1024 * 1024;
