//! The admin API's denied platforms and single audit entries; merged into the routes of `admin.rs`.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::problem::{ApiError, body};
use crate::api::{NewPlatformDenial, PlatformAllowance, PlatformDenial, PlatformDenied};
use crate::release::Refusal;
use crate::service::SharedService;
use crate::store::AuditEntry;

pub(super) fn routes() -> Router<SharedService> {
    Router::new()
        .route("/platforms", get(list))
        .route("/platforms/deny", post(deny))
        .route("/platforms/allow", post(allow))
        .route("/audit/{entry}", get(entry))
}

async fn list(State(service): State<SharedService>) -> Result<Json<Vec<PlatformDenial>>, ApiError> {
    Ok(Json(service.store.platform_denials().await?))
}

async fn deny(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<PlatformDenied>, ApiError> {
    let new: NewPlatformDenial = body(&bytes)?;
    check_reason("a denial", &new.reason)?;
    let leases = service.store.deny_platform(&new, service.now()).await?;
    Ok(Json(PlatformDenied { rule: new.rule, dry_run: new.dry_run, leases }))
}

async fn allow(State(service): State<SharedService>, bytes: Bytes) -> Result<Json<PlatformDenial>, ApiError> {
    let PlatformAllowance { rule, reason } = body(&bytes)?;
    check_reason("an allowance", &reason)?;
    Ok(Json(service.store.allow_platform(&rule, &reason, service.now()).await?))
}

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
