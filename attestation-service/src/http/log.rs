//! The audit log over HTTP: the C2SP tlog-tiles resources and receipts. Tiles hold the entries of all customers, so they are
//! below the admin API; guests get hashes only.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use release_protocol::{EvidenceBundle, LeaseId};
use serde::Deserialize;
use transparency_log::{ConsistencyProof, Receipt};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::ApiError;
use crate::service::SharedService;

pub(super) fn routes() -> OpenApiRouter<SharedService> {
    OpenApiRouter::new()
        .routes(routes!(checkpoint))
        .routes(routes!(cosigned))
        .routes(routes!(consistency))
        .routes(routes!(key))
        .routes(routes!(lease))
        .routes(routes!(receipt))
        .routes(routes!(tile))
}

/// From which size to which a proof leads.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Sizes {
    /// How many entries the smaller tree has.
    old: u64,
    /// How many the larger one has.
    new: u64,
}

/// The audit log as it is now, signed: a C2SP checkpoint.
#[utoipa::path(
    get, path = "/checkpoint", tag = "log", operation_id = "showCheckpoint",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn checkpoint(State(service): State<SharedService>) -> Result<impl IntoResponse, ApiError> {
    Ok(text(service.log_checkpoint().await?.to_string()))
}

/// The newest checkpoint that witnesses cosigned, a C2SP note.
#[utoipa::path(
    get, path = "/checkpoint/cosigned", tag = "log", operation_id = "showCosignedCheckpoint",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn cosigned(State(service): State<SharedService>) -> Result<impl IntoResponse, ApiError> {
    Ok(text(service.cosigned_checkpoint()?.to_string()))
}

/// Which leaf is looked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Leaf {
    /// From 0.
    pub(super) index: u64,
}

/// The proof that one state of the log extends another.
#[utoipa::path(
    get, path = "/consistency", tag = "log", operation_id = "proveConsistency",
    params(Sizes),
    responses((status = 200, body = Vec<String>))
)]
pub(super) async fn consistency(
    State(service): State<SharedService>,
    Query(sizes): Query<Sizes>,
) -> Result<Json<ConsistencyProof>, ApiError> {
    Ok(Json(service.log_consistency(sizes.old, sizes.new).await?))
}

/// The verifier key of the log, as C2SP signed notes have it.
#[utoipa::path(
    get, path = "/key", tag = "log", operation_id = "showLogKey",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn key(State(service): State<SharedService>) -> impl IntoResponse {
    text(format!("{}\n", service.log_verifier_key()))
}

/// The receipt of an entry: the entry, the proof that it is in the log, the checkpoint.
#[utoipa::path(
    get, path = "/receipts/{entry}", tag = "log", operation_id = "showReceipt",
    responses((status = 200, body = Receipt))
)]
async fn receipt(State(service): State<SharedService>, Path(entry): Path<u64>) -> Result<Json<Receipt>, ApiError> {
    Ok(Json(service.receipt(entry).await?))
}

/// All that one lease rests on: its entries and their proofs, evidence, licence and policies.
#[utoipa::path(
    get, path = "/leases/{lease}", tag = "log", operation_id = "showLeaseEvidence",
    responses((status = 200, body = EvidenceBundle))
)]
async fn lease(
    State(service): State<SharedService>,
    Path(lease): Path<String>,
) -> Result<Json<EvidenceBundle>, ApiError> {
    Ok(Json(service.evidence_bundle(&LeaseId(lease)).await?))
}

/// A tile of hashes or a bundle of entries, by its C2SP tlog-tiles path.
#[utoipa::path(
    get, path = "/tile/{*path}", tag = "log", operation_id = "showTile",
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"))
)]
async fn tile(State(service): State<SharedService>, Path(path): Path<String>) -> Result<impl IntoResponse, ApiError> {
    let bytes = service.log_tile(&format!("tile/{path}")).await?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes))
}

fn text(body: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body)
}
