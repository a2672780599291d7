//! The admin API of layers' keys that go from one service to another.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::admin::product_name;
use super::problem::{ApiError, body};
use crate::api::{ExportedKeys, ImportKey, KeyExport, KeyImport, Rewrapped, Role};
use crate::release::Refusal;
use crate::service::SharedService;
use crate::store::ACTOR;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new().routes(routes!(make_import_key)).routes(routes!(export_keys)).routes(routes!(import_keys))
}

/// Makes a key that another service encrypts the layers' keys of one image to; it is good for one import, soon.
#[utoipa::path(
    post, path = "/products/{product}/keys/import-key", tag = "keys", operation_id = "makeImportKey",
    responses((status = 200, body = ImportKey))
)]
async fn make_import_key(
    State(service): State<SharedService>,
    Path(name): Path<String>,
) -> Result<Json<ImportKey>, ApiError> {
    Ok(Json(service.make_import_key(&product_name(&name)?).await?))
}

/// Encrypts layers' keys to another service's import key. For administrators alone.
#[utoipa::path(
    post, path = "/products/{product}/keys/export", tag = "keys", operation_id = "exportKeys",
    request_body = KeyExport,
    responses((status = 200, body = ExportedKeys))
)]
async fn export_keys(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<ExportedKeys>, ApiError> {
    let export: KeyExport = body(&bytes)?;
    // Whoever has the key that it names could read every image of the product.
    if ACTOR.try_with(|actor| actor.role) != Ok(Role::Admin) {
        let why = "another service opens the layers by these keys; only admin may hand them out".to_owned();
        return Err(Refusal::Denied { reasons: vec![why], entry: None }.into());
    }
    Ok(Json(service.export_keys(&product_name(&name)?, export).await?))
}

/// Wraps layers whose keys another service encrypted to an import key under a new image key, which is pending.
#[utoipa::path(
    post, path = "/products/{product}/keys/import", tag = "keys", operation_id = "importKeys",
    request_body = KeyImport,
    responses((status = 200, body = Rewrapped))
)]
async fn import_keys(
    State(service): State<SharedService>,
    Path(name): Path<String>,
    bytes: Bytes,
) -> Result<Json<Rewrapped>, ApiError> {
    let import: KeyImport = body(&bytes)?;
    Ok(Json(service.import_keys(&product_name(&name)?, import).await?))
}
