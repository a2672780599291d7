//! The verifier against real reports: the folder of vectors where it is at hand, and the reports that the
//! `sev` package carries in its own tests everywhere.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod data;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use launch_evidence::{
    CheckName, EvidenceRejected, Expected, HostData, Requirements, Revocation, SnpVerifier, TrustRoots, Verdict,
    VerifiedEvidence, Verifier as _,
};
use serde_json::{Value, json};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use crate::data::{manifest, package, read, vectors};

/// One real report and what stands beside it.
struct Case {
    name: String,
    report: Vec<u8>,
    certificates: Vec<Vec<u8>>,
    /// The manifest's word on it.
    expect: Value,
}

impl Case {
    fn primary(&self) -> Value {
        primary(&self.report, &self.certificates)
    }

    /// Expects what the report says, so that only the other checks can fail.
    fn expected(&self) -> Expected {
        let field = |range: std::ops::Range<usize>| self.report.get(range).expect("a whole report").to_vec();
        let host_data: [u8; 32] = field(0xC0..0xE0).try_into().expect("32 bytes");
        Expected {
            report_data: field(0x50..0x90).try_into().expect("64 bytes"),
            host_data: if host_data == [0; 32] { HostData::Zero } else { HostData::Sha256(host_data) },
            requirements: Requirements::default(),
            now: "2026-06-01T00:00:00Z".parse().expect("a date"),
        }
    }
}

fn primary(report: &[u8], certificates: &[Vec<u8>]) -> Value {
    let chain: Vec<String> = certificates.iter().map(|der| STANDARD.encode(der)).collect();
    json!({"report": STANDARD.encode(report), "cert_chain": chain})
}

fn pem(path: &Path) -> Vec<u8> {
    der::pem::decode_vec(&read(path)).expect("PEM").1
}

fn from_vectors() -> Vec<Case> {
    let Some(folder) = vectors() else { return Vec::new() };
    let manifest = manifest(&folder);
    let cases = manifest["snp"].as_array().expect("a list");
    let case = |entry: &Value| {
        let name = entry["name"].as_str().expect("a name").to_owned();
        let at = folder.join("snp").join(&name);
        let mut certificates = vec![read(&at.join("vek.der"))];
        if entry["expect"]["signer"] == "VLEK" {
            let product = entry["expect"]["product"].as_str().expect("a product").to_lowercase();
            certificates.push(pem(&folder.join("chains").join(format!("{product}_asvk.pem"))));
        }
        Case { report: read(&at.join("report.bin")), certificates, expect: entry["expect"].clone(), name }
    };
    cases.iter().map(case).collect()
}

/// The report that the `sev` package has in its tests, found where cargo keeps the package.
fn from_sev() -> Case {
    let data = package("sev").join("tests").join("certs_data");
    let report = read(&data.join("report_milan.hex"));
    let report = if report.len() == 1184 { report } else { hex::decode(report.trim_ascii()).expect("hexadecimal") };
    Case {
        name: "sev-package-milan".to_owned(),
        report,
        certificates: vec![read(&data.join("vcek_milan.der"))],
        expect: json!({"strict_verdict_2026_06_01": "accept", "product": "Milan"}),
    }
}

fn cases() -> Vec<Case> {
    let mut cases = from_vectors();
    cases.push(from_sev());
    cases
}

fn verify(primary: &Value, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected> {
    SnpVerifier::new(TrustRoots::amd()).verify(primary, expected)
}

fn failed(rejected: &EvidenceRejected) -> Vec<CheckName> {
    rejected.failures().map(|check| check.name).collect()
}

/// The check that a reason of the manifest is about.
fn check_of(reason: &str) -> CheckName {
    match reason {
        "policy DEBUG" => CheckName::Debug,
        "VMPL 1" => CheckName::Vmpl,
        "VLEK expired 2025-12-10" => CheckName::CertificateDates,
        "report not signed by the certificate beside it" => CheckName::ReportSignature,
        other => panic!("the manifest has a new reason: {other}"),
    }
}

#[test]
fn every_real_report_gets_its_expected_verdict() {
    for case in cases() {
        let outcome = verify(&case.primary(), &case.expected());
        match (case.expect["strict_verdict_2026_06_01"].as_str(), outcome) {
            (Some("accept"), Ok(evidence)) => {
                assert!(!evidence.is_simulated(), "{}", case.name);
                assert_eq!(
                    json!(evidence.claims().snp().expect("claims of SNP").product),
                    case.expect["product"],
                    "{}",
                    case.name
                );
            }
            (Some("refuse"), Err(rejected)) => {
                let reasons = case.expect["strict_refusal_reasons"].as_array().expect("a list");
                let wanted: Vec<CheckName> =
                    reasons.iter().map(|reason| check_of(reason.as_str().expect("a text"))).collect();
                let mut found = failed(&rejected);
                if wanted == [CheckName::ReportSignature] {
                    // A certificate of another chip: its TCB and hardware id are another's, too.
                    found.retain(|name| !matches!(name, CheckName::TcbExtensions | CheckName::HardwareId));
                }
                assert_eq!(found, wanted, "{}: {:#?}", case.name, rejected.checks);
            }
            (verdict, outcome) => panic!("{}: {verdict:?} expected: {outcome:#?}", case.name),
        }
    }
}

#[test]
fn claims_say_what_the_manifest_says() {
    for case in from_vectors() {
        let mut expected = case.expected();
        // Lenient, so that the debuggable report and the provider's key give claims as well.
        expected.requirements.allow_debug = true;
        expected.requirements.vmpl =
            u32::try_from(case.expect["fields"]["vmpl"].as_u64().expect("a number")).expect("small");
        if case.expect["signer"] == "VLEK" {
            expected.now = "2025-06-01T00:00:00Z".parse().expect("a date");
        }
        let Ok(evidence) = verify(&case.primary(), &expected) else {
            assert_eq!(case.name, "milan-v2-automata");
            continue;
        };
        let claims = serde_json::to_value(evidence.claims()).expect("JSON");
        let fields = &case.expect["fields"];
        for name in [
            "guest_svn",
            "family_id",
            "image_id",
            "report_data",
            "measurement",
            "host_data",
            "id_key_digest",
            "author_key_digest",
        ] {
            assert_eq!(claims[name], fields[name], "{}: {name}", case.name);
        }
        for name in ["report_id", "report_id_ma", "chip_id", "vmpl"] {
            assert_eq!(claims[name], fields[name], "{}: {name}", case.name);
        }
        for (name, component) in [("bootloader", "bl"), ("tee", "tee"), ("snp", "snp"), ("microcode", "ucode")] {
            for tcb in ["current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"] {
                assert_eq!(claims[tcb][name], fields[tcb][component], "{}: {tcb} {name}", case.name);
            }
        }
        assert_eq!(claims["report_version"], fields["version"], "{}", case.name);
        assert_eq!(claims["current_version"], fields["current_ver"], "{}", case.name);
        assert_eq!(claims["committed_version"], fields["committed_ver"], "{}", case.name);
        assert_eq!(json!(format!("{:#x}", claims["policy"]["bits"].as_u64().expect("a number"))), fields["policy"]);
        assert_eq!(json!(claims["policy"]["debug"] == true), json!(fields["policy_bits"]["debug"] == 1));
        assert_eq!(
            json!(format!("{:#x}", claims["platform_info"]["bits"].as_u64().expect("a number"))),
            fields["platform_info"]
        );
        let kind = case.expect["signer"].as_str().expect("a kind").to_lowercase();
        assert_eq!(claims["signing_key"], json!(kind), "{}", case.name);
    }
}

#[test]
fn confidential_containers_form_gives_the_same_verdict() {
    for case in cases() {
        let report = AttestationReport::from_bytes(&case.report);
        // The sev crate reads no version 2 report with a masked chip id; none of these is one.
        let report = report.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let chain: Vec<Value> = case.certificates.iter().map(|der| json!({"cert_type": "VCEK", "data": der})).collect();
        let structured = json!({"attestation_report": report, "cert_chain": chain});
        let expected = case.expected();
        match (verify(&case.primary(), &expected), verify(&structured, &expected)) {
            (Ok(raw), Ok(structured)) => {
                assert_eq!(raw.evidence_digest(), structured.evidence_digest(), "{}", case.name);
                let claims = |evidence: &VerifiedEvidence| serde_json::to_value(evidence.claims()).expect("JSON");
                assert_eq!(claims(&raw), claims(&structured), "{}", case.name);
            }
            (Err(raw), Err(structured)) => assert_eq!(failed(&raw), failed(&structured), "{}", case.name),
            (raw, structured) => panic!("{}: {raw:?} but {structured:?}", case.name),
        }
    }
}

#[test]
fn no_byte_of_a_real_report_can_change() {
    let mut cases = from_vectors();
    cases.retain(|case| matches!(case.name.as_str(), "milan-v3-tav" | "turin-v5-oak"));
    cases.push(from_sev());
    let verifier = SnpVerifier::new(TrustRoots::amd());
    for case in cases {
        let expected = case.expected();
        for offset in 0..case.report.len() {
            let mut report = case.report.clone();
            if let Some(byte) = report.get_mut(offset) {
                *byte ^= 1 << (offset % 8);
            }
            let outcome = verifier.verify(&primary(&report, &case.certificates), &expected);
            assert!(outcome.is_err(), "{}: byte {offset:#05x} may change", case.name);
        }
    }
}

#[test]
fn reports_of_other_lengths_are_refused() {
    let case = from_sev();
    let longer = [case.report.clone(), vec![0]].concat();
    for report in [&case.report[..1183], &longer, &case.report[..0]] {
        let rejected = verify(&primary(report, &case.certificates), &case.expected()).expect_err("another length");
        assert_eq!(failed(&rejected), [CheckName::Length]);
    }
}

#[test]
fn a_report_needs_its_own_certificate() {
    let case = from_sev();
    let rejected = verify(&primary(&case.report, &[]), &case.expected()).expect_err("no certificate");
    assert_eq!(failed(&rejected), [CheckName::CertificateForm]);
    for other in from_vectors().iter().filter(|other| other.expect["product"] == "Milan") {
        if other.certificates == case.certificates {
            continue;
        }
        let rejected = verify(&primary(&case.report, &other.certificates), &case.expected()).expect_err("another chip");
        assert!(failed(&rejected).contains(&CheckName::ReportSignature), "{}", other.name);
    }
}

#[test]
fn real_revocation_lists_are_read_and_judged_by_their_dates() {
    let Some(folder) = vectors() else { return };
    let list = |name: &str| read(&folder.join("crl").join(name));
    let trust = TrustRoots::amd()
        .with_revocation_list(&list("genoa.crl"))
        .and_then(|trust| trust.with_revocation_list(&list("milan.crl")))
        .expect("lists of AMD's roots");
    let verifier = SnpVerifier::new(trust);
    let verdict = |now: &str, case: &Case| {
        let mut expected = case.expected();
        expected.requirements.revocation = Revocation::Require;
        expected.now = now.parse::<Timestamp>().expect("a date");
        let checks = match verifier.verify(&case.primary(), &expected) {
            Ok(evidence) => evidence.checks().to_vec(),
            Err(rejected) => rejected.checks,
        };
        checks.into_iter().find(|check| check.name == CheckName::Revocation).expect("the check").verdict
    };
    for case in from_vectors() {
        match case.expect["product"].as_str() {
            // Genoa's names the serial of an intermediate that was replaced, not of the one in use.
            Some("Genoa" | "Milan") => {
                assert_eq!(verdict("2023-01-01T00:00:00Z", &case), Verdict::Passed, "{}", case.name);
            }
            _ => assert_eq!(verdict("2023-01-01T00:00:00Z", &case), Verdict::Failed, "no list for {}", case.name),
        }
        assert_eq!(verdict("2026-06-01T00:00:00Z", &case), Verdict::Failed, "{}: the lists are old", case.name);
    }
}

#[test]
fn amd_roots_of_all_products_are_built_in() {
    let products: Vec<String> =
        TrustRoots::amd().products().map(|(product, simulated)| format!("{product} {simulated}")).collect();
    assert_eq!(products, ["Milan false", "Genoa false", "Turin false"]);
}
