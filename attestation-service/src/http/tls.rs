//! TLS and connections: accepts, shakes hands within a time limit, serves HTTP/1.1 and HTTP/2, ends gracefully.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower_http::add_extension::AddExtension;

use super::guard::Peer;
use super::quiet::{self, Quiet};
use crate::home::Home;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the other end of a quiet HTTP/2 connection is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest headers over HTTP/2, in bytes.
const HEADERS_MAX: u32 = 32 << 10;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Certificate or key cannot be read.
    #[error("cannot use `{}`", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key are refused.
    #[error("the server certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// A service on a listener of several has no name of its own.
    #[error("the service's address `{0}` has no host name, or one that is another service's already")]
    Name(String),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) fn acceptor(home: &Home) -> Result<TlsAcceptor, ServeError> {
    Ok(TlsAcceptor::from(Arc::new(config(home)?)))
}

/// TLS with the home's certificate. Sessions are kept for it alone: none is resumed under another one's.
pub(super) fn config(home: &Home) -> Result<ServerConfig, ServeError> {
    let path = home.certificate_path();
    let failed = |path: &PathBuf, source| ServeError::Certificate { path: path.clone(), source };
    let chain = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| failed(&path, source))?;
    let path = home.certificate_key_path();
    let key = PrivateKeyDer::from_pem_file(&path).map_err(|source| failed(&path, source))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

pub(super) async fn accept_loop(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
    connections: u32,
    mut stopped: watch::Receiver<bool>,
) {
    // More connections than these wait to be accepted.
    let connections = Arc::new(Semaphore::new(permits(connections)));
    let graceful = Arc::new(GracefulShutdown::new());
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { break };
        let (stream, peer) = tokio::select! {
            _ = stopped.changed() => break,
            accepted = accept(&listener) => accepted,
        };
        let (requests, quiet) = quiet::connection();
        let router = AddExtension::new(router.clone(), Peer { address: peer, requests, server_name: None });
        let (acceptor, watcher) = (acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Some(stream) = in_time(acceptor.accept(stream)).await {
                serve_connection(stream, router, watcher, quiet).await;
            }
            drop(permit);
        });
    }
    drop(listener);
    if let Some(graceful) = Arc::into_inner(graceful) {
        end(graceful).await;
    }
}

/// So many connections at once.
pub(super) fn permits(connections: u32) -> usize {
    usize::try_from(connections.max(1)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// The next connection, and whose it is.
pub(super) async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return (stream, peer.ip());
            }
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What a step of the handshake gives, unless it fails or takes too long.
pub(super) async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> Option<T> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, step).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("the TLS handshake took too long");
            None
        }
    }
}

/// Lets open requests end, for a while.
pub(super) async fn end(connections: GracefulShutdown) {
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, connections.shutdown()).await.is_err() {
        tracing::warn!("requests were still open at the end of the grace period");
    }
}

pub(super) async fn serve_connection(
    stream: TlsStream<TcpStream>,
    router: AddExtension<Router, Peer>,
    watcher: hyper_util::server::graceful::Watcher,
    quiet: Quiet,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).max_header_list_size(HEADERS_MAX);
    builder.http2().keep_alive_interval(KEEP_ALIVE_INTERVAL).keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
    tokio::select! {
        ended = watcher.watch(connection) => if let Err(error) = ended {
            tracing::debug!(error = error.as_ref(), "a connection ended with an error");
        },
        () = quiet.too_long() => tracing::debug!("a connection was closed on which nothing was asked"),
    }
}
