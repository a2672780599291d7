//! The whole key broker road, in process, over real TLS, with a simulated guest's evidence and a clock that tests set.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod administration;
mod connections;
pub(crate) mod custody;
mod denial;
mod devices;
mod endorsement;
mod evidence;
pub(crate) mod guest;
mod lease;
mod license;
mod license_states;
pub(crate) mod limits;
mod log;
mod offline;
mod openapi;
mod platform;
mod policy;
mod reference;
mod relay;
mod release;
pub(crate) mod rig;
mod role;
mod seats;
mod secret;
mod stock_client;
mod tenant_server;
mod tenants;
mod transfer;
mod watch;
mod witness;

/// What this program does when the service under test starts it to evaluate a policy; by itself it is no worker.
#[test]
fn policy_worker() {
    assert!(matches!(attestation_service::policy_worker(), None | Some(std::process::ExitCode::SUCCESS)));
}
