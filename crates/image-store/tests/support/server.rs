//! A registry played by the test: each answer is a function of the request.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use image_store::{Store, StoreOptions};

/// What the server saw: method, path with query, `Authorization`, body.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub authorization: Option<String>,
    pub body: String,
}

type Answer = Box<dyn Fn(&Seen, &HeaderMap, usize) -> Response + Send + Sync>;

/// A server on a loopback port whose answers are a function of the request and its number.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Clone)]
struct Handler {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answer>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Seen, &HeaderMap, usize) -> Response + Send + Sync + 'static) -> Self {
        let (server, router, listener) = Self::prepare(answer).await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    /// The same over TLS, with a certificate of its own authority. Returns the authority in PEM.
    pub async fn start_tls(
        answer: impl Fn(&Seen, &HeaderMap, usize) -> Response + Send + Sync + 'static,
    ) -> (Self, Vec<u8>) {
        let (server, router, listener) = Self::prepare(answer).await;
        let (configuration, authority) = tls();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(configuration));
        tokio::spawn(async move { axum::serve(TlsListener { listener, acceptor }, router).await });
        (server, authority)
    }

    async fn prepare(
        answer: impl Fn(&Seen, &HeaderMap, usize) -> Response + Send + Sync + 'static,
    ) -> (Self, Router, tokio::net::TcpListener) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let handler = Handler { seen: server.seen.clone(), answer: Arc::new(Box::new(answer)) };
        (server, Router::new().fallback(handle).with_state(handler), listener)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub async fn open(&self, options: &StoreOptions) -> Store {
        let reference = format!("docker://{}/team/app:v1", self.address).parse().unwrap();
        Store::open(&reference, options).await.unwrap()
    }

    pub async fn create(&self, options: &StoreOptions) -> Store {
        let reference = format!("docker://{}/team/app:v1", self.address).parse().unwrap();
        Store::create(&reference, options).await.unwrap()
    }
}

async fn handle(State(handler): State<Handler>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 26).await.unwrap_or_default();
    let authorization = head.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let path = head.uri.path_and_query().unwrap().to_string();
    let body = String::from_utf8_lossy(&body).into_owned();
    let seen = Seen { method: head.method, path, authorization, body };
    let number = {
        let mut all = handler.seen.lock().unwrap();
        all.push(seen.clone());
        all.len()
    };
    (handler.answer)(&seen, &head.headers, number)
}

struct TlsListener {
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A server configuration for 127.0.0.1, and the authority that signed it.
pub fn tls() -> (rustls::ServerConfig, Vec<u8>) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let configuration = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (configuration, authority.pem().into_bytes())
}
