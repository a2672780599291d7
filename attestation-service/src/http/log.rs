//! The audit log over HTTP: the C2SP tlog-tiles resources and receipts. Tiles hold the entries of all customers, so they are
//! below the admin API; guests get hashes only.

use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use release_protocol::{EvidenceBundle, LeaseId, LogPlace};
use serde::Deserialize;
use transparency_log::{ConsistencyProof, Receipt};

use super::problem::ApiError;
use crate::service::SharedService;

pub(super) fn routes() -> Router<SharedService> {
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/checkpoint/cosigned", get(cosigned))
        .route("/consistency", get(consistency))
        .route("/key", get(key))
        .route("/leases/{lease}", get(lease))
        .route("/receipts/{entry}", get(receipt))
        .route("/tile/{*path}", get(tile))
}

/// From which size to which a proof leads.
#[derive(Deserialize)]
pub(super) struct Sizes {
    old: u64,
    new: u64,
}

async fn checkpoint(State(service): State<SharedService>) -> Result<impl IntoResponse, ApiError> {
    Ok(text(service.log_checkpoint().await?.to_string()))
}

async fn cosigned(State(service): State<SharedService>) -> Result<impl IntoResponse, ApiError> {
    Ok(text(service.cosigned_checkpoint()?.to_string()))
}

/// Which leaf is looked for.
#[derive(Deserialize)]
pub(super) struct Leaf {
    index: u64,
}

pub(super) async fn witnessed(
    State(service): State<SharedService>,
    Query(leaf): Query<Leaf>,
) -> Result<Json<LogPlace>, ApiError> {
    Ok(Json(service.witnessed_place(leaf.index).await?))
}

pub(super) async fn consistency(
    State(service): State<SharedService>,
    Query(sizes): Query<Sizes>,
) -> Result<Json<ConsistencyProof>, ApiError> {
    Ok(Json(service.log_consistency(sizes.old, sizes.new).await?))
}

async fn key(State(service): State<SharedService>) -> impl IntoResponse {
    text(format!("{}\n", service.log_verifier_key()))
}

async fn receipt(State(service): State<SharedService>, Path(entry): Path<u64>) -> Result<Json<Receipt>, ApiError> {
    Ok(Json(service.receipt(entry).await?))
}

async fn lease(
    State(service): State<SharedService>,
    Path(lease): Path<String>,
) -> Result<Json<EvidenceBundle>, ApiError> {
    Ok(Json(service.evidence_bundle(&LeaseId(lease)).await?))
}

async fn tile(State(service): State<SharedService>, Path(path): Path<String>) -> Result<impl IntoResponse, ApiError> {
    let bytes = service.log_tile(&format!("tile/{path}")).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes))
}

fn text(body: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body)
}
