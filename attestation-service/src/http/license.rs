//! Licences in the admin API.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use release_protocol::LicenseId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{ApiError, body};
use crate::api::{IssuedLicense, LicenseStatus, NewLicense, Reason, Renewal, Revocation, Revoked, Transfer};
use crate::service::SharedService;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new()
        .routes(routes!(list, issue))
        .routes(routes!(issue_all))
        .routes(routes!(show))
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(renew))
        .routes(routes!(transfer))
        .routes(routes!(revoke))
}

/// Lists the licences.
#[utoipa::path(
    get, path = "/licenses", tag = "licenses", operation_id = "listLicenses",
    responses((status = 200, body = Vec<LicenseStatus>))
)]
async fn list(State(service): State<SharedService>) -> Result<Json<Vec<LicenseStatus>>, ApiError> {
    Ok(Json(service.store.license_list(service.now()).await?))
}

/// Issues a licence.
#[utoipa::path(
    post, path = "/licenses", tag = "licenses", operation_id = "issueLicense",
    request_body = NewLicense,
    responses((status = 200, body = IssuedLicense))
)]
async fn issue(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<IssuedLicense>, ApiError> {
    let new: NewLicense = body(&bytes)?;
    let mut issued = service.issue_licenses(vec![new]).await?;
    let first = issued.pop().ok_or_else(|| crate::release::Refusal::Unknown("no licence was issued".to_owned()))?;
    Ok(Json(first))
}

/// Issues many licences or none.
#[utoipa::path(
    post, path = "/licenses/batch", tag = "licenses", operation_id = "issueLicenses",
    request_body = Vec<NewLicense>,
    responses((status = 200, body = Vec<IssuedLicense>))
)]
async fn issue_all(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<Vec<IssuedLicense>>, ApiError> {
    let all: Vec<NewLicense> = body(&bytes)?;
    Ok(Json(service.issue_licenses(all).await?))
}

/// Shows a licence.
#[utoipa::path(
    get, path = "/licenses/{license}", tag = "licenses", operation_id = "showLicense",
    responses((status = 200, body = LicenseStatus))
)]
async fn show(State(service): State<SharedService>, Path(id): Path<String>) -> Result<Json<LicenseStatus>, ApiError> {
    Ok(Json(service.store.license_status(&LicenseId(id), service.now()).await?))
}

/// Suspends a licence: what runs under it stops.
#[utoipa::path(
    post, path = "/licenses/{license}/suspend", tag = "licenses", operation_id = "suspendLicense",
    request_body = Reason,
    responses((status = 200, body = LicenseStatus))
)]
async fn suspend(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<LicenseStatus>, ApiError> {
    Ok(Json(service.suspend_license(&LicenseId(id), &body(&bytes)?).await?))
}

/// Ends a suspension.
#[utoipa::path(
    post, path = "/licenses/{license}/resume", tag = "licenses", operation_id = "resumeLicense",
    request_body = Reason,
    responses((status = 200, body = LicenseStatus))
)]
async fn resume(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<LicenseStatus>, ApiError> {
    Ok(Json(service.resume_license(&LicenseId(id), &body(&bytes)?).await?))
}

/// Gives a licence another end or number of seats.
#[utoipa::path(
    post, path = "/licenses/{license}/renew", tag = "licenses", operation_id = "renewLicense",
    request_body = Renewal,
    responses((status = 200, body = IssuedLicense))
)]
async fn renew(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<IssuedLicense>, ApiError> {
    Ok(Json(service.renew_license(&LicenseId(id), &body(&bytes)?).await?))
}

/// Gives a licence another customer or other chips.
#[utoipa::path(
    post, path = "/licenses/{license}/transfer", tag = "licenses", operation_id = "transferLicense",
    request_body = Transfer,
    responses((status = 200, body = IssuedLicense))
)]
async fn transfer(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<IssuedLicense>, ApiError> {
    Ok(Json(service.transfer_license(&LicenseId(id), &body(&bytes)?).await?))
}

/// Revokes a licence for ever, at once or after a drain.
#[utoipa::path(
    post, path = "/licenses/{license}/revoke", tag = "licenses", operation_id = "revokeLicense",
    request_body = Revocation,
    responses((status = 200, body = Revoked))
)]
async fn revoke(
    State(service): State<SharedService>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Revoked>, ApiError> {
    Ok(Json(service.revoke_license(&LicenseId(id), &body(&bytes)?).await?))
}
