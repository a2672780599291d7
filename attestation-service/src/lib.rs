//! Verifies launch evidence, decides on release, keeps licences, leases and the audit log.
//!
//! [`Home`] holds the service's files, [`Service`] decides, [`serve`] speaks HTTP. The packager runs it by
//! `sealift serve` and talks to it through [`api`].
#![forbid(unsafe_code)]

mod access;
mod administration;
pub mod api;
mod challenge;
mod custody;
mod decision;
pub mod endorsement;
mod finding;
mod home;
mod http;
mod licensing;
mod limits;
mod log;
mod log_key;
mod metrics;
mod platform;
mod policy;
mod release;
mod service;
mod store;
mod token;
mod verification;
mod watch;

pub use custody::{CustodyError, MasterKey};
pub use finding::{Finding, Stage};
pub use home::{EvidenceSettings, Home, HomeError, ServiceSettings};
pub use http::{ServeError, Server, openapi, serve};
pub use limits::LimitSettings;
pub use platform::{ParsePlatformRuleError, Platform, PlatformProduct, PlatformRule, TcbComponent, TcbLevels};
pub use policy::{DEFAULT_POLICY, PolicyCase, PolicyDecision, PolicyError, ReleasePolicy};
pub use service::{Service, ServiceError, ServiceOptions};
pub use store::{AuditEntry, Store, StoreError};
