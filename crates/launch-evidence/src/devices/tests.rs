//! Devices' evidence as attesters write it, and everything that it must not be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::spdm::NONCE_LEN;
use super::*;

const NONCE: [u8; NONCE_LEN] = [7; NONCE_LEN];

/// What a device would sign; the signature is none.
fn transcript(nonce: &[u8], blocks: &[(u8, &[u8])], opaque: &[(u16, &[u8])]) -> Vec<u8> {
    let mut record = Vec::new();
    for (index, value) in blocks {
        let value_len = u16::try_from(value.len()).unwrap();
        record.extend([*index, 1]);
        record.extend((value_len + 3).to_le_bytes());
        record.push(0);
        record.extend(value_len.to_le_bytes());
        record.extend(*value);
    }
    let mut data = Vec::new();
    for (kind, value) in opaque {
        data.extend(kind.to_le_bytes());
        data.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        data.extend(*value);
    }
    let record_len = u32::try_from(record.len()).unwrap().to_le_bytes();
    [
        &[0x11, 0xE0, 1, 0xFF],
        nonce,
        &[0, 0x11, 0x60, 0, 0, u8::try_from(blocks.len()).unwrap()],
        &record_len[..3],
        &record,
        &[9; NONCE_LEN],
        &u16::try_from(data.len()).unwrap().to_le_bytes(),
        &data,
        &[0; 96],
    ]
    .concat()
}

fn hopper_report() -> Vec<u8> {
    let vbios = [0x00, 0x9f, 0x00, 0x96, 0x01, 0, 0, 0];
    transcript(&NONCE, &[(1, &[0xAB; 48]), (2, &[0xCD; 48])], &[(3, b"535.86.09\0"), (6, &vbios), (20, &[5; 48])])
}

/// A certificate of AMD's, since any will do here.
fn chain() -> String {
    const ASVK: &[u8] = include_bytes!("../snp/asvk/milan.der");
    let body = STANDARD.encode(ASVK);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    STANDARD.encode(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
}

fn device(report: &[u8]) -> Value {
    json!({"arch": "HOPPER", "uuid": "GPU-1", "evidence": STANDARD.encode(report), "certificate": chain()})
}

fn text(devices: &[Value]) -> String {
    json!({"nvidia": {"device_evidence_list": devices}}).to_string()
}

fn left_to_policy(text: &str) -> Result<JudgedDevices, EvidenceRejected> {
    judge(text, &NONCE, UnverifiedDevices::LeaveToPolicy)
}

/// The check that fails, and what it found.
#[track_caller]
fn offence(text: &str) -> (CheckName, String) {
    let rejected = left_to_policy(text).unwrap_err();
    let failed = rejected.failures().next().unwrap();
    (failed.name, failed.found.clone())
}

#[test]
fn a_guest_without_devices_has_none() {
    for text in ["", "{}", r#"{"nvidia": {"device_evidence_list": []}}"#] {
        assert!(judge(text, &NONCE, UnverifiedDevices::Refuse).unwrap().claims.is_empty(), "{text}");
    }
}

#[test]
fn a_gpu_says_what_it_is() {
    let judged = left_to_policy(&text(&[device(&hopper_report())])).unwrap();
    let claims = serde_json::to_value(&judged.claims).unwrap();
    let certificates = claims[0]["certificates"].as_array().unwrap();
    assert!(certificates[0]["subject"].as_str().unwrap().contains("Milan"));
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(hopper_report()));
    assert_eq!(
        claims,
        json!([{
            "tee": "nvidia", "class": "gpu", "architecture": "hopper", "uuid": "GPU-1", "driver_version": "535.86.09",
            "vbios_version": "96.00.9f.00.01", "measurements": {"1": "ab".repeat(48), "2": "cd".repeat(48)},
            "report_digest": digest, "certificates": certificates, "verified": false,
        }])
    );
}

#[test]
fn a_report_may_be_in_hexadecimal_and_the_line_in_any_case() {
    for (arch, class) in [("Hopper", DeviceClass::Gpu), ("BLACKWELL", DeviceClass::Gpu), ("LS10", DeviceClass::Switch)]
    {
        let mut device = device(&hopper_report());
        device["arch"] = json!(arch);
        device["uuid"] = json!("unknown");
        device["evidence"] = json!(hex::encode(hopper_report()));
        let judged = left_to_policy(&text(&[device])).unwrap();
        assert_eq!((judged.claims[0].class, &judged.claims[0].uuid), (class, &None));
    }
}

#[test]
fn unverified_devices_are_refused_unless_the_policy_is_to_judge_them() {
    let text = text(&[device(&hopper_report())]);
    let rejected = judge(&text, &NONCE, UnverifiedDevices::default()).unwrap_err();
    let failed: Vec<_> = rejected.failures().map(|check| check.name).collect();
    assert_eq!(failed, [CheckName::DeviceEndorsement]);
    let reason = rejected.failures().next().unwrap().to_string();
    assert!(reason.contains("Hopper") && reason.contains("nobody verifies here"), "{reason}");
    let judged = left_to_policy(&text).unwrap();
    let skipped = judged.checks.iter().find(|check| check.name == CheckName::DeviceEndorsement).unwrap();
    assert_eq!(skipped.verdict, crate::Verdict::Skipped);
}

#[test]
fn a_report_for_another_challenge_is_refused() {
    let other = transcript(&[8; NONCE_LEN], &[], &[]);
    let (check, found) = offence(&text(&[device(&hopper_report()), device(&other)]));
    assert_eq!((check, found.as_str()), (CheckName::DeviceNonce, "another one in report 1"));
}

#[test]
fn text_that_is_no_evidence_of_devices_is_refused() {
    let with = |name: &str, value: Value| {
        let mut device = device(&hopper_report());
        device[name] = value;
        text(&[device])
    };
    let without = |name: &str| {
        let mut device = device(&hopper_report());
        device.as_object_mut().unwrap().remove(name);
        text(&[device])
    };
    let twice = format!(r#"{{"nvidia": {0}, "nvidia": {0}}}"#, r#"{"device_evidence_list": []}"#);
    for text in [
        "[]".to_owned(),
        "{".to_owned(),
        "{} {}".to_owned(),
        twice,
        json!({"nvidia": {}}).to_string(),
        json!({"amd": {"device_evidence_list": []}}).to_string(),
        json!({"nvidia": {"device_evidence_list": []}, "snp": {}}).to_string(),
        with("arch", json!("VOLTA")),
        with("arch", json!(1)),
        with("uuid", json!("GPU\n1")),
        with("uuid", json!("x".repeat(65))),
        with("evidence", json!("no base64!")),
        with("evidence", json!("")),
        with("certificate", json!("no base64!")),
        with("certificate", json!(STANDARD.encode("no PEM"))),
        with("certificate", json!(STANDARD.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))),
        without("arch"),
        without("evidence"),
        without("certificate"),
    ] {
        assert_eq!(offence(&text).0, CheckName::DeviceForm, "{text}");
    }
}

#[test]
fn a_transcript_that_is_cut_or_longer_is_refused_wherever() {
    let whole = hopper_report();
    for len in 0..whole.len() {
        assert_eq!(offence(&text(&[device(&whole[..len])])).0, CheckName::DeviceForm, "{len}");
    }
    let longer = [whole, vec![0]].concat();
    assert_eq!(offence(&text(&[device(&longer)])).0, CheckName::DeviceForm);
}

#[test]
fn a_transcript_that_says_something_else_is_refused() {
    let twice_measured = transcript(&NONCE, &[(1, &[1]), (1, &[2])], &[]);
    let twice_said = transcript(&NONCE, &[], &[(3, b"1"), (3, b"2")]);
    let unreadable_driver = transcript(&NONCE, &[], &[(3, b"\x01")]);
    let short_firmware = transcript(&NONCE, &[], &[(6, &[1; 7])]);
    for report in [twice_measured, twice_said, unreadable_driver, short_firmware] {
        assert_eq!(offence(&text(&[device(&report)])).0, CheckName::DeviceForm);
    }
    // Version and code of request and answer, the number of blocks, the record's length, the blocks' own.
    for at in [0, 1, 37, 38, 41, 42, 46, 47, 50] {
        let mut report = hopper_report();
        report[at] ^= 4;
        assert_eq!(offence(&text(&[device(&report)])).0, CheckName::DeviceForm, "byte {at}");
    }
}

#[test]
fn limits_hold() {
    let many = vec![device(&hopper_report()); DEVICES_MAX + 1];
    assert!(offence(&text(&many)).1.contains("more than 32"));
    assert!(left_to_policy(&text(&many[..DEVICES_MAX])).is_ok());
    let padded = format!("{}{}", text(&many[..1]), " ".repeat(TEXT_MAX));
    assert!(offence(&padded).1.contains("more than"));
    let pem = STANDARD.decode(chain()).unwrap();
    let mut long_chain = many[0].clone();
    long_chain["certificate"] = json!(STANDARD.encode(pem.repeat(9)));
    assert!(offence(&text(&[long_chain])).1.contains("9 certificates"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}") {
        fuzz(&text);
    }

    #[test]
    fn no_report_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..400_usize) {
        fuzz(&text(&[device(&bytes)]));
        // Behind a genuine beginning.
        let whole = hopper_report();
        let start = &whole[..cut.min(whole.len())];
        fuzz(&text(&[device(&[start, &bytes].concat())]));
    }
}
