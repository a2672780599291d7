//! The key broker protocol (KBS 0.4.0) below `/kbs/v0`, for our shim and for stock clients.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use release_protocol::{AttestAnswer, Attestation, LeaseNews, LogPlace, Request, SESSION_COOKIE};
use serde::Deserialize;
use tower_http::limit::RequestBodyLimitLayer;
use transparency_log::ConsistencyProof;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::document::{AuthChallenge, AuthRequest, EncryptedResource};
use super::log::{Leaf, Sizes};
use super::problem::{ApiError, body};
use crate::api::Delegation;
use crate::metrics::Outcome;
use crate::release::Refusal;
use crate::service::SharedService;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    let auth = OpenApiRouter::new()
        .routes(routes!(auth))
        .layer(DefaultBodyLimit::max(AUTH_MAX))
        .layer(RequestBodyLimitLayer::new(AUTH_MAX));
    OpenApiRouter::new()
        .merge(auth)
        .routes(routes!(attest))
        .routes(routes!(resource))
        .routes(routes!(delegation))
        .routes(routes!(end_lease))
        .routes(routes!(watch_lease))
        .routes(routes!(consistency))
        .routes(routes!(witnessed))
}

/// The largest request for a challenge, in bytes: there is next to nothing in it, and anybody may send it.
const AUTH_MAX: usize = 64 << 10;

/// Asks for a challenge.
#[utoipa::path(
    post, path = "/auth", tag = "release", operation_id = "requestChallenge",
    request_body = AuthRequest,
    responses((status = 200, body = AuthChallenge))
)]
async fn auth(State(service): State<SharedService>, bytes: Bytes) -> Result<Response, ApiError> {
    let request: Request = body(&bytes)?;
    let challenge = service.challenge(&request)?;
    let cookie = session_cookie(&challenge.nonce)?;
    Ok(([(SET_COOKIE, cookie)], Json(challenge)).into_response())
}

/// Presents evidence, and with it a licence and a workload: the answer is a token, and a lease where one is granted.
#[utoipa::path(
    post, path = "/attest", tag = "release", operation_id = "attest",
    request_body = Attestation,
    responses((status = 200, body = AttestAnswer))
)]
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

/// An image key or another secret, encrypted to the attested guest's own key: a JWE in its flattened JSON form.
#[utoipa::path(
    get, path = "/resource/{*path}", tag = "release", operation_id = "fetchResource",
    responses((status = 200, body = EncryptedResource))
)]
async fn resource(
    State(service): State<SharedService>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let answer = service.release(session_token(&headers), &path).await?;
    service.metrics.key_releases.count();
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
}

/// What a relay that holds a lease may hand on. The keys that are named here it fetches one by one.
#[utoipa::path(
    get, path = "/delegation", tag = "release", operation_id = "fetchDelegation",
    responses((status = 200, body = Delegation))
)]
async fn delegation(State(service): State<SharedService>, headers: HeaderMap) -> Result<Response, ApiError> {
    let answer = service.delegation(session_token(&headers)).await?;
    Ok(([(CONTENT_TYPE, "application/json")], answer).into_response())
}

/// Ends the session's own lease: the workload has stopped.
#[utoipa::path(post, path = "/lease/end", tag = "release", operation_id = "endOwnLease", responses((status = 204)))]
async fn end_lease(State(service): State<SharedService>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    service.end_own_lease(session_token(&headers)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Since {
    /// From when on news count: what the answer before said, or the attestation's `news_since`.
    since: Option<u64>,
}

/// Waits for news of the session's lease, and answers after a while without any.
#[utoipa::path(
    get, path = "/lease/watch", tag = "release", operation_id = "watchLease",
    params(Since),
    responses((status = 200, body = LeaseNews))
)]
async fn watch_lease(
    State(service): State<SharedService>,
    Query(query): Query<Since>,
    headers: HeaderMap,
) -> Result<Json<LeaseNews>, ApiError> {
    Ok(Json(service.watch_lease(session_token(&headers), query.since).await?))
}

/// Where a leaf stands in the newest checkpoint that witnesses cosigned.
#[utoipa::path(
    get, path = "/log/witnessed", tag = "release", operation_id = "proveWitnessed",
    params(Leaf),
    responses((status = 200, body = LogPlace))
)]
async fn witnessed(State(service): State<SharedService>, Query(leaf): Query<Leaf>) -> Result<Json<LogPlace>, ApiError> {
    Ok(Json(service.witnessed_place(leaf.index).await?))
}

/// The proof that one state of the audit log extends another, for guests that keep receipts.
#[utoipa::path(
    get, path = "/log/consistency", tag = "release", operation_id = "proveConsistencyToGuest",
    params(Sizes),
    responses((status = 200, body = Vec<String>))
)]
async fn consistency(service: State<SharedService>, sizes: Query<Sizes>) -> Result<Json<ConsistencyProof>, ApiError> {
    super::log::consistency(service, sizes).await
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
