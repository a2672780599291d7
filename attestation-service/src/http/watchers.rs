//! What those ask who watch over the service: does it live, is it ready, what has it counted.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::guard::Peer;
use super::problem::ApiError;
use crate::api::Health;
use crate::release::Refusal;
use crate::service::SharedService;

/// How long the database may take to answer.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);

/// What anybody may ask.
pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready)).routes(routes!(openapi))
}

/// What needs a token.
pub(super) fn metrics_routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "service", operation_id = "openapi",
    responses((status = 200, body = serde_json::Value, content_type = "application/json"))
)]
async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], super::document::text())
}

/// Whether the service lives.
#[utoipa::path(
    get, path = "/healthz", tag = "service", operation_id = "health",
    responses((status = 200, body = Health))
)]
async fn health(State(service): State<SharedService>) -> Json<Health> {
    Json(document(&service, "ok"))
}

/// Whether the service can do its work: its database answers.
#[utoipa::path(
    get, path = "/readyz", tag = "service", operation_id = "ready",
    responses((status = 200, body = Health))
)]
async fn ready(State(service): State<SharedService>) -> Result<Json<Health>, ApiError> {
    let answer = tokio::time::timeout(DATABASE_TIMEOUT, service.store.ping()).await;
    if !matches!(answer, Ok(Ok(()))) {
        let detail = "the service's database does not answer".to_owned();
        return Err(Refusal::Unavailable { detail, retry_after: DATABASE_TIMEOUT }.into());
    }
    Ok(Json(document(&service, "ready")))
}

fn document(service: &SharedService, status: &str) -> Health {
    Health {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        simulated_platforms_allowed: service.allows_simulated(),
    }
}

/// What the service has counted, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "service", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn metrics(State(service): State<SharedService>) -> Result<impl IntoResponse, ApiError> {
    let gauges = service.store.gauges(service.now()).await?;
    let text = service.metrics.text(gauges).map_err(|_| Refusal::Unknown("there are no metrics".to_owned()))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// Counts every request while it is answered, and every answer.
pub(super) async fn count(State(service): State<SharedService>, request: Request, next: Next) -> Response {
    let _open = request.extensions().get::<Peer>().map(|peer| peer.requests.begin());
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    service.metrics.answered(&path, response.status().as_u16());
    response
}
