//! Master keys in a Transit secrets engine of `OpenBao` or Vault: it encrypts and decrypts by a key that does not leave it,
//! with the context as associated data.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use super::settings::{AccessError, CustodySettings, TransitAccess};
use super::uri::TransitKey;
use super::{Absent, CustodyError, no_key, refused, unavailable, unreachable};
use crate::home::Home;

/// How long an answer may take: guests wait for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest answer, in bytes. What is sealed directly is small, see `custody.rs`.
const ANSWER_MAX: usize = 256 * 1024;
/// How much of the server's own words is shown, in characters.
const SHOWN: usize = 300;

/// A key of a Transit engine.
#[derive(Debug)]
pub(crate) struct EngineKey {
    name: TransitKey,
    home: Home,
    access: TransitAccess,
    http: Client,
}

/// What the engine says of a key.
#[derive(Deserialize)]
struct Description {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

/// What came of a token's renewal; the token itself is not read.
#[derive(Deserialize)]
struct Renewed {
    auth: RenewedToken,
}

#[derive(Deserialize)]
struct RenewedToken {
    /// In seconds; 0 of one that does not end.
    lease_duration: u64,
    renewable: bool,
}

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

/// The engine's ciphers that take associated data.
const KINDS: [&str; 4] = ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

impl EngineKey {
    /// Sees that the key is there and is of use. Encrypting by one that is not there would make it.
    pub(super) async fn open(home: &Home, name: &TransitKey, settings: &CustodySettings) -> Result<Self, CustodyError> {
        let access = settings.transit_access(name.kind).map_err(unreachable(name))?;
        let http = client(home, &access).map_err(unreachable(name))?;
        let key = Self { name: name.clone(), home: home.clone(), access, http };
        let Description { kind, derived, exportable, allow_plaintext_backup } =
            key.ask(Method::GET, "keys", None).await?;
        let unusable = |why: String| Err(no_key(name)(why));
        if !KINDS.contains(&kind.as_str()) {
            return unusable(format!(
                "it is of the type {kind}, which takes no associated data; make one of aes256-gcm96"
            ));
        }
        if derived {
            return unusable("it is a derived one, which is of no use here".to_owned());
        }
        if exportable {
            return unusable("it may leave the engine (`exportable` is true)".to_owned());
        }
        if allow_plaintext_backup {
            return unusable("it may leave the engine (`allow_plaintext_backup` is true)".to_owned());
        }
        Ok(key)
    }

    pub(super) async fn encrypt(&self, plain: &[u8], context: &str) -> Result<Vec<u8>, CustodyError> {
        let plaintext = Zeroizing::new(STANDARD.encode(plain));
        let body = json!({"plaintext": plaintext.as_str(), "associated_data": STANDARD.encode(context)});
        let Encrypted { ciphertext } = self.ask(Method::POST, "encrypt", Some(body)).await?;
        Ok(ciphertext.into_bytes())
    }

    pub(super) async fn decrypt(&self, sealed: &[u8], context: &str) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let ciphertext = str::from_utf8(sealed).map_err(|_| CustodyError::Open)?;
        let body = json!({"ciphertext": ciphertext, "associated_data": STANDARD.encode(context)});
        let Decrypted { plaintext } = self.ask(Method::POST, "decrypt", Some(body)).await?;
        STANDARD.decode(plaintext.as_bytes()).map(Zeroizing::new).map_err(|_| CustodyError::Open)
    }

    /// Has the engine destroy the key, all versions of it, and sees that it is gone.
    pub(super) async fn destroy(&self) -> Result<(), CustodyError> {
        let allowed = json!({"deletion_allowed": true});
        self.send(Method::POST, "keys", Some("config"), Some(allowed)).await?;
        self.send(Method::DELETE, "keys", None, None).await?;
        match self.ask::<Description>(Method::GET, "keys", None).await {
            Err(error) if error.is_absence() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(unavailable(&self.name)("it was told to destroy the key, and has it still")),
        }
    }

    /// Has the server lengthen the token's life. Gives how long it lives now, where it ends and can be lengthened again.
    pub(super) async fn renew_token(&self) -> Result<Option<Duration>, CustodyError> {
        let url = self.address(["auth", "token", "renew-self"])?;
        let bytes = self.exchange(Method::POST, url, "renew-self", Some(json!({}))).await?;
        let Renewed { auth } = serde_json::from_slice(&bytes)
            .map_err(|_| unavailable(&self.name)("its answer is not of the documented form"))?;
        let ends = auth.renewable && auth.lease_duration > 0;
        Ok(ends.then(|| Duration::from_secs(auth.lease_duration)))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        verb: &str,
        body: Option<Value>,
    ) -> Result<T, CustodyError> {
        let bytes = self.send(method, verb, None, body).await?;
        let answer: Result<Answer<T>, _> = serde_json::from_slice(&bytes);
        answer
            .map(|answer| answer.data)
            .map_err(|_| unavailable(&self.name)("its answer is not of the documented form"))
    }

    /// The answer to a request about the key, or about this part of it.
    async fn send(
        &self,
        method: Method,
        verb: &str,
        part: Option<&str>,
        body: Option<Value>,
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let TransitKey { mount, key, .. } = &self.name;
        let url = self.address(mount.split('/').chain([verb, key.as_str()]).chain(part))?;
        self.exchange(method, url, verb, body).await
    }

    async fn exchange(
        &self,
        method: Method,
        url: Url,
        verb: &str,
        body: Option<Value>,
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let mut request = self.http.request(method, url).headers(self.headers()?);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let failed = |why: &str| unavailable(&self.name)(why.to_owned());
        let away = |error: reqwest::Error| unavailable(&self.name)(error.without_url());
        let mut response = request.send().await.map_err(away)?;
        let status = response.status();
        let mut bytes = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(failed("its answer is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if ![StatusCode::OK, StatusCode::NO_CONTENT].contains(&status) {
            return Err(self.failure(verb, status, &bytes));
        }
        Ok(bytes)
    }

    fn address<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Result<Url, CustodyError> {
        let mut url = self.access.address.clone();
        url.path_segments_mut()
            .map_err(|()| unreachable(&self.name)("the server's address takes no path"))?
            .pop_if_empty()
            .push("v1")
            .extend(path);
        Ok(url)
    }

    /// The token is read each time: an agent that renews it writes it to its file.
    fn headers(&self) -> Result<HeaderMap, CustodyError> {
        let token = self.access.token.read(&self.home).map_err(unreachable(&self.name))?;
        let mut token = HeaderValue::from_str(token.trim())
            .map_err(|_| unreachable(&self.name)("the token cannot be one: it has characters of no header"))?;
        token.set_sensitive(true);
        let mut headers = HeaderMap::from_iter([("x-vault-token".parse().map_err(|_| CustodyError::Library)?, token)]);
        if let Some(namespace) = &self.access.namespace {
            let namespace = HeaderValue::from_str(namespace)
                .map_err(|_| unreachable(&self.name)("the namespace has characters of no header"))?;
            headers.insert("x-vault-namespace", namespace);
        }
        Ok(headers)
    }

    fn failure(&self, verb: &str, status: StatusCode, bytes: &[u8]) -> CustodyError {
        let said = serde_json::from_slice::<Errors>(bytes).unwrap_or_default().errors.join("; ");
        let said: String = said.chars().filter(|char| !char.is_control()).take(SHOWN).collect();
        let is_silent = said.is_empty();
        let said = format!("{status} to `{verb}`{}{said}", if said.is_empty() { "" } else { ": " });
        match status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => refused(&self.name)(said),
            // Of what is sealed, it is said so when it is of another key, version or context.
            StatusCode::BAD_REQUEST if verb == "decrypt" => CustodyError::Open,
            // Of an engine that is not there, the server says more.
            StatusCode::NOT_FOUND if verb == "keys" && is_silent => {
                no_key(&self.name)(Absent("404 Not Found to `keys`"))
            }
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => no_key(&self.name)(said),
            _ => unavailable(&self.name)(said),
        }
    }
}

fn client(home: &Home, access: &TransitAccess) -> Result<Client, AccessError> {
    // One provider for all TLS of the process; where there is one already this changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut client = Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .https_only(!access.is_loopback)
        .redirect(reqwest::redirect::Policy::none());
    if access.is_loopback {
        client = client.no_proxy();
    }
    if let Some(ca) = &access.ca {
        let path = home.directory().join(ca);
        let unusable =
            |why: String| AccessError::Value { what: format!("the certificate authority `{}`", path.display()), why };
        let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
        let ca = reqwest::Certificate::from_pem(&pem).map_err(|_| unusable("it is no certificate".to_owned()))?;
        client = client.tls_certs_only([ca]);
    }
    client.build().map_err(|error| AccessError::Value { what: "TLS".to_owned(), why: error.to_string() })
}
