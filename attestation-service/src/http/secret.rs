//! The admin API of secrets beside image keys. What is in one goes in and never comes out here.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use release_protocol::ResourcePath;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use super::admin::product_name;
use super::problem::ApiError;
use crate::api::SecretStatus;
use crate::release::Refusal;
use crate::service::SharedService;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new().routes(routes!(secrets)).routes(routes!(put_secret, remove_secret))
}

fn path((product, kind, tag): &(String, String, String)) -> Result<ResourcePath, Refusal> {
    let text = format!("{product}/{kind}/{tag}");
    text.parse().map_err(|error| Refusal::Malformed(format!("`{text}`: {error}")))
}

/// Lists a product's secrets, without what is in them.
#[utoipa::path(
    get, path = "/products/{product}/secrets", tag = "secrets", operation_id = "listSecrets",
    responses((status = 200, body = Vec<SecretStatus>))
)]
async fn secrets(
    State(service): State<SharedService>,
    Path(name): Path<String>,
) -> Result<Json<Vec<SecretStatus>>, ApiError> {
    let name = product_name(&name)?;
    service.store.product(&name).await?;
    Ok(Json(service.store.secrets(&name).await?))
}

/// Keeps a secret (the body as it is, 1 to 524288 bytes), in the place of one of the same type and tag.
#[utoipa::path(
    put, path = "/products/{product}/secrets/{type}/{tag}", tag = "secrets", operation_id = "putSecret",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204))
)]
async fn put_secret(
    State(service): State<SharedService>,
    Path(parts): Path<(String, String, String)>,
    bytes: Bytes,
) -> Result<StatusCode, ApiError> {
    let secret = Zeroizing::new(bytes.to_vec());
    service.put_secret(&path(&parts)?, &secret).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets a secret.
#[utoipa::path(
    delete, path = "/products/{product}/secrets/{type}/{tag}", tag = "secrets", operation_id = "removeSecret",
    responses((status = 204))
)]
async fn remove_secret(
    State(service): State<SharedService>,
    Path(parts): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    service.store.remove_secret(&path(&parts)?, service.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
