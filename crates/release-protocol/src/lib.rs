//! What shim and service say to each other: types and codecs only.
//!
//! KBS messages with our additions, the licence, the lease, obligations and problem documents. No network, no clock, no
//! storage. The design is `KBS 0.4.0` of Confidential Containers, whose base types come from `kbs-types`.
#![forbid(unsafe_code)]

mod binding;
mod bundle;
mod confinement;
pub mod guest;
mod init_data;
mod lease;
mod license;
mod message;
mod name;
mod obligation;
mod problem;
mod renewal;

pub use binding::{BindingError, device_nonce, host_data, report_data};
pub use bundle::{
    BundledAttestation, BundledSignature, DecisionBasis, EVIDENCE_BUNDLE_FORMAT, EvidenceBundle, JOINT_EVIDENCE_FORMAT,
    JointEvidence, MAX_EVIDENCE_BUNDLE_BYTES,
};
pub use confinement::{CONFINED_ANNOTATION, Confinement, ParseConfinementError};
pub use init_data::{INIT_DATA_MAX, LaunchStatement, StatedBy};
pub use kbs_types::{Challenge, InitData, Request, Tee, TeePubKey};
pub use lease::{Lease, LeaseId, LeaseNews, LeaseState};
pub use license::{LICENSE_TYP, License, LicenseError, LicenseFile, LicenseId, ServiceAddress};
pub use message::{
    AttestAnswer, Attestation, Evidence, LogPlace, RelayStatement, RuntimeData, RuntimeDataError, Workload,
};
pub use name::{ParseNameError, ProductName, ResourcePath, ResourcePathError};
pub use obligation::Obligations;
pub use problem::Problem;
pub use renewal::{
    FileRenewal, RENEWAL_ANSWER_FORMAT, RENEWAL_FILE_MAX, RENEWAL_REQUEST_FORMAT, RenewalAnswer, RenewalByFile,
    RenewalRequest, request_digest,
};

/// The protocol version that we speak.
pub const KBS_VERSION: &str = "0.4.0";

/// The path below which the key broker protocol is served.
pub const KBS_PREFIX: &str = "/kbs/v0";

/// The name of the cookie that carries the sealed challenge; any name works for stock clients.
pub const SESSION_COOKIE: &str = "kbs-session-id";
