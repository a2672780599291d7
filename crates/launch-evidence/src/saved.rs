//! Judging saved evidence: with no challenge of the caller's own, what it is bound to is compared only where the caller
//! says what that must be. Nothing may be released by it.

use jiff::Timestamp;
use serde_json::Value;

use crate::az_snp_vtpm;
use crate::check::{Check, CheckName, Verdict};
use crate::sample;
use crate::snp;
use crate::tdx;
use crate::verifier::{Binding, Expected, HostData, Requirements, VerifiedEvidence, Verifier};

/// What is asked about one piece of saved evidence.
#[derive(Clone, Debug)]
pub struct Question {
    /// What the report data must be, all 64 bytes; `None`: whatever they are.
    pub report_data: Option<[u8; 64]>,
    /// What the host must have passed; `None`: whatever it was.
    pub host_data: Option<HostData>,
    /// What is required of the guest.
    pub requirements: Requirements,
    /// The verifier's clock.
    pub at: Timestamp,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Every check in the order of judgement; those that nobody asked for are skipped.
    pub checks: Vec<Check>,
    /// The evidence, where every check held.
    pub evidence: Option<VerifiedEvidence>,
}

impl Answer {
    /// The checks that failed; the first decides.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.verdict == Verdict::Failed)
    }

    /// Whether nothing failed.
    pub fn holds(&self) -> bool {
        self.failures().next().is_none()
    }
}

/// Judges `primary` by `verifier`.
pub fn judge(verifier: &dyn Verifier, primary: &Value, question: &Question) -> Answer {
    // Unreadable evidence is bound to nothing; it fails before anything is compared.
    let nothing = Binding { report_data: [0; 64], host_data: None };
    let own = verifier.binding(primary).unwrap_or(nothing);
    let expected = Expected {
        report_data: question.report_data.unwrap_or(own.report_data),
        host_data: question.host_data.or(own.host_data).unwrap_or(HostData::Zero),
        requirements: question.requirements.clone(),
        now: question.at,
    };
    let (mut checks, evidence) = match verifier.verify(primary, &expected) {
        Ok(evidence) => (evidence.checks().to_vec(), Some(evidence)),
        Err(rejected) => (rejected.checks, None),
    };
    for check in &mut checks {
        let is_open = match check.name {
            // Azure's report is bound to its own runtime data whatever was asked: the nonce is in the quote.
            CheckName::ReportData | CheckName::Nonce => question.report_data.is_none(),
            // Where it is not the caller's to say, it must hold whatever was asked.
            CheckName::HostData => question.host_data.is_none() && own.host_data.is_some(),
            _ => false,
        };
        if is_open && check.verdict != Verdict::Skipped {
            check.verdict = Verdict::Skipped;
            check.found = format!("{}, compared with nothing", check.found);
        }
    }
    Answer { checks, evidence }
}

/// What evidence in JSON says, before anything of it is verified; `None` where it is of no known form.
pub fn unverified_claims(primary: &Value) -> Option<Value> {
    if let Ok(evidence) = snp::evidence::Evidence::parse(primary) {
        return snp::claims::unverified(evidence.report.bytes());
    }
    az_snp_vtpm::unverified(primary).or_else(|| tdx::unverified(primary)).or_else(|| sample::unverified(primary))
}
