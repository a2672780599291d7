//! What those ask who watch over the service: does it live, is it ready, what has it counted.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::problem::ApiError;
use crate::api::Health;
use crate::release::Refusal;
use crate::service::SharedService;

/// How long the database may take to answer.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn routes(service: SharedService) -> Router<SharedService> {
    let metrics =
        Router::new().route("/metrics", get(metrics)).layer(from_fn_with_state(service, super::admin::authenticate));
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready)).merge(metrics)
}

async fn health(State(service): State<SharedService>) -> Json<Health> {
    Json(document(&service, "ok"))
}

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

async fn metrics(State(service): State<SharedService>) -> Result<impl IntoResponse, ApiError> {
    let gauges = service.store.gauges(service.now()).await?;
    let text = service.metrics.text(gauges).map_err(|_| Refusal::Unknown("there are no metrics".to_owned()))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// Counts every answer.
pub(super) async fn count(State(service): State<SharedService>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    service.metrics.answered(&path, response.status().as_u16());
    response
}
