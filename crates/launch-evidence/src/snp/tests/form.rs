//! JSON that is no evidence, and a verifier that answers whatever it is given.

use proptest::prelude::*;

use super::*;
use crate::snp::evidence::{Evidence, EvidenceError, evidence_from_files, in_stock_form};
use crate::snp::table::tests::{ASK, VCEK, table};

/// The one check that fails.
#[track_caller]
fn offence(primary: &Value) -> CheckName {
    Evidence::parse(primary).err().unwrap().check
}

fn report() -> String {
    STANDARD.encode([0; REPORT_LEN])
}

#[test]
fn only_the_two_forms_are_evidence() {
    let raw = json!({"report": report(), "cert_chain": [], "simulated": true});
    assert!(Evidence::parse(&raw).is_ok());
    assert!(Evidence::parse(&json!({"report": report()})).is_ok(), "certificates may be missing");
    for primary in [
        Value::Null,
        json!([raw]),
        json!("report"),
        json!({}),
        json!({"report": 1}),
        json!({"report": "no base64!"}),
        json!({"report": format!("{} ", report())}),
        json!({"report": report(), "attestation_report": {}}),
        json!({"attestation_report": {}}),
        json!({"attestation_report": report()}),
        json!({"report": report(), "cert_chain": {}}),
        json!({"report": report(), "cert_chain": [1]}),
        json!({"report": report(), "cert_chain": [""]}),
        json!({"report": report(), "cert_chain": [{"cert_type": "VCEK"}]}),
        json!({"report": report(), "cert_chain": [{"cert_type": "VCEK", "data": [256]}]}),
    ] {
        assert_eq!(offence(&primary), CheckName::EvidenceForm, "{primary}");
    }
}

#[test]
fn evidence_of_ours_in_the_stock_form_is_the_same_report_with_the_endorsement_keys_certificate() {
    for (version, kind, name) in [(5, KeyKind::Vcek, "VCEK"), (3, KeyKind::Vlek, "VLEK")] {
        let (primary, ..) = Case::of(Product::Genoa, version, kind).build();
        let raw = Evidence::parse(&primary).ok().unwrap();
        let stock = in_stock_form(primary);
        assert!(stock.get("report").is_none());
        assert_eq!(stock["cert_chain"].as_array().unwrap().len(), 1);
        assert_eq!(stock["cert_chain"][0]["cert_type"], name);
        let read = Evidence::parse(&stock).ok().unwrap();
        assert_eq!(read.report.bytes(), raw.report.bytes());
        assert_eq!(read.certificates, raw.certificates[..1]);
    }
    for other in [json!({"quote": "AAAA"}), json!({"svn": "1", "report_data": ""}), Value::Null] {
        assert_eq!(in_stock_form(other.clone()), other, "what is none of ours stays");
    }
}

#[test]
fn sizes_are_bounded() {
    for len in [0, REPORT_LEN - 1, REPORT_LEN + 1, 100_000] {
        assert_eq!(offence(&json!({"report": STANDARD.encode(vec![0; len])})), CheckName::Length, "{len} bytes");
    }
    let chain = |count: usize, len: usize| json!({"report": report(), "cert_chain": vec![STANDARD.encode(vec![0; len]); count]});
    assert!(Evidence::parse(&chain(8, 8192)).is_ok());
    assert_eq!(offence(&chain(9, 1)), CheckName::EvidenceForm);
    assert_eq!(offence(&chain(1, 8193)), CheckName::EvidenceForm);
    let numbers = json!({"report": report(), "cert_chain": [{"cert_type": "VCEK", "data": vec![0; 8193]}]});
    assert_eq!(offence(&numbers), CheckName::EvidenceForm);
}

#[test]
fn the_hosts_table_may_stand_beside_the_report() {
    let host = table(&[(ASK, b"ask"), (VCEK, b"vcek")]);
    let primary = |table: Value| json!({"report": report(), "cert_chain": ["AQ=="], "cert_table": table});
    let evidence = Evidence::parse(&primary(Value::from(STANDARD.encode(&host)))).unwrap();
    assert_eq!(evidence.certificates, [b"\x01".to_vec(), b"ask".to_vec(), b"vcek".to_vec()]);
    for wrong in [
        json!(1),
        json!("-"),
        json!(STANDARD.encode(&host[..host.len() - 1])),
        json!(STANDARD.encode(vec![0; 65 * 1024])),
        json!(STANDARD.encode(table(&vec![(VCEK, &b"vcek"[..]); 8]))),
    ] {
        assert_eq!(offence(&primary(wrong)), CheckName::EvidenceForm);
    }
}

#[test]
fn files_become_evidence() {
    let pem =
        |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    let bundle = pem(&[1]) + &pem(&[2]);
    let host = table(&[(VCEK, &[3]), (ASK, &[1])]);
    let primary = evidence_from_files(&[0; REPORT_LEN], &[&[7][..], bundle.as_bytes()], Some(&host)).unwrap();
    let evidence = Evidence::parse(&primary).unwrap();
    assert_eq!(evidence.certificates, [[7], [1], [2], [3]], "each once");

    let none: [&[u8]; 0] = [];
    assert!(matches!(evidence_from_files(&[0; 1183], &none, None), Err(EvidenceError::Length(1183))));
    let cut = &bundle.as_bytes()[..40];
    assert!(matches!(evidence_from_files(&[0; REPORT_LEN], &[cut], None), Err(EvidenceError::Pem(1))));
    let many = vec![[0_u8], [1], [2], [3], [4], [5], [6], [7], [8]];
    assert!(matches!(evidence_from_files(&[0; REPORT_LEN], &many, None), Err(EvidenceError::TooMany)));
    assert!(matches!(evidence_from_files(&[0; REPORT_LEN], &[vec![0; 9000]], None), Err(EvidenceError::TooMany)));
    assert!(matches!(evidence_from_files(&[0; REPORT_LEN], &none, Some(&[1])), Err(EvidenceError::Table(_))));
}

#[test]
fn entries_that_are_no_certificates_are_passed_over() {
    let entries = json!([
        {"cert_type": "VCEK", "data": [1]},
        {"cert_type": "CRL", "data": [2]},
        {"cert_type": {"OTHER": "00000000-0000-0000-0000-000000000001"}, "data": [3]},
        {"cert_type": "ASK", "data": STANDARD.encode([4])},
    ]);
    let evidence = Evidence::parse(&json!({"report": report(), "cert_chain": entries})).unwrap();
    assert_eq!(evidence.certificates, [[1], [4]]);
}

#[test]
fn a_rejection_names_its_first_failure() {
    let mut case = Case::new();
    case.report[0x30] = 2;
    let (primary, verifier, expected) = case.build();
    let rejected = verifier.verify(&primary, &expected).unwrap_err();
    assert_eq!(rejected.to_string(), "the evidence failed the check vmpl: expected 0, found 2");
    let passed = rejected.checks.iter().filter(|check| check.verdict == crate::check::Verdict::Passed).count();
    assert!(passed > 15, "the other checks are still made and listed: {rejected:#?}");
    assert!(rejected.checks.is_sorted_by_key(|check| check.name));
}

#[test]
fn the_second_form_of_a_signature_verifies_too() {
    // (r, n − s): why no cache may be keyed by the report's digest.
    let (primary, verifier, expected) = Case::new().build();
    let digest = verifier.verify(&primary, &expected).unwrap().evidence_digest().to_owned();
    let mut report = STANDARD.decode(primary["report"].as_str().unwrap()).unwrap();
    let mut borrow = 0_i16;
    for (byte, order) in report[0x2E8..0x318].iter_mut().zip(crate::snp::signature::ORDER.iter().rev()) {
        let difference = i16::from(*order) - i16::from(*byte) - borrow;
        borrow = i16::from(difference < 0);
        *byte = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let second = json!({"report": STANDARD.encode(report), "cert_chain": primary["cert_chain"]});
    assert_ne!(verifier.verify(&second, &expected).unwrap().evidence_digest(), digest);
}

/// JSON of any shape, with the members of evidence among it.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[A-Za-z0-9+/=]{0,24}".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), REPORT_LEN).prop_map(|bytes| Value::from(STANDARD.encode(bytes))),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let name = prop_oneof![
            Just("report".to_owned()),
            Just("attestation_report".to_owned()),
            Just("cert_chain".to_owned()),
            Just("cert_type".to_owned()),
            Just("data".to_owned()),
            "[a-z]{1,8}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_the_verifier_panic_or_accept(primary in any_json()) {
        let expected = Expected {
            report_data: [0; 64],
            host_data: HostData::Zero,
            requirements: Requirements::default(),
            now: Timestamp::UNIX_EPOCH,
        };
        prop_assert!(SnpVerifier::new(TrustRoots::amd()).verify(&primary, &expected).is_err());
    }

    #[test]
    fn no_bytes_make_the_certificate_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = super::super::certificate::Certificate::parse(&bytes);
        let _ = super::super::revocation::RevocationList::parse(&bytes);
    }
}

#[test]
fn no_change_of_a_byte_of_a_certificate_goes_through() {
    let (primary, verifier, expected) = Case::new().build();
    let leaf = STANDARD.decode(primary["cert_chain"][0].as_str().unwrap()).unwrap();
    for offset in (0..leaf.len()).step_by(3) {
        let mut changed = leaf.clone();
        changed[offset] ^= 1 << (offset % 8);
        let chain = json!([STANDARD.encode(&changed), primary["cert_chain"][1]]);
        let primary = json!({"report": primary["report"], "cert_chain": chain});
        assert!(verifier.verify(&primary, &expected).is_err(), "byte {offset:#x} of the certificate may change");
    }
}
