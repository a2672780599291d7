//! A service in a temporary home, its vendor, and a simulated guest on the other side.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use attestation_service::api::{
    IssuedLicense, NewImageKey, NewLicense, NewProduct, NewReference, Reference, ReferenceValue, SealedManifest,
};
use attestation_service::{
    AuditEntry, DatabaseUrl, EvidenceSettings, Home, LimitSettings, LogSettings, Server, Service, ServiceOptions,
    ServiceSettings, serve,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use jose::signing::SigningKey;
use launch_evidence::simulated::{self, LaunchOptions, SimulatedGuest, SimulatedPlatform};
use launch_evidence::{KeyDigest, LaunchInput, VcpuType};
use release_protocol::Problem;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use zeroize::Zeroizing;

pub(crate) const PRODUCT: &str = "shop";
pub(crate) const KEY_ID: &str = "key-1";
pub(crate) const KEY_PATH: &str = "shop/image-key/key-1";
pub(crate) const KEK: [u8; 32] = *b"thirty-two bytes of image key!!!";
pub(crate) const MANIFEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
pub(crate) const LEASE_SECONDS: i64 = 600;
pub(crate) const GRACE_SECONDS: i64 = 120;

thread_local! {
    static CLOCK: Cell<Option<Timestamp>> = const { Cell::new(None) };
}

/// The service's clock: the test's own thread has stopped it, other threads see the real one.
fn clock() -> Timestamp {
    CLOCK.get().unwrap_or_else(Timestamp::now)
}

/// Lets time go by for the service.
pub(crate) fn advance(seconds: i64) {
    CLOCK.set(Some(clock().checked_add(SignedDuration::from_secs(seconds)).unwrap()));
}

/// A response, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) cookie: Option<String>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The document of a response that succeeded.
    pub(crate) fn ok<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem of a response that has this status and code.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Problem {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!((problem.code(), problem.status), (Some(code), status), "{text}");
        problem
    }

    /// The reasons of a denial.
    pub(crate) fn denied(&self) -> Vec<String> {
        let problem = self.problem(403, "denied");
        assert!(problem.entry.is_some(), "a denial names its audit entry");
        problem.reasons
    }
}

fn settings(listen: SocketAddr, evidence: EvidenceSettings) -> ServiceSettings {
    ServiceSettings { evidence, ..ServiceSettings::new(listen, "https://127.0.0.1:8443".parse().unwrap()) }
}

/// Evidence is judged as by default, but nothing is fetched.
pub(crate) fn offline() -> EvidenceSettings {
    let mut settings = EvidenceSettings::default();
    settings.endorsements.fetch = false;
    settings
}

/// A database of this test's own on the server that `tests/with-postgres` has started, for the tests that are built for it.
pub(crate) async fn database() -> Option<DatabaseUrl> {
    if env!("CARGO_CRATE_NAME") != "postgres" {
        return None;
    }
    let server = std::env::var("SEALIFT_TEST_POSTGRES")
        .unwrap_or_else(|_| panic!("no PostgreSQL server: run `tests/with-postgres cargo nextest run`, or tests/run"));
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&server).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    Some(server.replacen("/postgres?", &format!("/{name}?"), 1).parse().unwrap())
}

/// A running service with one product, one reference value and one image key.
pub(crate) struct Rig {
    pub(crate) home: Home,
    pub(crate) guest: SimulatedGuest,
    pub(crate) service: Arc<Service>,
    pub(crate) server: Server,
    settings: ServiceSettings,
    pub(crate) admin_token: Zeroizing<String>,
    pub(crate) signer: SigningKey,
    pub(crate) http: Client,
    directory: Arc<TempDir>,
}

impl Rig {
    /// Starts a service that accepts the simulated platform.
    pub(crate) async fn start() -> Self {
        Self::start_with(vec![platform().ark_der().to_vec()]).await
    }

    /// Starts a service with these simulated roots.
    pub(crate) async fn start_with(simulated_roots: Vec<Vec<u8>>) -> Self {
        Self::start_judging(simulated_roots, offline()).await
    }

    /// Starts a service with these simulated roots that judges evidence so.
    pub(crate) async fn start_judging(simulated_roots: Vec<Vec<u8>>, evidence: EvidenceSettings) -> Self {
        Self::start_limited(simulated_roots, evidence, LimitSettings::default()).await
    }

    /// Starts a service that also lets so much be asked.
    pub(crate) async fn start_limited(
        simulated_roots: Vec<Vec<u8>>,
        evidence: EvidenceSettings,
        limits: LimitSettings,
    ) -> Self {
        // Whole seconds, so that expiry times can be compared.
        CLOCK.set(Some(Timestamp::from_second(Timestamp::now().as_second()).unwrap()));
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        home.create(&["127.0.0.1".to_owned()]).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let settings = ServiceSettings { limits, database: database().await, ..settings(listen, evidence) };
        let options = ServiceOptions { settings: settings.clone(), simulated_roots, clock };
        let service = Arc::new(Service::open(&home, options).await.unwrap());
        let admin_token = service.store().create_api_token("test", clock()).await.unwrap();
        let server = serve(&home, service.clone(), listen).await.unwrap();
        let http = client(&home);
        let guest = launch(directory.path(), b"the shim", LaunchOptions::default());
        let signer = SigningKey::generate().unwrap();
        let directory = Arc::new(directory);
        let rig = Self { home, guest, service, server, settings, admin_token, signer, http, directory };
        rig.create_product(PRODUCT).await;
        rig.add_reference(PRODUCT, &rig.guest).await;
        rig.register_key(PRODUCT, KEY_ID, &[MANIFEST]).await;
        rig
    }

    /// Another guest of the platform, launched with this program as its initrd.
    pub(crate) fn launch(&self, initrd: &[u8]) -> SimulatedGuest {
        launch(self.directory.path(), initrd, LaunchOptions::default())
    }

    /// The usual guest, launched with this in `HOST_DATA`.
    pub(crate) fn launch_with_host_data(&self, host_data: [u8; 32]) -> SimulatedGuest {
        launch(self.directory.path(), b"the shim", LaunchOptions { host_data, ..LaunchOptions::default() })
    }

    /// A guest that the vendor has not measured, launched with an ID block by this key.
    pub(crate) fn launch_with_id_key(&self, id_key_digest: KeyDigest, guest_svn: u32) -> SimulatedGuest {
        let options = LaunchOptions { id_key_digest, guest_svn, ..LaunchOptions::default() };
        launch(self.directory.path(), b"another shim", options)
    }

    /// Stops the service and starts it again from its files.
    pub(crate) async fn restart(&mut self) {
        self.restart_witnessed(LogSettings::default()).await;
    }

    /// The same, with these witnesses of its log.
    pub(crate) async fn restart_witnessed(&mut self, log: LogSettings) {
        self.settings.log = log;
        self.service.store().close().await;
        let (service, server) = self.serve_again().await;
        self.service = service;
        std::mem::replace(&mut self.server, server).stop().await;
    }

    /// The service's files, and every row where its database is elsewhere.
    pub(crate) async fn all_that_is_kept(&self) -> Vec<Vec<u8>> {
        let folder = self.home.database_path();
        let files = fs::read_dir(folder.parent().unwrap()).unwrap();
        let mut all: Vec<Vec<u8>> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
        let Some(database) = &self.settings.database else { return all };
        let mut connection = PgConnection::connect(&database.to_string()).await.unwrap();
        let tables = sqlx::query_scalar("SELECT relname::text FROM pg_stat_user_tables");
        for table in tables.fetch_all(&mut connection).await.unwrap() as Vec<String> {
            let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT t::text FROM {table} t")));
            let rows: Vec<String> = rows.fetch_all(&mut connection).await.unwrap();
            all.extend(rows.into_iter().map(String::into_bytes));
        }
        all
    }

    /// A second service on the same files and the same database.
    #[allow(dead_code, reason = "only a shared database serves several")]
    pub(crate) async fn replica(&self) -> Self {
        let (service, server) = self.serve_again().await;
        Self {
            home: self.home.clone(),
            guest: launch(self.directory.path(), b"the shim", LaunchOptions::default()),
            service,
            server,
            settings: self.settings.clone(),
            admin_token: self.admin_token.clone(),
            signer: SigningKey::from_pkcs8_pem(&self.signer.to_pkcs8_pem().unwrap()).unwrap(),
            http: client(&self.home),
            directory: Arc::clone(&self.directory),
        }
    }

    async fn serve_again(&self) -> (Arc<Service>, Server) {
        let listen = "127.0.0.1:0".parse().unwrap();
        let (database, log) = (self.settings.database.clone(), self.settings.log.clone());
        let settings = ServiceSettings { database, log, ..settings(listen, offline()) };
        let options = ServiceOptions { settings, simulated_roots: vec![platform().ark_der().to_vec()], clock };
        let service = Arc::new(Service::open(&self.home, options).await.unwrap());
        let server = serve(&self.home, service.clone(), listen).await.unwrap();
        (service, server)
    }

    pub(crate) async fn create_product(&self, name: &str) {
        let signers = vec![self.signer.verifying_key().to_spki_pem().unwrap()];
        let product = NewProduct { name: name.parse().unwrap(), signers };
        self.admin(Method::POST, "/products", &product).await.ok::<Value>();
    }

    pub(crate) async fn add_reference(&self, product: &str, guest: &SimulatedGuest) {
        let value = ReferenceValue::Measurement { measurement: guest.measurement() };
        let reference = NewReference { value, label: "shim".to_owned(), source: Value::Null };
        let path = format!("/products/{product}/references");
        let added: Reference = self.admin(Method::POST, &path, &reference).await.ok();
        assert_eq!((added.value, added.retired_at), (reference.value, None));
    }

    pub(crate) async fn register_key(&self, product: &str, id: &str, manifests: &[&str]) {
        let manifests = manifests
            .iter()
            .map(|digest| SealedManifest {
                digest: (*digest).to_owned(),
                platform: "linux/amd64".to_owned(),
                sbom: None,
            })
            .collect();
        let kek = Zeroizing::new(STANDARD.encode(KEK));
        let key = NewImageKey { id: id.to_owned(), kek, image: "image".to_owned(), manifests };
        let answer = self.admin(Method::POST, &format!("/products/{product}/keys"), &key).await;
        assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Issues a licence for one seat that `change` may alter before.
    pub(crate) async fn issue(&self, change: impl FnOnce(&mut NewLicense)) -> IssuedLicense {
        let license = new_license(change);
        self.admin(Method::POST, "/licenses", &license).await.ok()
    }

    pub(crate) async fn revoke(&self, id: &str) {
        let path = format!("/licenses/{id}/revoke");
        let reason = serde_json::json!({"reason": "contract ended"});
        self.admin(Method::POST, &path, &reason).await.ok::<Value>();
    }

    pub(crate) async fn set_policy(&self, source: &str) -> Answer {
        let path = format!("/api/v1/products/{PRODUCT}/policy");
        let token = Some(self.admin_token.as_str());
        self.send(Method::PUT, &path, token, None, Some(source.as_bytes().to_vec())).await
    }

    /// A request to the admin API.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: &impl Serialize) -> Answer {
        let body = serde_json::to_vec(body).unwrap();
        self.send(method, &format!("/api/v1{path}"), Some(&self.admin_token), None, Some(body)).await
    }

    pub(crate) async fn admin_get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.send(Method::GET, &format!("/api/v1{path}"), Some(&self.admin_token), None, None).await.ok()
    }

    pub(crate) async fn audit(&self) -> Vec<AuditEntry> {
        self.admin_get("/audit").await
    }

    /// The bodies of all audit entries of one kind.
    pub(crate) async fn audit_of(&self, kind: &str) -> Vec<Value> {
        self.audit().await.into_iter().filter(|entry| entry.kind == kind).map(|entry| entry.body).collect()
    }

    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Answer {
        self.send(Method::POST, path, None, None, Some(serde_json::to_vec(body).unwrap())).await
    }

    /// Asks for a resource with a bearer token.
    pub(crate) async fn resource(&self, token: Option<&str>, path: &str) -> Answer {
        self.send(Method::GET, &format!("/kbs/v0/resource/{path}"), token, None, None).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        cookie: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("https://{}{path}", self.server.address()));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let cookie = response.headers().get("set-cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
        let retry_after = response.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
        Answer { status, cookie, retry_after, body: response.bytes().await.unwrap().to_vec() }
    }
}

pub(crate) fn new_license(change: impl FnOnce(&mut NewLicense)) -> NewLicense {
    let mut license = NewLicense {
        products: vec![PRODUCT.parse().unwrap()],
        customer: "customer".to_owned(),
        seats: 1,
        valid_from: None,
        valid_until: clock().checked_add(SignedDuration::from_hours(24)).unwrap().into(),
        lease_seconds: LEASE_SECONDS.unsigned_abs(),
        grace_seconds: GRACE_SECONDS.unsigned_abs(),
        offline_seconds: None,
        platforms: Vec::new(),
        features: std::collections::BTreeMap::default(),
        relay: false,
    };
    change(&mut license);
    license
}

/// The time of the service.
pub(crate) fn now() -> Timestamp {
    clock()
}

fn client(home: &Home) -> Client {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(&fs::read(home.ca_path()).unwrap()).unwrap();
    Client::builder().tls_certs_only([ca]).https_only(true).no_proxy().build().unwrap()
}

/// A platform that all tests of one build share, since its two RSA keys take seconds.
pub(crate) fn platform() -> SimulatedPlatform {
    let built = fs::metadata(std::env::current_exe().unwrap()).unwrap().modified().unwrap();
    let built = built.duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let shared = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulated-platform-{built}"));
    if !shared.exists() {
        let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        SimulatedPlatform::create(&made.path().join("platform")).unwrap();
        // Where another test process was faster, this fails and its platform serves.
        let _ = fs::rename(made.path().join("platform"), &shared);
    }
    SimulatedPlatform::open(&shared).unwrap()
}

fn launch(folder: &Path, initrd: &[u8], options: LaunchOptions) -> SimulatedGuest {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let vcpu_type: VcpuType = "EPYC-v4".parse().unwrap();
    let mut input = LaunchInput::new(write("firmware", &simulated::firmware()), 1, vcpu_type);
    input.kernel = Some(write("kernel", &simulated::kernel()));
    input.initrd = Some(write("initrd", initrd));
    platform().launch(&input, options).unwrap()
}
