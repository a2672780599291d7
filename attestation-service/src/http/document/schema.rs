//! Schemas of types that are others', or that have no type here: only their members are said.
#![expect(dead_code, reason = "only the schemas are used")]

use serde_json::Value;
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::store::AuditEntry;

/// Asks for a challenge.
#[derive(ToSchema)]
pub(crate) struct AuthRequest {
    /// The version of the protocol, `0.4.x`.
    #[schema(example = "0.4.0")]
    version: String,
    /// The TEE: `snp`, `az-snp-vtpm` or `tdx`.
    #[schema(example = "snp")]
    tee: String,
    /// Nothing is read of it.
    #[schema(rename = "extra-params")]
    extra_params: Value,
}

/// A challenge. The answer must hold it, within five minutes.
#[derive(ToSchema)]
pub(crate) struct AuthChallenge {
    /// What the evidence must be bound to.
    nonce: String,
    /// Nothing.
    #[schema(rename = "extra-params")]
    extra_params: Value,
}

/// A JWE for one recipient in flattened JSON form (RFC 7516, section 7.2.2).
#[derive(ToSchema)]
pub(crate) struct EncryptedResource {
    /// The protected header, base64url: `alg`, `enc` and what the algorithm needs.
    protected: String,
    /// The wrapped content key, base64url.
    encrypted_key: String,
    /// base64url.
    iv: String,
    /// The image key, encrypted; base64url.
    ciphertext: String,
    /// base64url.
    tag: String,
}

impl ToSchema for AuditEntry {}

impl PartialSchema for AuditEntry {
    fn schema() -> RefOr<Schema> {
        let number = integer("Its number, from 1.");
        let at = text("When it was decided.").format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        let salt = "Random, so that who sees the entry's hash alone cannot guess the entry.";
        ObjectBuilder::new()
            .description(Some(
                "One recorded decision. Its leaf in the log is the canonical JSON (RFC 8785) of just these members.",
            ))
            .property("sequence", number)
            .property("at", at)
            .property("kind", text("What was decided."))
            .property("body", ObjectBuilder::new().description(Some("The particulars; never key material.")))
            .property("salt", text(salt))
            .required("sequence")
            .required("at")
            .required("kind")
            .required("body")
            .required("salt")
            .into()
    }
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn integer(description: &str) -> Object {
    let format = Some(SchemaFormat::KnownFormat(KnownFormat::Int64));
    let number = ObjectBuilder::new().schema_type(Type::Integer).format(format).minimum(Some(0));
    number.description(Some(description)).build()
}
