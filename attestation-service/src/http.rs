//! HTTP: routes, limits, TLS. Turns requests into calls of the service and its refusals into problem documents.

mod admin;
mod kbs;
mod license;
mod log;
mod platform;
mod problem;
mod role;
mod tls;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

pub use tls::ServeError;

use crate::api::{API_PREFIX, Health};
use crate::home::Home;
use crate::service::{Service, SharedService};

/// The largest request body, in bytes: evidence with its certificates and a licence fit many times.
const BODY_MAX: usize = 1 << 20;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    refresh: JoinHandle<()>,
    service: SharedService,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops taking connections, lets the open requests end (for at most ten seconds), and returns.
    pub async fn stop(self) {
        // The receiver lives as long as the task.
        let _ = self.stop.send(true);
        self.refresh.abort();
        self.service.stop_watches();
        let _ = self.task.await;
    }
}

/// Starts to serve the service over TLS with the home's certificate.
pub async fn serve(home: &Home, service: Arc<Service>, listen: SocketAddr) -> Result<Server, ServeError> {
    let acceptor = tls::acceptor(home)?;
    let listener = tls::bind(listen).await?;
    let address = listener.local_addr().map_err(|source| ServeError::Listen { address: listen, source })?;
    let (stop, stopped) = watch::channel(false);
    let fresh = Arc::clone(&service);
    let refresh = tokio::spawn(async move { fresh.keep_endorsements_fresh().await });
    let task = tokio::spawn(tls::accept_loop(listener, acceptor, router(Arc::clone(&service)), stopped));
    Ok(Server { address, stop, task, refresh, service })
}

fn router(service: SharedService) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .nest(release_protocol::KBS_PREFIX, kbs::routes())
        .nest(API_PREFIX, admin::routes(service.clone()))
        .fallback(problem::no_such_route)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(TimeoutLayer::with_status_code(axum::http::StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT))
        .layer(CatchPanicLayer::new())
        .layer(axum::middleware::map_response(problem::of_layers))
        .with_state(service)
}

async fn health(State(service): State<SharedService>) -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        simulated_platforms_allowed: service.allows_simulated(),
    })
}
