//! Master keys, as the admin API speaks of them. Names say which key it is, never how it is reached.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which master keys there are, and how far their change is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct CustodyStatus {
    /// Newest first: the first one seals what is new.
    pub master_keys: Vec<MasterKeyStatus>,
    /// The change of the master key, while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// A master key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct MasterKeyStatus {
    /// What it is called.
    pub name: String,
    /// Since when the database knows it.
    #[schema(value_type = String, format = DateTime)]
    pub added_at: Timestamp,
    /// When nothing was under it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retired_at: Option<Timestamp>,
    /// How many image keys, secrets and working keys are under it.
    pub sealed: u64,
    /// Where its file is kept, once it is retired and was in the service's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
}

/// How far a change of the master key is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct Rotation {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// How many image keys, secrets and working keys are under the new master key.
    pub done: u64,
    /// How many are not.
    pub left: u64,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Asks that another key should be the master key.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct MasterKeyChange {
    /// Which. Without it: the newest version of the same Transit key, or a new file where the master key is one in the home of
    /// a service that has no replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}
