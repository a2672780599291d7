//! A simulated SEV-SNP platform, for evaluation and tests on machines without one.
//!
//! Its root, intermediate and endorsement key are generated and say `SIMULATED` in every name; its reports
//! have the real layout, are measured from real files and signed for real. So every line of the verifier
//! runs as on hardware, but the root proves nothing: a verifier accepts it only where
//! [`TrustRoots::with_simulated`](crate::TrustRoots::with_simulated) names it.

mod attester;
pub(crate) mod authority;
mod firmware;
mod guest;
pub(crate) mod platform;
mod server;

use std::path::PathBuf;

pub use attester::SimulatedAttester;
pub use firmware::{firmware, kernel};
pub use guest::{LaunchOptions, SimulatedGuest};
pub use platform::{PlatformOptions, SimulatedPlatform, TcbLevels};
pub use server::SimulatedServer;

use crate::measure::MeasureError;

/// What the simulated platform could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatedError {
    /// There is a platform in this directory already.
    #[error("`{0}` holds a platform already")]
    Exists(PathBuf),
    /// There is no whole platform in this directory.
    #[error("`{0}` holds no simulated platform")]
    NoPlatform(PathBuf),
    /// A file, directory or socket could not be used.
    #[error("`{path}` could not be {operation}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried, in the past participle.
        operation: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of the platform does not hold what it should.
    #[error("`{path}` is malformed: {offence}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        offence: String,
    },
    /// A key could not be made or used.
    #[error("a key could not be made or used")]
    Key,
    /// A certificate could not be encoded.
    #[error("a certificate could not be encoded")]
    Certificate(#[source] der::Error),
    /// A report of a version that is not made here.
    #[error("reports are made in version 2, 3 or 5, not {0}")]
    Version(u32),
    /// A report could not be encoded.
    #[error("a report could not be encoded")]
    Report(#[source] std::io::Error),
    /// The launch could not be measured.
    #[error("the launch could not be measured")]
    Measure(#[from] MeasureError),
    /// Another server answers on this socket.
    #[error("another guest is served on `{0}`")]
    SocketInUse(PathBuf),
}
