//! The verifier of Azure's machines against real evidence, where the folder of vectors is at hand.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod data;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use launch_evidence::{
    AzSnpVtpmVerifier, CheckName, EvidenceRejected, Expected, HostData, Requirements, SnpVerifier, TdxVerifier,
    TrustRoots, VerifiedEvidence, Verifier as _,
};
use serde_json::{Value, json};

use crate::data::{manifest, read, vectors};

struct Case {
    name: &'static str,
    primary: Value,
    nonce: Vec<u8>,
    /// The manifest's word on it.
    expect: Value,
}

impl Case {
    fn expected(&self) -> Expected {
        let mut report_data = [0; 64];
        report_data.get_mut(..self.nonce.len()).expect("a short nonce").copy_from_slice(&self.nonce);
        let now = "2026-06-01T00:00:00Z".parse().expect("a date");
        Expected { report_data, host_data: HostData::Zero, requirements: Requirements::default(), now }
    }

    fn verify(&self) -> Result<VerifiedEvidence, EvidenceRejected> {
        verify(&self.primary, &self.expected())
    }
}

fn verify(primary: &Value, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected> {
    AzSnpVtpmVerifier::new(TrustRoots::amd()).verify(primary, expected)
}

fn failed(rejected: &EvidenceRejected) -> Vec<CheckName> {
    rejected.failures().map(|check| check.name).collect()
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).expect("JSON")
}

fn entry<'a>(manifest: &'a Value, name: &str) -> &'a Value {
    let mut entries = manifest["snp"].as_array().expect("a list").iter();
    entries.find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name} is not in the manifest"))
}

/// Both real ones that are whole.
fn cases() -> Vec<Case> {
    let Some(folder) = vectors() else { return Vec::new() };
    let manifest = manifest(&folder);
    let case = |name: &'static str| {
        let evidence = json_file(&folder.join("snp").join(name).join("evidence.json"));
        // One of them stands inside an envelope.
        let primary = evidence.get("evidence").unwrap_or(&evidence).clone();
        let expect = entry(&manifest, name)["expect"].clone();
        let nonce = hex::decode(expect["azure"]["tpm"]["nonce"].as_str().expect("a nonce")).expect("hexadecimal");
        Case { name, primary, nonce, expect }
    };
    vec![case("milan-v3-az-trustee-ev1"), case("milan-v3-az-cdai-b")]
}

#[test]
fn real_evidence_is_verified_and_its_claims_say_what_the_manifest_says() {
    for case in cases() {
        let evidence = case.verify().unwrap_or_else(|rejected| panic!("{}: {rejected:#?}", case.name));
        let claims = serde_json::to_value(evidence.claims()).expect("JSON");
        let fields = &case.expect["fields"];
        assert_eq!(claims["tee"], "az-snp-vtpm");
        assert_eq!(claims["hcl_measurement"], fields["measurement"], "{}", case.name);
        for name in ["report_data", "chip_id", "family_id", "host_data", "report_id", "guest_svn", "vmpl"] {
            assert_eq!(claims[name], fields[name], "{}: {name}", case.name);
        }
        assert_eq!(claims["pcrs"], case.primary["tpm_quote"]["pcrs"], "{}", case.name);
        let names: Vec<&String> = claims["vm_configuration"].as_object().expect("an object").keys().collect();
        assert_eq!(names.len(), 4, "{}", case.name);
    }
}

#[test]
fn evidence_answers_one_challenge_only() {
    for case in cases() {
        let mut expected = case.expected();
        *expected.report_data.last_mut().expect("64 bytes") = 1;
        let rejected = verify(&case.primary, &expected).expect_err("another challenge");
        assert_eq!(failed(&rejected), [CheckName::Nonce], "{}", case.name);
    }
}

#[test]
fn no_byte_of_real_evidence_can_change() {
    let verifier = AzSnpVtpmVerifier::new(TrustRoots::amd());
    for case in cases().iter().take(1) {
        let expected = case.expected();
        let hcl = URL_SAFE.decode(case.primary["hcl_report"].as_str().expect("a text")).expect("base64");
        for offset in 0..hcl.len() {
            let mut changed = hcl.clone();
            *changed.get_mut(offset).expect("inside") ^= 1 << (offset % 8);
            let mut primary = case.primary.clone();
            primary["hcl_report"] = json!(URL_SAFE.encode(&changed));
            assert!(verifier.verify(&primary, &expected).is_err(), "byte {offset:#05x} of the HCL report may change");
        }
        for member in ["message", "signature"] {
            let bytes = hex::decode(case.primary["tpm_quote"][member].as_str().expect("a text")).expect("hexadecimal");
            for offset in 0..bytes.len() {
                let mut changed = bytes.clone();
                *changed.get_mut(offset).expect("inside") ^= 1 << (offset % 8);
                let mut primary = case.primary.clone();
                primary["tpm_quote"][member] = json!(hex::encode(&changed));
                assert!(verifier.verify(&primary, &expected).is_err(), "byte {offset} of the {member} may change");
            }
        }
    }
}

#[test]
fn a_quote_of_another_machine_is_refused_for_that_alone() {
    let Some(folder) = vectors() else { return };
    let at = folder.join("snp/milan-v2-trustee-hcl");
    let vcek = read(&at.join("vek.der"));
    let quote = json!({
        "message": read(&at.join("tpm-quote.msg")),
        "signature": read(&at.join("tpm-quote.sig")),
        "pcrs": vec![vec![0; 32]; 24],
    });
    let primary = json!({"report": read(&at.join("hcl.bin")), "quote": quote, "vcek": URL_SAFE.encode(vcek)});
    let case = Case { name: "milan-v2-trustee-hcl", primary, nonce: b"challenge".to_vec(), expect: Value::Null };
    let rejected = case.verify().expect_err("registers of zero");
    // A real quote, of other registers, that another key made: all that rests on the paravisor's report holds.
    assert_eq!(failed(&rejected), [CheckName::PcrDigest, CheckName::AkSignature], "{rejected:#?}");
}

#[test]
fn machines_with_tdx_are_not_taken_for_these() {
    let Some(folder) = vectors() else { return };
    let primary = json_file(&folder.join("tdx/az-tdx-evidence-v1.json"));
    let expected = cases().first().expect("a case").expected();
    let rejected = AzSnpVtpmVerifier::new(TrustRoots::amd());
    let mut primary_with_vcek = primary.clone();
    primary_with_vcek["vcek"] = json!("AQ==");
    let rejected = rejected.verify(&primary_with_vcek, &expected).expect_err("a TDX report");
    assert_eq!(failed(&rejected), [CheckName::HclForm]);
    assert!(!TdxVerifier::new().recognises(&primary), "its quote is another member");
}

#[test]
fn verifiers_recognise_their_own() {
    for case in cases() {
        assert!(AzSnpVtpmVerifier::new(TrustRoots::amd()).recognises(&case.primary));
        assert!(!SnpVerifier::new(TrustRoots::amd()).recognises(&case.primary));
        assert!(!TdxVerifier::new().recognises(&case.primary));
    }
}
