//! Licences in the admin API.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use release_protocol::LicenseId;

use super::problem::{ApiError, body};
use crate::api::{IssuedLicense, LicenseStatus, NewLicense, Revoked};
use crate::service::SharedService;

pub(super) fn routes() -> Router<SharedService> {
    Router::new()
        .route("/licenses", get(list).post(issue))
        .route("/licenses/batch", post(issue_all))
        .route("/licenses/{license}", get(show))
        .route("/licenses/{license}/suspend", post(suspend))
        .route("/licenses/{license}/resume", post(resume))
        .route("/licenses/{license}/renew", post(renew))
        .route("/licenses/{license}/transfer", post(transfer))
        .route("/licenses/{license}/revoke", post(revoke))
}

async fn list(State(service): State<SharedService>) -> Result<Json<Vec<LicenseStatus>>, ApiError> {
    Ok(Json(service.store.license_list(service.now()).await?))
}

async fn issue(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<IssuedLicense>, ApiError> {
    let new: NewLicense = body(&bytes)?;
    let mut issued = service.issue_licenses(vec![new]).await?;
    let first = issued.pop().ok_or_else(|| crate::release::Refusal::Unknown("no licence was issued".to_owned()))?;
    Ok(Json(first))
}

async fn issue_all(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<Vec<IssuedLicense>>, ApiError> {
    let all: Vec<NewLicense> = body(&bytes)?;
    Ok(Json(service.issue_licenses(all).await?))
}

async fn show(State(service): State<SharedService>, Path(id): Path<String>) -> Result<Json<LicenseStatus>, ApiError> {
    Ok(Json(service.store.license_status(&LicenseId(id), service.now()).await?))
}

async fn suspend(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<LicenseStatus>, ApiError> {
    Ok(Json(service.suspend_license(&LicenseId(id), &body(&bytes)?).await?))
}

async fn resume(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<LicenseStatus>, ApiError> {
    Ok(Json(service.resume_license(&LicenseId(id), &body(&bytes)?).await?))
}

async fn renew(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<IssuedLicense>, ApiError> {
    Ok(Json(service.renew_license(&LicenseId(id), &body(&bytes)?).await?))
}

async fn transfer(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<IssuedLicense>, ApiError> {
    Ok(Json(service.transfer_license(&LicenseId(id), &body(&bytes)?).await?))
}

async fn revoke(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Revoked>, ApiError> {
    Ok(Json(service.revoke_license(&LicenseId(id), &body(&bytes)?).await?))
}
