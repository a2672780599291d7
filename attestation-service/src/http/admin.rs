//! The admin API below `/api/v1`: JSON in and out, bearer tokens.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use release_protocol::{LeaseId, ProductName, RenewalAnswer, RenewalRequest};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{ApiError, bearer, body};
use crate::api::{
    ImageKey, KeyManifests, LeaseStatus, NewImageKey, NewProduct, NewReference, Product, Reference, Retirement, Rewrap,
    Rewrapped, Role,
};
use crate::release::Refusal;
use crate::service::SharedService;
use crate::store::{ACTOR, AuditEntry, AuditKind, EndedBy};

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new()
        .routes(routes!(products, create_product))
        .routes(routes!(product))
        .routes(routes!(set_policy, policy))
        .routes(routes!(references, add_reference))
        .routes(routes!(remove_reference))
        .routes(routes!(retire_reference))
        .routes(routes!(keys, register_key))
        .routes(routes!(bind_key))
        .routes(routes!(rewrap_keys))
        .routes(routes!(leases))
        .routes(routes!(end_lease))
        .routes(routes!(renew_lease))
        .routes(routes!(audit))
        .merge(super::custody::routes())
        .merge(super::license::routes())
        .merge(super::platform::routes())
        .merge(super::secret::routes())
        .merge(super::token::routes())
        .merge(super::transfer::routes())
        .nest("/log", super::log::routes())
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
    if service.is_relay() && !super::role::is_for_relays(method, path) {
        let why = "this service is a relay: what was delegated to it is changed by the vendor alone".to_owned();
        return Err(Refusal::Denied { reasons: vec![why], entry: None }.into());
    }
    Ok(ACTOR.scope(actor, next.run(request)).await)
}

/// How much of a path that was refused is kept, in characters.
const PATH_SHOWN: usize = 256;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Limit {
    /// How many at the most.
    #[serde(default = "Limit::default_limit")]
    limit: u32,
}

impl Limit {
    fn default_limit() -> u32 {
        1000
    }
}

pub(super) fn product_name(text: &str) -> Result<ProductName, Refusal> {
    text.parse().map_err(|error| Refusal::Malformed(format!("`{text}`: {error}")))
}

/// Lists the products.
#[utoipa::path(
    get, path = "/products", tag = "products", operation_id = "listProducts",
    responses((status = 200, body = Vec<Product>))
)]
async fn products(State(service): State<SharedService>) -> Result<Json<Vec<Product>>, ApiError> {
    Ok(Json(service.store.products().await?))
}

/// Makes a product.
#[utoipa::path(
    post, path = "/products", tag = "products", operation_id = "createProduct",
    request_body = NewProduct,
    responses((status = 200, body = Product))
)]
async fn create_product(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<Product>, ApiError> {
    let new: NewProduct = body(&bytes)?;
    Ok(Json(service.create_product(new).await?))
}

/// Shows a product.
#[utoipa::path(
    get, path = "/products/{product}", tag = "products", operation_id = "showProduct",
    responses((status = 200, body = Product))
)]
async fn product(State(service): State<SharedService>, Path(name): Path<String>) -> Result<Json<Product>, ApiError> {
    Ok(Json(service.store.product(&product_name(&name)?).await?))
}

/// Shows a product's release policy (Rego): its own, or the one of products that have none.
#[utoipa::path(
    get, path = "/products/{product}/policy", tag = "products", operation_id = "showPolicy",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn policy(State(service): State<SharedService>, Path(name): Path<String>) -> Result<String, ApiError> {
    let own = service.store.policy(&product_name(&name)?).await?;
    Ok(own.unwrap_or_else(|| crate::policy::DEFAULT_POLICY.to_owned()))
}

/// Sets a product's release policy (Rego); an empty one takes it away, and the default counts again.
#[utoipa::path(
    put, path = "/products/{product}/policy", tag = "products", operation_id = "setPolicy",
    request_body(content = String, content_type = "text/plain"),
    responses((status = 204))
)]
async fn set_policy(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    source: String,
) -> Result<StatusCode, ApiError> {
    let source = (!source.trim().is_empty()).then_some(source);
    service.set_policy(&product_name(&name)?, source).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists a product's reference values, retired ones included.
#[utoipa::path(
    get, path = "/products/{product}/references", tag = "references", operation_id = "listReferences",
    responses((status = 200, body = Vec<Reference>))
)]
async fn references(
    State(service): State<SharedService>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Reference>>, ApiError> {
    Ok(Json(service.store.product(&product_name(&name)?).await?.references))
}

/// Adds a reference value to a product.
#[utoipa::path(
    post, path = "/products/{product}/references", tag = "references", operation_id = "addReference",
    request_body = NewReference,
    responses((status = 200, body = Reference))
)]
async fn add_reference(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Reference>, ApiError> {
    let new: NewReference = body(&bytes)?;
    Ok(Json(service.add_reference(&product_name(&name)?, new).await?))
}

/// Retires a reference value, now or later.
#[utoipa::path(
    post, path = "/references/{reference}/retire", tag = "references", operation_id = "retireReference",
    request_body = Retirement,
    responses((status = 200, body = Reference))
)]
async fn retire_reference(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Reference>, ApiError> {
    let retirement: Retirement = body(&bytes)?;
    Ok(Json(service.retire_reference(&id, retirement).await?))
}

/// Removes a reference value.
#[utoipa::path(
    delete, path = "/products/{product}/references/{reference}", tag = "references", operation_id = "removeReference",
    responses((status = 204))
)]
async fn remove_reference(
    State(service): State<SharedService>,
    Path((name, reference)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    service.store.remove_reference(&product_name(&name)?, &reference, service.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists a product's image keys, without the keys.
#[utoipa::path(
    get, path = "/products/{product}/keys", tag = "keys", operation_id = "listKeys",
    responses((status = 200, body = Vec<ImageKey>))
)]
async fn keys(State(service): State<SharedService>, Path(name): Path<String>) -> Result<Json<Vec<ImageKey>>, ApiError> {
    let name = product_name(&name)?;
    service.store.product(&name).await?;
    Ok(Json(service.store.image_keys(&name).await?))
}

/// Registers an image key, with the manifests that it may open or pending.
#[utoipa::path(
    post, path = "/products/{product}/keys", tag = "keys", operation_id = "registerKey",
    request_body = NewImageKey,
    responses((status = 204))
)]
async fn register_key(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<StatusCode, ApiError> {
    let new: NewImageKey = body(&bytes)?;
    service.register_key(&product_name(&name)?, new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Binds a pending image key to its manifests, once.
#[utoipa::path(
    post, path = "/products/{product}/keys/{key}/manifests", tag = "keys", operation_id = "bindKey",
    request_body = KeyManifests,
    responses((status = 204))
)]
async fn bind_key(
    State(service): State<SharedService>,
    Path((name, key)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<StatusCode, ApiError> {
    let bound: KeyManifests = body(&bytes)?;
    service.bind_key(&product_name(&name)?, &key, bound).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Wraps layers' keys under a new image key, which is pending. Only administrators may name recipients.
#[utoipa::path(
    post, path = "/products/{product}/keys/rewrap", tag = "keys", operation_id = "rewrapKeys",
    request_body = Rewrap,
    responses((status = 200, body = Rewrapped))
)]
async fn rewrap_keys(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Rewrapped>, ApiError> {
    let request: Rewrap = body(&bytes)?;
    // Whoever may name one could read every image of the product.
    if !request.recipients.is_empty() && ACTOR.try_with(|actor| actor.role) != Ok(Role::Admin) {
        let why = "a recipient opens the layers without the service; only admin may name one".to_owned();
        return Err(Refusal::Denied { reasons: vec![why], entry: None }.into());
    }
    Ok(Json(service.rewrap(&product_name(&name)?, request).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LeasePage {
    /// How many at the most; not more than 10,000.
    #[serde(default = "Limit::default_limit")]
    limit: u32,
    /// The id of the lease that the page before ended with.
    after: Option<String>,
}

/// The most leases of one page.
const LEASES_MAX: u32 = 10_000;

/// Lists leases, the newest first, page by page.
#[utoipa::path(
    get, path = "/leases", tag = "leases", operation_id = "listLeases",
    params(LeasePage),
    responses((status = 200, body = Vec<LeaseStatus>))
)]
async fn leases(
    State(service): State<SharedService>,
    Query(page): Query<LeasePage>,
) -> Result<Json<Vec<LeaseStatus>>, ApiError> {
    let after = page.after.map(LeaseId);
    Ok(Json(service.store.leases(page.limit.min(LEASES_MAX), after.as_ref(), service.now()).await?))
}

/// Ends a lease: what runs under it stops.
#[utoipa::path(
    post, path = "/leases/{lease}/end", tag = "leases", operation_id = "endLease",
    responses((status = 204))
)]
async fn end_lease(State(service): State<SharedService>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    service.store.end_lease(&LeaseId(id), EndedBy::Vendor, "ended by the vendor", service.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Renews a lease whose guest does not reach the service: judges a request that was carried by file.
#[utoipa::path(
    post, path = "/leases/renew", tag = "leases", operation_id = "renewLease",
    request_body = RenewalRequest,
    responses((status = 200, body = RenewalAnswer))
)]
async fn renew_lease(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<RenewalAnswer>, ApiError> {
    let request: RenewalRequest = body(&bytes)?;
    Ok(Json(service.renew_by_file(request).await?))
}

/// Lists entries of the audit log, the newest first.
#[utoipa::path(
    get, path = "/audit", tag = "audit", operation_id = "listAuditEntries",
    params(Limit),
    responses((status = 200, body = Vec<AuditEntry>))
)]
async fn audit(
    State(service): State<SharedService>,
    Query(limit): Query<Limit>,
) -> Result<Json<Vec<AuditEntry>>, ApiError> {
    Ok(Json(service.store.audit_entries(limit.limit).await?))
}
