//! The admin API of master keys.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{ApiError, body};
use crate::api::{CustodyStatus, MasterKeyChange};
use crate::service::SharedService;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(change))
}

/// Shows which master keys there are, and how far their change is.
#[utoipa::path(
    get, path = "/custody", tag = "keys", operation_id = "showCustody",
    responses((status = 200, body = CustodyStatus))
)]
async fn status(State(service): State<SharedService>) -> Result<Json<CustodyStatus>, ApiError> {
    Ok(Json(service.custody_status().await?))
}

/// Makes another key the master key; what is under the former one is sealed anew in the background.
#[utoipa::path(
    post, path = "/custody/rotate", tag = "keys", operation_id = "rotateMasterKey",
    request_body = MasterKeyChange,
    responses((status = 200, body = CustodyStatus))
)]
async fn change(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<CustodyStatus>, ApiError> {
    let change: MasterKeyChange = body(&bytes)?;
    Ok(Json(service.change_master_key(change).await?))
}
