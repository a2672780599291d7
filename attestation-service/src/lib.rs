//! Verifies launch evidence, decides on release, keeps licences, leases and the audit log.
//!
//! [`Home`] holds the service's files, [`Service`] decides, [`serve`] speaks HTTP. The packager runs it by
//! `sealift serve` and talks to it through [`api`]. Policies run in processes of their own, see [`policy_worker`].
#![deny(unsafe_code)]

mod access;
mod administration;
pub mod api;
mod backup;
mod bundle;
mod challenge;
mod custodian;
mod custody;
mod decision;
pub mod endorsement;
mod erasure;
mod finding;
mod home;
mod http;
mod licensing;
mod limits;
mod log;
mod log_head;
mod log_key;
mod memory;
mod metrics;
mod platform;
mod policy;
mod relay;
mod release;
mod renewal;
mod rewrap;
mod rotation;
mod service;
mod store;
mod token;
mod transfer;
mod verification;
mod verified;
mod watch;
mod witness;

pub use backup::{BackupError, Copied, back_up, restore};
pub use custodian::try_master_key;
pub use custody::{
    CustodyError, CustodySettings, FileName, HeldKey, MasterKeyUri, MasterKeyUriError, Pkcs11Settings, Pkcs11Uri,
    Sealer, SecretSource, TransitKey, TransitSettings,
};
pub use erasure::{Erasure, is_taken, master_keys, wipe};
pub use finding::{Finding, Stage};
pub use home::{EvidenceSettings, Home, HomeError, ServiceSettings};
pub use http::{ServeError, Server, TenantServer, openapi, serve};
pub use limits::LimitSettings;
pub use log_head::LogHeadError;
pub use memory::bound_kept_memory;
pub use platform::{ParsePlatformRuleError, Platform, PlatformProduct, PlatformRule, TcbComponent, TcbLevels};
pub use policy::{DEFAULT_POLICY, PolicyCase, PolicyDecision, PolicyError, ReleasePolicy, policy_worker};
pub use relay::boot_time;
pub use service::{Service, ServiceError, ServiceOptions};
pub use store::{AuditEntry, Database, DatabaseUrl, DatabaseUrlError, SchemaName, SchemaNameError, Store, StoreError};
pub use witness::{LogSettings, WitnessSettings};
