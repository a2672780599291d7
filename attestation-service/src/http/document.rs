//! The OpenAPI document: from the routes' own registration and the types they speak, with what the service adds to all of
//! them: who may, and which problems there are.

mod finish;
mod schema;

use std::sync::LazyLock;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub(super) use schema::{AuthChallenge, AuthRequest, EncryptedResource};

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let bare = |routes| routes;
    let registered = OpenApiRouter::with_openapi(Head::openapi()).merge(super::routes(bare, bare)).into_openapi();
    finish::text(&registered)
});

/// The OpenAPI 3.1 document of everything that the service answers, as JSON text.
pub fn text() -> &'static str {
    &TEXT
}

/// What stands before the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sealift attestation service",
        description = "What the vendor's tools, guests and those who watch over the service say to it. Errors are RFC 9457 \
                       problems; the last part of their `type` is a stable code.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "products", description = "What images belong to and policies are about."),
        (name = "references", description = "Reference values: the guests that may open a product's images."),
        (name = "keys", description = "Image keys and the manifests that they open."),
        (name = "platforms", description = "Platforms that get nothing."),
        (name = "licenses", description = "Licences: who may run what, how often at once, until when."),
        (name = "leases", description = "Leases: what runs now."),
        (name = "audit", description = "The audit log's entries."),
        (name = "log", description = "The audit log as a Merkle tree: checkpoints, receipts, proofs, tiles."),
        (name = "tokens", description = "API tokens and their roles."),
        (name = "release", description = "The key broker protocol (KBS 0.4.0), with our additions."),
        (name = "service", description = "For those who watch over the service."),
    ),
    components(schemas(release_protocol::Problem)),
)]
struct Head;

#[cfg(test)]
mod tests;
