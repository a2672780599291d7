//! The bodies of the fuzz targets in the top-level folder `fuzz`; property tests drive them, too.
//!
//! Each takes any bytes and panics when a bound is not kept, or when something that nobody signed is accepted.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "to panic is what they are for")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::az_snp_vtpm::hcl::{HCL_LEN, Hcl};
use crate::az_snp_vtpm::quote::{Attested, MESSAGE_LEN};
use crate::snp::roots::TrustRoots;
use crate::snp::{REPORT_LEN, table};
use crate::tdx::quote::Quote;
use crate::verifier::{Expected, HostData, Requirements, Verifier};
use crate::{AzSnpVtpmVerifier, SnpVerifier, TdxVerifier};

fn expected() -> Expected {
    Expected {
        report_data: [0; 64],
        host_data: HostData::Zero,
        requirements: Requirements::default(),
        now: Timestamp::UNIX_EPOCH,
    }
}

fn assert_refused(verifier: &dyn Verifier, primary: &Value) {
    let rejected = verifier.verify(primary, &expected()).expect_err("nobody has signed this");
    assert!(rejected.failures().next().is_some(), "a refusal names its check");
}

/// A report, cut or filled up with zeros to its length.
pub fn report(bytes: &[u8]) {
    let mut report = bytes.to_vec();
    report.resize(REPORT_LEN, 0);
    let primary = json!({"report": STANDARD.encode(&report)});
    assert_refused(&SnpVerifier::new(TrustRoots::default()), &primary);
}

/// A host's certificate table.
pub fn certificate_table(bytes: &[u8]) {
    if let Ok(found) = table::certificates(bytes) {
        assert!(found.len() <= 8 && found.iter().all(|der| der.len() <= 8 * 1024), "the table's bounds");
        assert!(found.is_empty() || bytes.len() >= 48, "there is no room for an entry and the end");
    }
}

/// An HCL report, and a vTPM's message.
pub fn hcl(bytes: &[u8]) {
    if let Ok(hcl) = Hcl::parse(bytes) {
        assert!(hcl.runtime_data.len() < HCL_LEN && bytes.len() <= HCL_LEN, "the report's bounds");
        assert_eq!(hcl.key.modulus.len(), 256, "an RSA-2048 key");
    }
    if let Ok(attested) = Attested::parse(bytes) {
        assert!(attested.nonce.len() + attested.pcr_digest.len() < MESSAGE_LEN, "the message's bounds");
    }
}

/// A TDX quote.
pub fn quote(bytes: &[u8]) {
    if let Ok(quote) = Quote::parse(bytes) {
        assert!(quote.signed.len() + quote.chain.len() < bytes.len(), "parts that do not overlap");
        assert!(bytes.starts_with(quote.signed), "signed from the front");
    }
}

/// Evidence of any TEE, as JSON.
pub fn evidence_json(bytes: &[u8]) {
    let Ok(primary) = serde_json::from_slice::<Value>(bytes) else { return };
    let verifiers: [&dyn Verifier; 3] =
        [&SnpVerifier::new(TrustRoots::default()), &AzSnpVtpmVerifier::new(TrustRoots::default()), &TdxVerifier::new()];
    for verifier in verifiers {
        assert_refused(verifier, &primary);
    }
}

/// The text of devices' evidence.
pub fn devices(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::devices::fuzz(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_a_target_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            report(&bytes);
            certificate_table(&bytes);
            hcl(&bytes);
            quote(&bytes);
            evidence_json(&bytes);
            devices(&bytes);
        }

        #[test]
        fn no_evidence_in_json_makes_a_target_panic(
            name in "report|attestation_report|quote|hcl_report|tpm_quote|cert_chain|cert_table|vcek|collateral",
            other in "report|quote|version|hcl_report|tpm_quote|cert_chain|cert_table|vcek|collateral",
            text in "[A-Za-z0-9+/]{0,64}",
            number: u8,
        ) {
            evidence_json(json!({name.clone(): text, other.clone(): number}).to_string().as_bytes());
            evidence_json(json!({name: {other: [number, text]}, "version": 1}).to_string().as_bytes());
        }
    }
}
