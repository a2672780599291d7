//! The admin API below `/api/v1`: JSON in and out, bearer tokens.

use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use release_protocol::{LeaseId, ProductName};
use serde::Deserialize;
use serde_json::json;

use super::problem::{ApiError, bearer, body};
use crate::api::{
    ImageKey, KeyManifests, LeaseStatus, NewImageKey, NewProduct, NewReference, Product, Reference, Retirement,
};
use crate::release::Refusal;
use crate::service::SharedService;
use crate::store::{ACTOR, AuditEntry, AuditKind};

pub(super) fn routes(service: SharedService) -> Router<SharedService> {
    Router::new()
        .route("/products", get(products).post(create_product))
        .route("/products/{product}", get(product))
        .route("/products/{product}/policy", put(set_policy).get(policy))
        .route("/products/{product}/references", get(references).post(add_reference))
        .route("/products/{product}/references/{reference}", delete(remove_reference))
        .route("/references/{reference}/retire", post(retire_reference))
        .route("/products/{product}/keys", get(keys).post(register_key))
        .route("/products/{product}/keys/{key}/manifests", post(bind_key))
        .route("/leases", get(leases))
        .route("/leases/{lease}/end", post(end_lease))
        .route("/audit", get(audit))
        .merge(super::license::routes())
        .merge(super::platform::routes())
        .merge(super::token::routes())
        .nest("/log", super::log::routes())
        .layer(from_fn_with_state(service, authenticate))
}

/// Lets a request through whose token is good and whose role may, and keeps in mind whose it is.
pub(super) async fn authenticate(
    State(service): State<SharedService>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(token) = bearer(request.headers(), &AUTHORIZATION) else {
        return Err(Refusal::NotAttested("the admin API wants a bearer token".to_owned()).into());
    };
    let Some(actor) = service.store.api_token(token, service.now()).await? else {
        return Err(Refusal::NotAttested("the API token is unknown, revoked or expired".to_owned()).into());
    };
    let (method, path) = (request.method(), request.uri().path());
    if let Err(why) = super::role::check(actor.role, method, path) {
        // A token in the wrong hands shows itself by this.
        let shown: String = path.chars().take(PATH_SHOWN).collect();
        let body = json!({"method": method.as_str(), "path": shown, "reasons": [why]});
        let refusal = service.store.record(AuditKind::RoleRefused, &body, service.now());
        let entry = ACTOR.scope(actor, refusal).await?;
        return Err(Refusal::Denied { reasons: vec![why], entry: Some(entry) }.into());
    }
    Ok(ACTOR.scope(actor, next.run(request)).await)
}

/// How much of a path that was refused is kept, in characters.
const PATH_SHOWN: usize = 256;

#[derive(Deserialize)]
struct Limit {
    #[serde(default = "Limit::default_limit")]
    limit: u32,
}

impl Limit {
    fn default_limit() -> u32 {
        1000
    }
}

fn product_name(text: &str) -> Result<ProductName, Refusal> {
    text.parse().map_err(|error| Refusal::Malformed(format!("`{text}`: {error}")))
}

async fn products(State(service): State<SharedService>) -> Result<Json<Vec<Product>>, ApiError> {
    Ok(Json(service.store.products().await?))
}

async fn create_product(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<Product>, ApiError> {
    let new: NewProduct = body(&bytes)?;
    Ok(Json(service.create_product(new).await?))
}

async fn product(State(service): State<SharedService>, Path(name): Path<String>) -> Result<Json<Product>, ApiError> {
    Ok(Json(service.store.product(&product_name(&name)?).await?))
}

async fn policy(State(service): State<SharedService>, Path(name): Path<String>) -> Result<String, ApiError> {
    let own = service.store.policy(&product_name(&name)?).await?;
    Ok(own.unwrap_or_else(|| crate::policy::DEFAULT_POLICY.to_owned()))
}

async fn set_policy(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    source: String,
) -> Result<StatusCode, ApiError> {
    let source = (!source.trim().is_empty()).then_some(source);
    service.set_policy(&product_name(&name)?, source).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn references(
    State(service): State<SharedService>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Reference>>, ApiError> {
    Ok(Json(service.store.product(&product_name(&name)?).await?.references))
}

async fn add_reference(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Reference>, ApiError> {
    let new: NewReference = body(&bytes)?;
    Ok(Json(service.add_reference(&product_name(&name)?, new).await?))
}

async fn retire_reference(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Reference>, ApiError> {
    let retirement: Retirement = body(&bytes)?;
    Ok(Json(service.retire_reference(&id, retirement).await?))
}

async fn remove_reference(
    State(service): State<SharedService>,
    Path((name, reference)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    service.store.remove_reference(&product_name(&name)?, &reference, service.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn keys(State(service): State<SharedService>, Path(name): Path<String>) -> Result<Json<Vec<ImageKey>>, ApiError> {
    let name = product_name(&name)?;
    service.store.product(&name).await?;
    Ok(Json(service.store.image_keys(&name).await?))
}

async fn register_key(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<StatusCode, ApiError> {
    let new: NewImageKey = body(&bytes)?;
    service.register_key(&product_name(&name)?, new).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn bind_key(
    State(service): State<SharedService>,
    Path((name, key)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<StatusCode, ApiError> {
    let bound: KeyManifests = body(&bytes)?;
    service.bind_key(&product_name(&name)?, &key, bound).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn leases(
    State(service): State<SharedService>,
    Query(limit): Query<Limit>,
) -> Result<Json<Vec<LeaseStatus>>, ApiError> {
    Ok(Json(service.store.leases(limit.limit, service.now()).await?))
}

async fn end_lease(State(service): State<SharedService>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    service.store.end_lease(&LeaseId(id), "ended by the vendor", service.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn audit(
    State(service): State<SharedService>,
    Query(limit): Query<Limit>,
) -> Result<Json<Vec<AuditEntry>>, ApiError> {
    Ok(Json(service.store.audit_entries(limit.limit).await?))
}
