//! Where a guest gets evidence about itself.

use std::path::PathBuf;

use serde_json::Value;

/// A source of launch evidence inside a guest, one implementation a TEE or transport.
pub trait Attester: Send + Sync {
    /// The TEE's name as the key broker protocol spells it, for example `snp`.
    fn tee(&self) -> &'static str;

    /// Whether the evidence is that of a simulated platform, which proves nothing about hardware.
    fn is_simulated(&self) -> bool;

    /// Asks for evidence over `report_data`; the answer is the protocol's `primary_evidence` in our raw form.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, AttesterError>;
}

/// Why no evidence could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttesterError {
    /// The interface is not there: no confidential guest, or a kernel without it.
    #[error("`{path}` is missing: {hint}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What that means, and the next step.
        hint: &'static str,
    },
    /// A file or socket could not be used.
    #[error("`{path}` could not be {operation}")]
    Io {
        /// Which file or socket.
        path: PathBuf,
        /// What was tried, in the past participle: `read`, `written`.
        operation: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another TEE answers here.
    #[error("the evidence here comes from `{found}`, not from `{expected}`")]
    Provider {
        /// What was asked for.
        expected: &'static str,
        /// What the interface says it is.
        found: String,
    },
    /// Another process used the same entry at the same time.
    #[error("another request got in between {attempts} times")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The answer is not what the interface promises.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// The other side refused.
    #[error("the simulated guest refused: {0}")]
    Refused(String),
}
