//! Several services on one listener: the host name chooses, and there is none for those who name another or none.

use std::net::SocketAddr;
use std::sync::Arc;

use attestation_service::{Home, Service, ServiceOptions, ServiceSettings, TenantServer};
use jiff::Timestamp;
use release_protocol::Problem;
use reqwest::{Client, ClientBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use crate::rig::offline;

/// A tenant that is served.
struct Tenant {
    home: Home,
    service: Arc<Service>,
    settings: ServiceSettings,
    token: String,
    _folder: TempDir,
}

impl Tenant {
    async fn open(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        // All certificates have a name in common: that alone must not lead from one to the other.
        home.create(&[format!("{name}.localhost"), "common.localhost".to_owned()]).unwrap();
        let url: Url = format!("https://{name}.localhost").parse().unwrap();
        let settings = ServiceSettings { evidence: offline(), ..ServiceSettings::new(([127, 0, 0, 1], 0).into(), url) };
        let options = ServiceOptions { settings: settings.clone(), simulated_roots: Vec::new(), clock: Timestamp::now };
        let service = Arc::new(Service::open(&home, options).await.unwrap());
        let token = service.store().create_api_token("first", Timestamp::now()).await.unwrap().to_string();
        Self { home, service, settings, token, _folder: folder }
    }

    fn name(&self) -> &str {
        self.settings.url.host_str().unwrap()
    }

    /// A client that trusts this tenant's authority, and finds every name at `address`.
    fn client(&self, address: SocketAddr) -> ClientBuilder {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = reqwest::Certificate::from_pem(&std::fs::read(self.home.ca_path()).unwrap()).unwrap();
        let names = ["a.localhost", "b.localhost", "common.localhost", "nobody.localhost"];
        names
            .iter()
            .fold(Client::builder().tls_certs_only([ca]).no_proxy(), |client, name| client.resolve(name, address))
    }
}

/// Two tenants on one listener.
async fn two() -> (TenantServer, Tenant, Tenant) {
    let server = TenantServer::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (a, b) = (Tenant::open("a").await, Tenant::open("b").await);
    for tenant in [&a, &b] {
        server.add(&tenant.home, Arc::clone(&tenant.service), &[&tenant.settings.url]).unwrap();
    }
    (server, a, b)
}

async fn get(client: &Client, server: &TenantServer, name: &str, path: &str) -> reqwest::Result<Response> {
    client.get(format!("https://{name}:{}{path}", server.address().port())).send().await
}

#[tokio::test]
async fn a_name_leads_to_its_own_tenant_and_to_nobody_where_it_is_nobodys() {
    let (server, a, b) = two().await;
    for (tenant, other) in [(&a, &b), (&b, &a)] {
        let client = tenant.client(server.address()).build().unwrap();
        assert_eq!(get(&client, &server, tenant.name(), "/readyz").await.unwrap().status(), 200);
        // The other's certificate is of another authority.
        assert!(get(&client, &server, other.name(), "/readyz").await.unwrap_err().is_connect());
        for name in ["nobody.localhost", "common.localhost", "127.0.0.1"] {
            let refused = get(&client, &server, name, "/readyz").await.unwrap_err();
            assert!(format!("{refused:?}").contains("AccessDenied"), "{name}: {refused:?}");
        }
        let url = format!("https://{}:{}/api/v1/products", tenant.name(), server.address().port());
        let asked = |token: &str| client.get(&url).bearer_auth(token.to_owned()).send();
        assert_eq!(asked(&tenant.token).await.unwrap().status(), 200);
        assert_eq!(asked(&other.token).await.unwrap().status(), 401);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_for_another_host_than_the_connections_is_misdirected() {
    let (server, a, b) = two().await;
    let url = format!("https://{}:{}/readyz", a.name(), server.address().port());
    let clients = [a.client(server.address()).http1_only(), a.client(server.address()).http2_prior_knowledge()];
    for client in clients.map(|client| client.build().unwrap()) {
        for (host, status) in [
            (a.name(), 200),
            ("A.localhost:1", 200),
            (b.name(), 421),
            ("localhost", 421),
            ("a.localhost.", 421),
            ("@", 421),
        ] {
            let answer = client.get(&url).header("host", host).send().await.unwrap();
            assert_eq!(answer.status(), status, "{host} over {:?}", answer.version());
            if status == 421 {
                let problem: Problem = answer.json().await.unwrap();
                assert_eq!(problem.code(), Some("misdirected"));
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn one_that_is_taken_away_is_nobody_at_once_and_the_others_go_on() {
    let (server, a, b) = two().await;
    let [first, second] = [&a, &b].map(|tenant| tenant.client(server.address()).build().unwrap());
    assert_eq!(get(&first, &server, a.name(), "/readyz").await.unwrap().status(), 200);
    assert_eq!(get(&second, &server, b.name(), "/readyz").await.unwrap().status(), 200);
    let again = server.add(&b.home, Arc::clone(&b.service), &[&a.settings.url]).unwrap_err();
    assert!(again.to_string().contains("a.localhost"), "{again}");
    server.remove(&a.service).await;
    // Also over the connection that there was.
    assert!(get(&first, &server, a.name(), "/readyz").await.is_err());
    assert_eq!(
        get(&second, &server, b.name(), "/readyz").await.unwrap().json::<Value>().await.unwrap()["status"],
        "ready"
    );
    // Its database is closed: another service may open it.
    let options = ServiceOptions { settings: a.settings.clone(), simulated_roots: Vec::new(), clock: Timestamp::now };
    let service = Arc::new(Service::open(&a.home, options).await.unwrap());
    server.add(&a.home, service, &[&a.settings.url]).unwrap();
    assert_eq!(get(&first, &server, a.name(), "/readyz").await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_that_has_all_its_connections_open_leaves_room_for_others() {
    let server = TenantServer::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (mut a, b) = (Tenant::open("a").await, Tenant::open("b").await);
    a.service.store().close().await;
    a.settings.limits.connections = 1;
    let options = ServiceOptions { settings: a.settings.clone(), simulated_roots: Vec::new(), clock: Timestamp::now };
    a.service = Arc::new(Service::open(&a.home, options).await.unwrap());
    for tenant in [&a, &b] {
        server.add(&tenant.home, Arc::clone(&tenant.service), &[&tenant.settings.url]).unwrap();
    }
    let [held, more] = [&a, &a].map(|tenant| tenant.client(server.address()).build().unwrap());
    assert_eq!(get(&held, &server, a.name(), "/readyz").await.unwrap().status(), 200);
    assert!(get(&more, &server, a.name(), "/readyz").await.is_err());
    let other = b.client(server.address()).build().unwrap();
    assert_eq!(get(&other, &server, b.name(), "/readyz").await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn an_address_without_a_name_is_nothing_to_be_told_apart_by() {
    let server = TenantServer::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let a = Tenant::open("a").await;
    for url in ["https://127.0.0.1:8444", "https://[::1]/"] {
        let url: Url = url.parse().unwrap();
        server.add(&a.home, Arc::clone(&a.service), &[&url]).unwrap_err();
    }
    server.stop().await;
}
