//! The key broker protocol (KBS 0.4.0) below `/kbs/v0`, for our shim and for stock clients.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use release_protocol::{Attestation, LeaseNews, Request, SESSION_COOKIE};
use serde::Deserialize;

use super::problem::{ApiError, body};
use crate::metrics::Outcome;
use crate::release::Refusal;
use crate::service::SharedService;

pub(super) fn routes() -> Router<SharedService> {
    Router::new()
        .route("/auth", post(auth))
        .route("/attest", post(attest))
        .route("/resource/{*path}", get(resource))
        .route("/lease/end", post(end_lease))
        .route("/lease/watch", get(watch_lease))
        .route("/log/consistency", get(super::log::consistency))
        .route("/log/witnessed", get(super::log::witnessed))
}

async fn auth(State(service): State<SharedService>, bytes: Bytes) -> Result<Response, ApiError> {
    let request: Request = body(&bytes)?;
    let challenge = service.challenge(&request)?;
    let cookie = session_cookie(&challenge.nonce)?;
    Ok(([(SET_COOKIE, cookie)], Json(challenge)).into_response())
}

async fn attest(State(service): State<SharedService>, bytes: Bytes) -> Result<Response, ApiError> {
    let answer = match body::<Attestation>(&bytes) {
        Ok(attestation) => SharedService::clone(&service).attest(attestation).await,
        Err(refusal) => Err(refusal),
    };
    service.metrics.attested(outcome(answer.as_ref().err()));
    let answer = answer?;
    if answer.simulated {
        tracing::warn!(lease = answer.lease.as_ref().map(|lease| lease.id.0.as_str()), "attested a SIMULATED platform");
    }
    // Stock clients come back with the cookie alone: it is the token.
    let cookie = session_cookie(&answer.token)?;
    Ok(([(SET_COOKIE, cookie)], Json(answer)).into_response())
}

fn outcome(refusal: Option<&Refusal>) -> Outcome {
    match refusal {
        None => Outcome::Allowed,
        Some(Refusal::Denied { .. }) => Outcome::Denied,
        Some(Refusal::EvidenceRejected { .. }) => Outcome::EvidenceRejected,
        Some(Refusal::SeatsExhausted { .. }) => Outcome::SeatsExhausted,
        Some(Refusal::Malformed(_) | Refusal::NotAttested(_) | Refusal::Unknown(_)) => Outcome::Refused,
        Some(Refusal::Unavailable { .. } | Refusal::TooMany { .. }) => Outcome::Unavailable,
        Some(Refusal::Internal(_)) => Outcome::Failed,
    }
}

async fn resource(
    State(service): State<SharedService>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let answer = service.release(session_token(&headers), &path).await?;
    service.metrics.key_releases.count();
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
}

async fn end_lease(State(service): State<SharedService>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    service.end_own_lease(session_token(&headers)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Since {
    since: Option<u64>,
}

async fn watch_lease(
    State(service): State<SharedService>,
    Query(query): Query<Since>,
    headers: HeaderMap,
) -> Result<Json<LeaseNews>, ApiError> {
    Ok(Json(service.watch_lease(session_token(&headers), query.since).await?))
}

fn session_cookie(value: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(&format!("{SESSION_COOKIE}={value}; Path=/; HttpOnly; Secure; SameSite=Strict"))
        .map_err(|_| Refusal::Malformed("the session cannot be put in a cookie".to_owned()))
}

/// The bearer token, else the session cookie.
fn session_token(headers: &HeaderMap) -> Option<&str> {
    if let Some(token) = super::problem::bearer(headers, &AUTHORIZATION) {
        return Some(token);
    }
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(SESSION_COOKIE)?.strip_prefix('='))
}
