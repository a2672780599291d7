//! Several services on one listener, each under a host name of its own: the name that a client tells TLS chooses the service,
//! and there is none for those who tell another name, or none. Each has its own certificate, sessions, routes, limits and state; what
//! they share is the listener and the handshakes that have not said a name yet.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::LazyConfigAcceptor;
use tower_http::add_extension::AddExtension;
use url::{Host, Url};

use super::guard::Peer;
use super::problem;
use super::quiet;
use super::tls::{self, ServeError};
use crate::home::Home;
use crate::memory::keep_giving_back;
use crate::service::{Service, SharedService};

/// How many connections may be in a handshake at once; more wait to be accepted.
const HANDSHAKES: usize = 1024;

/// A listener with the services that are reached through it.
#[derive(Debug)]
pub struct TenantServer {
    address: SocketAddr,
    tenants: Tenants,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    memory: JoinHandle<()>,
}

type Tenants = Arc<RwLock<HashMap<String, Arc<Tenant>>>>;

/// One service of them.
struct Tenant {
    config: Arc<ServerConfig>,
    router: Router,
    places: Arc<Semaphore>,
    service: SharedService,
    upkeep: JoinHandle<super::Kept>,
    /// Its connections, until it is taken away.
    connections: Mutex<Option<GracefulShutdown>>,
    /// Whether what is left of them is to be cut.
    cut: watch::Sender<bool>,
}

impl TenantServer {
    /// Starts to listen, for nobody yet.
    pub async fn start(listen: SocketAddr) -> Result<Self, ServeError> {
        let listener = tls::bind(listen).await?;
        let address = listener.local_addr().map_err(|source| ServeError::Listen { address: listen, source })?;
        let tenants = Tenants::default();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept_loop(listener, Arc::clone(&tenants), nobody()?, stopped));
        Ok(Self { address, tenants, stop, task, memory: tokio::spawn(keep_giving_back()) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves one more home's service, under the host names of these URLs, of which none may be another one's.
    pub fn add(&self, home: &Home, service: Arc<Service>, urls: &[&Url]) -> Result<(), ServeError> {
        let names = urls.iter().map(|url| name_of(url)).collect::<Result<Vec<_>, _>>()?;
        let tenant = Arc::new(Tenant {
            config: Arc::new(tls::config(home)?),
            router: super::router(Arc::clone(&service)).layer(from_fn(own_host)),
            places: Arc::new(Semaphore::new(tls::permits(service.limits.connections))),
            upkeep: tokio::spawn(super::keep_up(&service)),
            service,
            connections: Mutex::new(Some(GracefulShutdown::new())),
            cut: watch::Sender::new(false),
        });
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = names.iter().find(|name| tenants.contains_key(*name)) {
            tenant.upkeep.abort();
            return Err(ServeError::Name(taken.clone()));
        }
        tenants.extend(names.into_iter().map(|name| (name, Arc::clone(&tenant))));
        Ok(())
    }

    /// Takes a service away: its name is nobody's at once, its open requests may end for ten seconds, and its database is
    /// closed.
    pub async fn remove(&self, service: &Arc<Service>) {
        if let Some(tenant) = self.take(service) {
            tenant.end().await;
        }
    }

    fn take(&self, service: &Arc<Service>) -> Option<Arc<Tenant>> {
        let mut taken = None;
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).retain(|_, tenant| {
            let goes = Arc::ptr_eq(&tenant.service, service);
            if goes {
                taken = Some(Arc::clone(tenant));
            }
            !goes
        });
        taken
    }

    /// Stops taking connections, lets the open requests of all end (for at most ten seconds), and returns.
    pub async fn stop(self) {
        // The receiver lives as long as the task.
        let _ = self.stop.send(true);
        self.memory.abort();
        let _ = self.task.await;
        let tenants = std::mem::take(&mut *self.tenants.write().unwrap_or_else(PoisonError::into_inner));
        let mut ends: Vec<_> = Vec::new();
        for tenant in tenants.into_values() {
            ends.push(tokio::spawn(async move { tenant.end().await }));
        }
        for end in ends {
            // One that panicked has ended, too.
            let _ = end.await;
        }
    }
}

impl Tenant {
    async fn end(&self) {
        self.upkeep.abort();
        self.service.stop_watches();
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connections) = connections {
            tls::end(connections).await;
        }
        self.cut.send_replace(true);
        self.service.store.close().await;
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tenant").field(&self.service).finish()
    }
}

/// The host name of a service's address, as clients tell it: an IP address is told to nobody.
fn name_of(url: &Url) -> Result<String, ServeError> {
    match url.host() {
        Some(Host::Domain(name)) => Ok(name.to_ascii_lowercase()),
        _ => Err(ServeError::Name(url.to_string())),
    }
}

async fn accept_loop(
    listener: TcpListener,
    tenants: Tenants,
    nobody: Arc<ServerConfig>,
    mut stopped: watch::Receiver<bool>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { break };
        let (stream, address) = tokio::select! {
            _ = stopped.changed() => break,
            accepted = tls::accept(&listener) => accepted,
        };
        let (tenants, nobody) = (Arc::clone(&tenants), Arc::clone(&nobody));
        tokio::spawn(async move {
            let Some(hello) = tls::in_time(LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream)).await
            else {
                return;
            };
            let name: Option<Arc<str>> =
                hello.client_hello().server_name().map(|name| name.to_ascii_lowercase().into());
            let tenant = name
                .as_deref()
                .and_then(|name| tenants.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned());
            let Some(tenant) = tenant else {
                // Refused by an alert, as by a server that has no certificate.
                tls::in_time(hello.into_stream(nobody)).await;
                return;
            };
            // A tenant that has all of its connections open takes no handshake's place from others.
            let Ok(place) = Arc::clone(&tenant.places).try_acquire_owned() else {
                return tracing::debug!("a tenant has as many connections as it may");
            };
            let Some(stream) = tls::in_time(hello.into_stream(Arc::clone(&tenant.config))).await else { return };
            drop(permit);
            serve(&tenant, stream, address, name).await;
            drop(place);
        });
    }
}

async fn serve(
    tenant: &Tenant,
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    address: std::net::IpAddr,
    server_name: Option<Arc<str>>,
) {
    let watcher =
        tenant.connections.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(GracefulShutdown::watcher);
    // It was taken away meanwhile.
    let Some(watcher) = watcher else { return };
    let (requests, quiet) = quiet::connection();
    let router = AddExtension::new(tenant.router.clone(), Peer { address, requests, server_name });
    let mut cut = tenant.cut.subscribe();
    tokio::select! {
        () = tls::serve_connection(stream, router, watcher, quiet) => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}

/// Lets a request through that is for the host whose name chose the service. HTTP/2 clients ask one connection for every host
/// that they take for the same server.
async fn own_host(request: Request, next: Next) -> Response {
    let is_own = request.extensions().get::<Peer>().and_then(|peer| peer.server_name.as_deref()).is_some_and(|own| {
        let by_header = request.headers().get_all(HOST).iter().map(|host| {
            let host = host.to_str().ok()?.parse::<Authority>().ok()?;
            Some(host.host().to_owned())
        });
        let by_uri = request.uri().host().map(|host| Some(host.to_owned()));
        let mut hosts = by_header.chain(by_uri).peekable();
        hosts.peek().is_some() && hosts.all(|host| host.is_some_and(|host| host.eq_ignore_ascii_case(own)))
    });
    if is_own { next.run(request).await } else { problem::misdirected() }
}

/// What a handshake for a name of nobody's comes to.
fn nobody() -> Result<Arc<ServerConfig>, ServeError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
