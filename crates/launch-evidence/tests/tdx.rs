//! The TDX verifier against real quotes: the folder of vectors where it is at hand, and the samples that the
//! `dcap-qvl` package carries everywhere.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod data;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use jiff::Timestamp;
use launch_evidence::tdx::{self, Collateral, TcbStatus};
use launch_evidence::{
    CheckName, EvidenceRejected, Expected, HostData, Requirements, TdxVerifier, Verdict, VerifiedEvidence,
    Verifier as _,
};
use serde_json::{Value, json};

use crate::data::{manifest, package, read, vectors};

/// A real quote, collateral for its platform, and a time at which that is current.
struct Case {
    name: String,
    quote: Vec<u8>,
    collateral: Vec<u8>,
    now: Timestamp,
    /// The manifest's word on it, where it has one.
    entry: Value,
}

impl Case {
    fn of_package(quote: &str, now: i64) -> Self {
        let samples = package("dcap-qvl").join("sample");
        Self {
            name: format!("package {quote}"),
            quote: read(&samples.join(quote)),
            collateral: read(&samples.join(format!("{quote}_collateral.json"))),
            now: Timestamp::from_second(now).expect("a date"),
            entry: Value::Null,
        }
    }

    fn body(&self) -> &[u8] {
        self.quote.get(if self.quote.first() == Some(&5) { 54 } else { 48 }..).expect("a whole quote")
    }

    /// Expects what the quote says, so that only the other checks can fail.
    fn expected(&self) -> Expected {
        let report_data = self.body().get(520..584).and_then(|bytes| bytes.try_into().ok()).expect("report data");
        Expected { report_data, host_data: HostData::Zero, requirements: Requirements::default(), now: self.now }
    }

    fn collateral(&self) -> Collateral {
        Collateral::from_json(&self.collateral).expect("collateral")
    }

    fn verify(&self, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected> {
        TdxVerifier::new().with_collateral(self.collateral()).verify_quote(&self.quote, None, expected)
    }
}

fn up_to_date() -> Case {
    Case::of_package("tdx_quote", 1_750_332_747)
}

fn from_vectors() -> Vec<Case> {
    let Some(folder) = vectors() else { return Vec::new() };
    let manifest = manifest(&folder);
    let quotes = manifest["tdx"].as_array().expect("a list").iter().filter(|entry| entry["file"].is_string());
    let quotes = quotes.filter(|entry| entry["collateral"].is_string());
    let file = |value: &Value| read(&folder.join(Path::new(value.as_str().expect("a path"))));
    let case = |entry: &Value| Case {
        name: entry["name"].as_str().expect("a name").to_owned(),
        quote: file(&entry["file"]),
        collateral: file(&entry["collateral"]),
        now: Timestamp::from_second(entry["collateral_window"][0].as_i64().expect("a time") + 3600).expect("a date"),
        entry: entry.clone(),
    };
    quotes.map(case).collect()
}

fn failed(rejected: &EvidenceRejected) -> Vec<CheckName> {
    rejected.failures().map(|check| check.name).collect()
}

/// The checks that the manifest's verdict on strict verification is about.
fn wanted(verdict: &Value) -> Vec<CheckName> {
    match (verdict["status"].as_str(), verdict["err"].as_str()) {
        (Some("UpToDate"), None) => Vec::new(),
        (Some(_), None) | (None, Some("No matching TCB level found")) => vec![CheckName::TcbStatus],
        (None, Some("Debug mode is enabled")) => vec![CheckName::Debug],
        other => panic!("the manifest has a new verdict: {other:?}"),
    }
}

#[test]
fn every_real_quote_gets_its_expected_verdict() {
    for case in from_vectors() {
        let verdicts = case.entry["dcap_qvl_0_7_1"].as_object().expect("verdicts");
        let of = |mode: &str| {
            let verdict = &verdicts.get(&case.now.as_second().to_string()).expect("a verdict at that time")[mode];
            wanted(verdict)
        };
        let found = case.verify(&case.expected()).map_or_else(|rejected| failed(&rejected), |_| Vec::new());
        if case.entry["body"] == "sgx" {
            assert_eq!(found, [CheckName::TeeType], "{}", case.name);
            continue;
        }
        let mut strict = of("verify");
        if strict == [CheckName::Debug] {
            // Every check is made here, so that the status is said, too.
            strict.extend(of("allow_debug_and_service_td"));
        }
        let service_td = case.body().get(600..648).filter(|_| case.entry["body"] == "td15");
        if service_td.is_some_and(|digest| digest.iter().any(|byte| *byte != 0)) {
            // The manifest's verifier stops at the TCB, before it looks.
            strict.insert(0, CheckName::ServiceTd);
        }
        assert_eq!(found, strict, "{}", case.name);
    }
}

#[test]
fn claims_say_what_the_manifest_says() {
    let statuses = [TcbStatus::UpToDate, TcbStatus::OutOfDate];
    let mut seen = 0;
    for case in from_vectors() {
        let mut expected = case.expected();
        expected.requirements.allow_debug = true;
        expected.requirements.tdx.tcb_statuses = statuses.to_vec();
        let Ok(evidence) = case.verify(&expected) else { continue };
        seen += 1;
        let claims = serde_json::to_value(evidence.claims()).expect("JSON");
        let fields = &case.entry["fields"];
        for (ours, theirs) in [
            ("tee_tcb_svn", "tee_tcb_svn"),
            ("mr_seam", "mr_seam"),
            ("xfam", "xfam"),
            ("mrtd", "mr_td"),
            ("mr_config_id", "mr_config_id"),
            ("mr_owner", "mr_owner"),
            ("rtmr0", "rtmr0"),
            ("rtmr1", "rtmr1"),
            ("rtmr2", "rtmr2"),
            ("rtmr3", "rtmr3"),
            ("report_data", "report_data"),
        ] {
            assert_eq!(claims[ours], fields[theirs], "{}: {ours}", case.name);
        }
        let bits = claims["td_attributes"]["bits"].as_u64().expect("a number");
        assert_eq!(json!(hex::encode(bits.to_le_bytes())), fields["td_attributes"], "{}", case.name);
        assert_eq!(claims["fmspc"], case.entry["fmspc"], "{}", case.name);
        assert_eq!(claims["quote_version"], case.entry["header"]["version"], "{}", case.name);
        assert_eq!((&claims["tee"], &claims["simulated"]), (&json!("tdx"), &json!(false)));
        assert!(claims.get("measurement").is_none(), "MRTD alone says nothing of the kernel");
        let verdicts = &case.entry["dcap_qvl_0_7_1"][case.now.as_second().to_string()];
        let verdict = &verdicts["allow_debug_and_service_td"];
        assert_eq!(claims["tcb_status"], verdict["status"], "{}", case.name);
        assert_eq!(claims["advisory_ids"], verdict["advisories"], "{}", case.name);
    }
    assert!(vectors().is_none() || seen >= 4, "only {seen} quotes gave claims");
}

#[test]
fn quotes_of_both_versions_are_verified() {
    let evidence = up_to_date().verify(&up_to_date().expected()).expect("verified evidence");
    let claims = evidence.claims().tdx().expect("claims of a TD");
    assert_eq!((claims.quote_version, claims.tcb_status), (4, TcbStatus::UpToDate));
    assert_eq!(evidence.measurement(), claims.mrtd);
    assert!(evidence.chip_id().to_string().starts_with(&claims.ppid) && claims.ppid.len() == 32);
    assert!(evidence.checks().iter().all(|check| check.verdict != Verdict::Failed));

    // The extended body of version 5, at a time when its collateral is current.
    let collateral = read(&package("dcap-qvl").join("sample/tdx_quote_td15ex_collateral.json"));
    let collateral: Value = serde_json::from_slice(&collateral).expect("JSON");
    let info: Value = serde_json::from_str(collateral["tcb_info"].as_str().expect("a text")).expect("JSON");
    let issued: Timestamp = info["issueDate"].as_str().expect("a text").parse().expect("a date");
    let case = Case::of_package("tdx_quote_td15ex", issued.as_second() + 7200);
    // Its host passed more than a digest: 48 bytes of a form of its own.
    assert_eq!(failed(&case.verify(&case.expected()).expect_err("host data")), [CheckName::HostData]);
}

#[test]
fn an_enclaves_quote_is_no_tds() {
    let case = Case::of_package("sgx_quote", 1_750_334_171);
    let rejected = TdxVerifier::new()
        .with_collateral(case.collateral())
        .verify_quote(&case.quote, None, &up_to_date().expected())
        .expect_err("an enclave");
    assert_eq!(failed(&rejected), [CheckName::TeeType]);
}

#[test]
fn a_real_td_whose_host_may_inject_exceptions_is_refused_for_that() {
    let Some(folder) = vectors() else { return };
    let evidence: Value = serde_json::from_slice(&read(&folder.join("tdx/az-tdx-evidence-v1.json"))).expect("JSON");
    let quote = URL_SAFE.decode(evidence["td_quote"].as_str().expect("a text")).expect("base64");
    let mut expected = up_to_date().expected();
    expected.report_data = quote.get(568..632).and_then(|bytes| bytes.try_into().ok()).expect("report data");
    let rejected = TdxVerifier::new().verify_quote(&quote, None, &expected).expect_err("a refusal");
    assert_eq!(failed(&rejected), [CheckName::SeptVeDisable, CheckName::Collateral]);
}

#[test]
fn no_byte_of_a_real_quote_can_change() {
    let case = up_to_date();
    let expected = case.expected();
    let verifier = TdxVerifier::new().with_collateral(case.collateral());
    let claims = |evidence: &VerifiedEvidence| serde_json::to_value(evidence.claims()).expect("JSON");
    let original = claims(&case.verify(&expected).expect("verified evidence"));
    let text = b"-----BEGIN CERTIFICATE-----";
    let chain = case.quote.windows(text.len()).position(|window| window == text).expect("the PCK chain");
    let end = case.quote.iter().rposition(|byte| *byte == b'-').expect("the PCK chain");
    for offset in 0..case.quote.len() {
        // The chain's certificates are signed, the text that they are written in is not: every byte of a line's
        // end and some of the labels change nothing. A sample of it is enough, it is long.
        let inside = (chain..=end + 2).contains(&offset);
        if inside && offset % 7 != 0 {
            continue;
        }
        let mut quote = case.quote.clone();
        if let Some(byte) = quote.get_mut(offset) {
            *byte ^= 1 << (offset % 8);
        }
        match verifier.verify_quote(&quote, None, &expected) {
            Err(_) => {}
            Ok(evidence) => assert!(inside && claims(&evidence) == original, "byte {offset:#05x} may change"),
        }
    }
}

#[test]
fn each_part_of_the_endorsement_has_its_check() {
    let case = up_to_date();
    let fails = |case: &Case, expected: &Expected| failed(&case.verify(expected).expect_err("a refusal"));

    // The quoting enclave's report stands behind body, signature, key and the type of what follows.
    let mut changed = up_to_date();
    *changed.quote.get_mut(48 + 584 + 4 + 128 + 6 + 10).expect("a whole quote") ^= 1;
    assert_eq!(fails(&changed, &case.expected()), [CheckName::QuoteEndorsement]);

    let mut changed = up_to_date();
    let text = String::from_utf8(changed.collateral).expect("a text").replace("OutOfDate", "UpToDate");
    changed.collateral = text.into_bytes();
    assert!(fails(&changed, &case.expected()).contains(&CheckName::QuoteEndorsement), "its signature is broken");

    for now in ["2025-07-20T10:00:00Z", "2025-06-01T00:00:00Z"] {
        let mut expected = case.expected();
        expected.now = now.parse().expect("a date");
        assert_eq!(fails(&case, &expected), [CheckName::CollateralDates], "{now}");
    }

    let mut expected = case.expected();
    expected.requirements.tdx.tcb_statuses = vec![TcbStatus::OutOfDate];
    assert_eq!(fails(&case, &expected), [CheckName::TcbStatus]);

    let other = Case::of_package("tdx_quote_outdated", 0).collateral();
    let verifier = TdxVerifier::new().with_collateral(other);
    let rejected = verifier.verify_quote(&case.quote, None, &case.expected()).expect_err("another platform's");
    assert_eq!(failed(&rejected), [CheckName::Collateral]);
}

#[test]
fn collateral_comes_with_evidence_or_from_the_caller_who_is_heard_first() {
    let case = up_to_date();
    let collateral: Value = serde_json::from_slice(&case.collateral).expect("JSON");
    let primary = tdx::evidence_json(&case.quote, Some(collateral.clone()));
    assert!(TdxVerifier::new().recognises(&primary));
    let evidence = TdxVerifier::new().verify(&primary, &case.expected()).expect("verified evidence");
    let check = evidence.checks().iter().find(|check| check.name == CheckName::Collateral).expect("the check");
    assert_eq!(check.found, "with the evidence");

    // As Confidential Containers sends it.
    let primary = json!({"cc_eventlog": null, "quote": STANDARD.encode(&case.quote)});
    let verifier = TdxVerifier::new().with_collateral(case.collateral());
    assert!(verifier.verify(&primary, &case.expected()).is_ok());

    // The caller's own is broken: what the evidence brings does not save it.
    let mut broken = collateral.clone();
    broken["tcb_info_signature"] = json!("00".repeat(64));
    let broken = Collateral::from_json(broken.to_string().as_bytes()).expect("collateral");
    let primary = tdx::evidence_json(&case.quote, Some(collateral));
    let rejected = TdxVerifier::new().with_collateral(broken).verify(&primary, &case.expected());
    assert_eq!(failed(&rejected.expect_err("a broken signature")), [CheckName::QuoteEndorsement]);
}

#[test]
fn collateral_is_bounded_and_strict() {
    assert!(Collateral::from_json(b"{}").is_err());
    assert!(Collateral::from_json(&vec![b' '; 600 * 1024]).is_err());
}
