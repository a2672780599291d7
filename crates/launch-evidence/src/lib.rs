//! TEE launch evidence: reports, endorsements, checks, launch measurement, the simulated platform.
//!
//! Verifying is pure: evidence, expectations, a clock and trust roots go in, a value comes out. Only
//! [`attester`]s and the simulated platform touch files and sockets. Nothing outside this crate names the
//! `sev` crate.

pub mod attester;
pub mod az_snp_vtpm;
pub mod check;
pub mod claims;
pub mod configfs;
pub mod devices;
pub(crate) mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod identity;
pub mod measure;
pub mod sample;
pub mod saved;
pub mod sev_guest;
pub mod simulated;
pub mod snp;
pub mod tdx;
pub mod verifier;

pub use attester::{Attester, AttesterError, DerivedKey};
pub use az_snp_vtpm::AzSnpVtpmVerifier;
pub use check::{Check, CheckName, Verdict};
pub use claims::Claims;
pub use devices::{DeviceClaims, JudgedDevices, UnverifiedDevices};
pub use identity::{ChipId, GuestId, InitDataDigest, KeyDigest, Measurement, ParseHexError};
pub use measure::{LaunchInput, MeasureError, VcpuType, Vmm};
pub use sample::{SampleAttester, SampleVerifier};
pub use saved::unverified_claims;
pub use snp::evidence::in_stock_form;
pub use snp::roots::{TrustRootError, TrustRoots};
pub use snp::{Product, SnpVerifier};
pub use tdx::TdxVerifier;
pub use verifier::{
    Binding, EvidenceRejected, Expected, HostData, IdKey, MinimumTcb, Requirements, Revocation, VerifiedEvidence,
    Verifier,
};
