//! Azure's confidential machines with SEV-SNP: the report of the paravisor (HCL), which vouches for the
//! machine's vTPM, and the vTPM's quote, which binds nonce and boot measurements.
//!
//! Sources: Microsoft, "Azure confidential VM guest attestation design"; TCG, TPM 2.0 Library, Part 2.

pub mod claims;
pub(crate) mod evidence;
pub(crate) mod hcl;
pub(crate) mod quote;
#[cfg(test)]
mod tests;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde_json::Value;

use crate::check::{CheckName, Checks};
use crate::snp::roots::TrustRoots;
use crate::snp::{self, SnpVerifier};
use crate::verifier::{Binding, EvidenceRejected, Expected, HostData, VerifiedEvidence, Verifier};
use claims::Claims;
use evidence::Evidence;
use hcl::Hcl;

/// The name of this TEE in the key broker protocol.
pub const TEE: &str = "az-snp-vtpm";

/// Judges evidence of Azure's confidential machines against AMD's trust roots.
///
/// # Security
/// The launch measurement is that of Azure's paravisor. Reference values in
/// [`Requirements`](crate::Requirements) are compared with it; what boots above it, only the vTPM's registers
/// say, and a policy has to judge them.
#[derive(Debug)]
pub struct AzSnpVtpmVerifier {
    snp: SnpVerifier,
}

impl AzSnpVtpmVerifier {
    /// A verifier that trusts `roots` and nothing else.
    pub fn new(roots: TrustRoots) -> Self {
        Self { snp: SnpVerifier::new(roots) }
    }
}

impl Verifier for AzSnpVtpmVerifier {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn recognises(&self, primary: &Value) -> bool {
        primary.get("hcl_report").is_some() || primary.get("quote").is_some_and(Value::is_object)
    }

    /// The quote's qualifying data. What the guest was given at launch is in a register; the host's data must be zero,
    /// whoever asks.
    fn binding(&self, primary: &Value) -> Option<Binding> {
        let attested = quote::Attested::parse(&Evidence::parse(primary).ok()?.quote.message).ok()?;
        let mut report_data = [0; 64];
        report_data.get_mut(..attested.nonce.len())?.copy_from_slice(&attested.nonce);
        Some(Binding { report_data, host_data: None })
    }

    fn verify(&self, primary: &Value, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected> {
        let mut checks = Checks::default();
        let evidence = match Evidence::parse(primary) {
            Ok(evidence) => evidence,
            Err(offence) => return Err(offence.reject(checks)),
        };
        checks.note(CheckName::EvidenceForm, true, "evidence of an Azure machine", evidence.form);
        let hcl = match Hcl::parse(&evidence.hcl) {
            Ok(hcl) => hcl,
            Err(offence) => return Err(offence.reject(checks)),
        };
        checks.note(CheckName::HclForm, true, "a whole HCL report", format!("{} bytes", hcl.bytes.len()));

        let report = snp::evidence::Evidence {
            report: hcl.report.clone(),
            certificates: vec![evidence.vcek],
            form: evidence.form,
        };
        let claims = self.snp.judge(&report, &bound_to(&hcl, expected), &mut checks);
        // The report binds the runtime data, and through the key in them the quote, which binds the nonce.
        checks.rename(CheckName::ReportData, CheckName::RuntimeData);
        let attested = quote::check(&evidence.quote, &hcl.key, expected, &mut checks);

        match (claims, attested) {
            (Some(mut snp), Some(attested)) if checks.all_hold() => {
                snp.tee = TEE;
                let claims = Claims {
                    snp,
                    pcrs: evidence.quote.pcrs.iter().map(hex::encode).collect(),
                    reset_count: attested.reset_count,
                    vtpm_firmware_version: attested.firmware_version,
                    vm_configuration: hcl.configuration,
                };
                let mut context = Context::new(&SHA256);
                context.update(hcl.bytes);
                context.update(&evidence.quote.message);
                let evidence_digest = hex::encode(context.finish());
                Ok(VerifiedEvidence::new(claims, checks.into_list(), evidence_digest))
            }
            _ => Err(EvidenceRejected { checks: checks.into_list() }),
        }
    }
}

/// What evidence says, before anything of it is verified: the paravisor's report and the registers as given.
pub(crate) fn unverified(primary: &Value) -> Option<Value> {
    let evidence = Evidence::parse(primary).ok()?;
    let hcl = Hcl::parse(&evidence.hcl).ok()?;
    let mut claims = snp::claims::unverified(hcl.report.bytes())?;
    claims["tee"] = TEE.into();
    claims["pcrs"] = evidence.quote.pcrs.iter().map(hex::encode).collect();
    claims["vm_configuration"] = serde_json::to_value(&hcl.configuration).ok()?;
    Some(claims)
}

/// What the paravisor's own report must say: the hash of the runtime data, and no host data.
fn bound_to(hcl: &Hcl<'_>, expected: &Expected) -> Expected {
    let mut report_data = [0; 64];
    for (to, from) in report_data.iter_mut().zip(digest(&SHA256, hcl.runtime_data).as_ref()) {
        *to = *from;
    }
    Expected { report_data, host_data: HostData::Zero, requirements: expected.requirements.clone(), now: expected.now }
}
