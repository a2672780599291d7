//! Secrets beside image keys, as the admin API speaks of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A secret that guests of a product get, without what is in it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct SecretStatus {
    /// `<product>/<type>/<tag>`, the path of its `kbs:///` address.
    pub resource: String,
    /// How long it is, in bytes.
    pub bytes: u32,
    /// When it was put there.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// The longest secret, in bytes.
pub const SECRET_MAX: usize = 512 * 1024;
