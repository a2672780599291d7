//! The admin API's tokens; merged into the routes of `admin.rs`.

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::problem::{ApiError, body};
use crate::api::{CreatedToken, TokenStatus};
use crate::service::SharedService;

pub(super) fn routes() -> Router<SharedService> {
    Router::new().route("/tokens", get(list).post(create)).route("/tokens/revoke", post(revoke))
}

async fn list(State(service): State<SharedService>) -> Result<Json<Vec<TokenStatus>>, ApiError> {
    Ok(Json(service.store.api_tokens(service.now()).await?))
}

async fn create(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<CreatedToken>, ApiError> {
    Ok(Json(service.create_token(body(&bytes)?).await?))
}

async fn revoke(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<TokenStatus>, ApiError> {
    Ok(Json(service.revoke_token(&body(&bytes)?).await?))
}
