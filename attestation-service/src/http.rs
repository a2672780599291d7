//! HTTP: routes, limits, TLS. Turns requests into calls of the service and its refusals into problem documents.

mod admin;
mod custody;
mod document;
mod guard;
mod kbs;
mod license;
mod log;
mod platform;
mod problem;
mod quiet;
mod role;
mod secret;
mod tenants;
mod tls;
mod token;
mod transfer;
mod watchers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::router::OpenApiRouter;

pub use document::text as openapi;
pub use tenants::TenantServer;
pub use tls::ServeError;

use crate::api::API_PREFIX;
use crate::home::Home;
use crate::memory::keep_giving_back;
use crate::service::{Service, SharedService};

/// The largest request body, in bytes: evidence with its certificates and a licence fit many times.
const BODY_MAX: usize = 1 << 20;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What goes on beside the answers, as long as the service is served.
type Kept = ((), (), (), ());

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    refresh: JoinHandle<(Kept, ())>,
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
    let kept = keep_up(&service);
    let refresh = tokio::spawn(async move { tokio::join!(kept, keep_giving_back()) });
    let connections = service.limits.connections;
    let router = router(Arc::clone(&service));
    let task = tokio::spawn(tls::accept_loop(listener, acceptor, router, connections, stopped));
    Ok(Server { address, stop, task, refresh, service })
}

/// What a service does besides answering: it hears of its replicas until it stops, and the rest for ever.
fn keep_up(service: &SharedService) -> impl Future<Output = Kept> + use<> {
    tokio::spawn(Arc::clone(service).hear_of_replicas());
    let fresh = Arc::clone(service);
    let witnessed = Arc::clone(service).keep_witnessed();
    let rotated = Arc::clone(service).keep_rotating();
    let held = Arc::clone(service);
    async move { tokio::join!(fresh.keep_endorsements_fresh(), witnessed, rotated, held.custodian.keep_tokens()) }
}

/// All routes, with what stands around those of the key broker and those that need a token. What is registered here is what
/// the OpenAPI document lists.
fn routes(limited: impl FnOnce(Routes) -> Routes, authenticated: impl Fn(Routes) -> Routes) -> Routes {
    Routes::new()
        .merge(watchers::routes())
        .merge(authenticated(watchers::metrics_routes()))
        .nest(release_protocol::KBS_PREFIX, limited(kbs::routes()))
        .nest(API_PREFIX, authenticated(admin::routes()))
}

type Routes = OpenApiRouter<SharedService>;

fn router(service: SharedService) -> Router {
    let guard = guard::Guard::new(service.clone());
    let (routes, _) = routes(
        |routes| routes.layer(from_fn_with_state(guard, guard::limit)),
        |routes| routes.layer(from_fn_with_state(service.clone(), admin::authenticate)),
    )
    .split_for_parts();
    routes
        .fallback(problem::no_such_route)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        // What says that it is larger is refused before anything of it is read.
        .layer(RequestBodyLimitLayer::new(BODY_MAX))
        .layer(TimeoutLayer::with_status_code(axum::http::StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT))
        .layer(CatchPanicLayer::new())
        .layer(map_response(problem::of_layers))
        .layer(from_fn_with_state(service.clone(), watchers::count))
        .with_state(service)
}
