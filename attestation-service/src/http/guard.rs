//! Limits on the key broker's requests, which anybody may make: so many of one address, so many at once.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use release_protocol::KBS_PREFIX;
use tokio::sync::Semaphore;

use super::problem::ApiError;
use super::quiet::Requests;
use crate::limits::RateLimiter;
use crate::release::Refusal;
use crate::service::SharedService;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) requests: Requests,
    /// The name that it asked for in the handshake, where that chose the service.
    pub(super) server_name: Option<Arc<str>>,
}

/// The limits of one server.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    service: SharedService,
    rates: Arc<RateLimiter>,
    running: Arc<Semaphore>,
}

impl Guard {
    pub(super) fn new(service: SharedService) -> Self {
        let rates = Arc::new(RateLimiter::new(&service.limits, Instant::now()));
        // More than a semaphore holds is as good as none.
        let most = usize::try_from(service.limits.concurrent_requests.max(1)).unwrap_or(usize::MAX);
        let running = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { service, rates, running }
    }
}

/// Lets a request through, or says when to come back.
pub(super) async fn limit(State(guard): State<Guard>, request: Request, next: Next) -> Result<Response, ApiError> {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address);
    if let Err(retry_after) = guard.rates.take(peer, Instant::now()) {
        guard.service.metrics.rate_limited.count();
        return Err(Refusal::TooMany { retry_after }.into());
    }
    let path = request.uri().path();
    // A guest with a session waits there for news and costs nothing meanwhile.
    if path.strip_prefix(KBS_PREFIX).unwrap_or(path) == "/lease/watch" {
        return Ok(next.run(request).await);
    }
    let Ok(_running) = guard.running.try_acquire() else {
        guard.service.metrics.overloaded.count();
        let detail = "the service is answering as many requests as it can".to_owned();
        return Err(Refusal::Unavailable { detail, retry_after: Duration::from_secs(1) }.into());
    };
    Ok(next.run(request).await)
}
