//! The whole key broker road, in process, over real TLS, with a simulated guest's evidence and a clock that tests set.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod administration;
mod connections;
mod denial;
mod endorsement;
mod evidence;
mod guest;
mod lease;
mod license;
mod license_states;
mod limits;
mod log;
mod openapi;
mod platform;
mod policy;
mod reference;
mod release;
mod rig;
mod role;
mod seats;
mod stock_client;
mod watch;
