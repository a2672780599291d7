//! SEV-SNP: attestation reports, their endorsements, and the verifier that judges both.
//!
//! Sources: AMD 56860 (SNP ABI), AMD 57230 (VCEK and VLEK certificates and their key distribution).

pub(crate) mod body;
pub(crate) mod certificate;
pub(crate) mod chain;
pub mod claims;
pub(crate) mod endorsement;
pub(crate) mod evidence;
pub(crate) mod report;
pub(crate) mod revocation;
pub mod roots;
pub(crate) mod signature;
pub mod table;
#[cfg(test)]
mod tests;
pub(crate) mod vetted;
pub mod wanted;

use std::fmt;
use std::ops::Range;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sev::Generation;

pub use evidence::{EvidenceError, evidence_from_files, evidence_json};
pub use report::REPORT_LEN;

use crate::check::{CheckName, Checks};
use crate::verifier::{Binding, EvidenceRejected, Expected, HostData, VerifiedEvidence, Verifier};
use chain::Chain;
use claims::Claims;
use evidence::Evidence;
use roots::TrustRoots;
use vetted::Vetted;

/// The name of this TEE in the key broker protocol.
pub const TEE: &str = "snp";

/// Judges SEV-SNP evidence against trust roots. Remembers which certificates AMD's roots have signed, up to
/// some thousand; never a report, nor a verdict.
#[derive(Debug)]
pub struct SnpVerifier {
    roots: TrustRoots,
    vetted: Vetted,
}

impl SnpVerifier {
    /// A verifier that trusts `roots` and nothing else.
    pub fn new(roots: TrustRoots) -> Self {
        Self { roots, vetted: Vetted::default() }
    }

    /// Makes every check of a report and its endorsement. The claims are worth what the checks say.
    pub(crate) fn judge(&self, evidence: &Evidence, expected: &Expected, checks: &mut Checks) -> Option<Claims> {
        checks.note(CheckName::Length, true, "1184 bytes", "1184 bytes");
        let report = &evidence.report;
        let chain = Chain::find(evidence, &self.roots, &self.vetted, checks);
        let product = report.product().or(chain.as_ref().and_then(Chain::product));
        // What costs nothing before any public-key operation.
        body::check(report, product, expected, checks);
        let endorsement =
            chain.map(|chain| chain.check(report, &self.roots, &self.vetted, expected, checks)).unwrap_or_default();
        signature::check(report, endorsement.key.as_deref(), checks);
        Claims::new(report, product, &endorsement)
    }
}

impl Verifier for SnpVerifier {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn recognises(&self, primary: &Value) -> bool {
        // Beside a `quote` the `report` is another's: Azure's.
        let report = ["report", "attestation_report"].iter().any(|name| primary.get(name).is_some());
        report && primary.get("quote").is_none()
    }

    fn binding(&self, primary: &Value) -> Option<Binding> {
        let report = Evidence::parse(primary).ok()?.report;
        let host_data = HostData::from_report(report.host_data());
        Some(Binding { report_data: report.report_data(), host_data: Some(host_data) })
    }

    fn verify(&self, primary: &Value, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected> {
        let mut checks = Checks::default();
        let evidence = match Evidence::parse(primary) {
            Ok(evidence) => evidence,
            Err(offence) => return Err(offence.reject(checks)),
        };
        checks.note(CheckName::EvidenceForm, true, "SEV-SNP evidence", evidence.form);
        let claims = self.judge(&evidence, expected, &mut checks);
        match claims {
            Some(claims) if checks.all_hold() => {
                let evidence_digest = hex::encode(digest(&SHA256, evidence.report.bytes()));
                Ok(VerifiedEvidence::new(claims, checks.into_list(), evidence_digest))
            }
            _ => Err(EvidenceRejected { checks: checks.into_list() }),
        }
    }
}

/// The processor generations that sign SNP reports.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004, Bergamo and Siena included.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// Every product.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name as certificates spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    pub(crate) fn generation(self) -> Generation {
        match self {
            Self::Milan => Generation::Milan,
            Self::Genoa => Generation::Genoa,
            Self::Turin => Generation::Turin,
        }
    }

    /// The reserved bytes of its `TCB_VERSION`.
    pub(crate) fn tcb_reserved(self) -> Range<usize> {
        match self {
            Self::Milan | Self::Genoa => 2..6,
            Self::Turin => 4..7,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
