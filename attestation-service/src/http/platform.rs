//! The admin API's denied platforms and single audit entries; merged into the routes of `admin.rs`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{ApiError, body};
use crate::api::{NewPlatformDenial, PlatformAllowance, PlatformDenial, PlatformDenied};
use crate::release::Refusal;
use crate::service::SharedService;
use crate::store::AuditEntry;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(deny)).routes(routes!(allow)).routes(routes!(entry))
}

/// Lists the platforms that are denied.
#[utoipa::path(
    get, path = "/platforms", tag = "platforms", operation_id = "listPlatformDenials",
    responses((status = 200, body = Vec<PlatformDenial>))
)]
async fn list(State(service): State<SharedService>) -> Result<Json<Vec<PlatformDenial>>, ApiError> {
    Ok(Json(service.store.platform_denials().await?))
}

/// Denies platforms; with `dry_run`, says only which leases would end.
#[utoipa::path(
    post, path = "/platforms/deny", tag = "platforms", operation_id = "denyPlatforms",
    request_body = NewPlatformDenial,
    responses((status = 200, body = PlatformDenied))
)]
async fn deny(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<PlatformDenied>, ApiError> {
    let new: NewPlatformDenial = body(&bytes)?;
    check_reason("a denial", &new.reason)?;
    let leases = service.store.deny_platform(&new, service.now()).await?;
    Ok(Json(PlatformDenied { rule: new.rule, dry_run: new.dry_run, leases }))
}

/// Lifts a denial.
#[utoipa::path(
    post, path = "/platforms/allow", tag = "platforms", operation_id = "allowPlatforms",
    request_body = PlatformAllowance,
    responses((status = 200, body = PlatformDenial))
)]
async fn allow(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<PlatformDenial>, ApiError> {
    let PlatformAllowance { rule, reason } = body(&bytes)?;
    check_reason("an allowance", &reason)?;
    Ok(Json(service.store.allow_platform(&rule, &reason, service.now()).await?))
}

/// Shows an entry of the audit log.
#[utoipa::path(
    get, path = "/audit/{entry}", tag = "audit", operation_id = "showAuditEntry",
    responses((status = 200, body = AuditEntry))
)]
async fn entry(State(service): State<SharedService>, Path(number): Path<String>) -> Result<Json<AuditEntry>, ApiError> {
    let number = number.parse().map_err(|_| Refusal::Malformed("an audit entry has a number".to_owned()))?;
    Ok(Json(service.store.audit_entry(number).await?))
}

/// A reason travels to guests and into the audit log.
fn check_reason(what: &str, reason: &str) -> Result<(), Refusal> {
    const LONGEST: usize = 512;
    if reason.trim().is_empty() {
        return Err(Refusal::Malformed(format!("{what} needs a reason")));
    }
    if reason.len() > LONGEST {
        return Err(Refusal::Malformed(format!("a reason has at most {LONGEST} bytes, this one {}", reason.len())));
    }
    Ok(())
}
