//! The admin API's tokens; merged into the routes of `admin.rs`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{ApiError, body};
use crate::api::{CreatedToken, NewToken, TokenRevocation, TokenStatus};
use crate::service::SharedService;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// Lists the API tokens, without the tokens.
#[utoipa::path(
    get, path = "/tokens", tag = "tokens", operation_id = "listTokens",
    responses((status = 200, body = Vec<TokenStatus>))
)]
async fn list(State(service): State<SharedService>) -> Result<Json<Vec<TokenStatus>>, ApiError> {
    Ok(Json(service.store.api_tokens(service.now()).await?))
}

/// Makes an API token; it is shown this once.
#[utoipa::path(
    post, path = "/tokens", tag = "tokens", operation_id = "createToken",
    request_body = NewToken,
    responses((status = 200, body = CreatedToken))
)]
async fn create(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<CreatedToken>, ApiError> {
    Ok(Json(service.create_token(body(&bytes)?).await?))
}

/// Revokes an API token.
#[utoipa::path(
    post, path = "/tokens/revoke", tag = "tokens", operation_id = "revokeToken",
    request_body = TokenRevocation,
    responses((status = 200, body = TokenStatus))
)]
async fn revoke(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<TokenStatus>, ApiError> {
    Ok(Json(service.revoke_token(&body(&bytes)?).await?))
}
