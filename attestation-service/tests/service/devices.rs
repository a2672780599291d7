//! Guests that show devices beside the CPU: refused by default, or the policy's to judge, never believed for another challenge.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use launch_evidence::UnverifiedDevices;
use release_protocol::{AttestAnswer, Attestation, Evidence, RuntimeData, device_nonce, report_data};
use serde_json::{Value, json};

use crate::guest::{Guest, attest, challenge};
use crate::rig::{Answer, Rig, offline, platform};

/// A Hopper GPU's report over this challenge, as an attester would send it; nobody signed it.
fn gpu(nonce: &[u8; 32]) -> Value {
    let driver: &[u8] = b"\x03\x00\x09\x00535.86.09";
    let report = [
        &[0x11, 0xE0, 1, 0xFF],
        &nonce[..],
        &[0, 0x11, 0x60, 0, 0, 1, 8, 0, 0],
        // One measurement of one byte.
        &[1, 1, 4, 0, 0, 1, 0, 0xAB],
        &[0; 32],
        &[13, 0],
        driver,
        &[0; 96],
    ]
    .concat();
    let certificate = rcgen::generate_simple_self_signed(["GH100".to_owned()]).unwrap().cert.pem();
    json!({"arch": "HOPPER", "evidence": STANDARD.encode(report), "certificate": STANDARD.encode(certificate)})
}

/// Evidence of a guest with a GPU whose report answers what `nonce` makes of the runtime data.
fn prove(rig: &Rig, runtime_data: &RuntimeData, nonce: impl FnOnce([u8; 32]) -> [u8; 32]) -> Attestation {
    let runtime_data = runtime_data.to_members().unwrap();
    let gpu = gpu(&nonce(device_nonce(&runtime_data).unwrap()));
    let additional_evidence = json!({"nvidia": {"device_evidence_list": [gpu]}}).to_string();
    let bound = report_data(&runtime_data, &additional_evidence).unwrap();
    let tee_evidence = Evidence { primary_evidence: rig.guest.evidence(&bound).unwrap(), additional_evidence };
    Attestation { init_data: None, runtime_data, tee_evidence }
}

async fn leaving_devices_to_policy() -> Rig {
    let mut settings = offline();
    settings.requirements.unverified_devices = UnverifiedDevices::LeaveToPolicy;
    Rig::start_judging(vec![platform().ark_der().to_vec()], settings).await
}

async fn attest_with_gpu(rig: &Rig) -> Answer {
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(rig, &license.token);
    attest(rig, &prove(rig, &guest.runtime_data(&challenge(rig).await), |nonce| nonce)).await
}

#[tokio::test]
async fn a_guest_with_a_gpu_is_refused_by_default_with_the_reason() {
    let rig = Rig::start().await;
    let problem = attest_with_gpu(&rig).await.problem(403, "evidence-rejected");
    assert_eq!(problem.reasons.len(), 1);
    let reason = &problem.reasons[0];
    assert!(reason.starts_with("device-endorsement: expected verified devices or none"), "{reason}");
    assert_eq!(rig.audit_of("denied").await[0]["reasons"][0], reason.as_str());
}

#[tokio::test]
async fn the_default_policy_refuses_a_gpu_that_is_left_to_it() {
    let rig = leaving_devices_to_policy().await;
    let reasons = attest_with_gpu(&rig).await.denied();
    assert_eq!(reasons, ["the guest shows 1 devices whose reports nobody has verified (hopper): they may be made up"]);
}

#[tokio::test]
async fn a_policy_of_ones_own_can_take_a_gpu_by_what_it_says() {
    let rig = leaving_devices_to_policy().await;
    let policy = |driver: &str| {
        format!(
            "package sealift.release\nimport rego.v1\ndefault allow := false\n\
             allow if {{\n\tcount(input.devices) == 1\n\tsome device in input.devices\n\tdevice.class == \"gpu\"\n\
             \tdevice.driver_version == \"{driver}\"\n\tdevice.measurements[\"1\"] == \"ab\"\n\tnot device.verified\n}}\n"
        )
    };
    assert_eq!(rig.set_policy(&policy("535.86.10")).await.status, 204);
    attest_with_gpu(&rig).await.denied();
    assert_eq!(rig.set_policy(&policy("535.86.09")).await.status, 204);
    attest_with_gpu(&rig).await.ok::<AttestAnswer>();
}

#[tokio::test]
async fn devices_for_another_challenge_are_refused() {
    let rig = leaving_devices_to_policy().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let runtime_data = guest.runtime_data(&challenge(&rig).await);
    let problem = attest(&rig, &prove(&rig, &runtime_data, |_| [1; 32])).await.problem(403, "evidence-rejected");
    assert!(problem.reasons[0].starts_with("device-nonce: "), "{:?}", problem.reasons);
    // Taken away or put in by the host, the CPU's report does not cover them.
    let mut without = prove(&rig, &runtime_data, |nonce| nonce);
    without.tee_evidence.additional_evidence = String::new();
    let problem = attest(&rig, &without).await.problem(403, "evidence-rejected");
    assert!(problem.reasons[0].starts_with("report-data: "), "{:?}", problem.reasons);
}

#[tokio::test]
async fn what_is_no_evidence_of_devices_is_refused_by_name() {
    let rig = leaving_devices_to_policy().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let runtime_data = guest.runtime_data(&challenge(&rig).await).to_members().unwrap();
    let additional_evidence = r#"{"tpu": {}}"#.to_owned();
    let bound = report_data(&runtime_data, &additional_evidence).unwrap();
    let tee_evidence = Evidence { primary_evidence: rig.guest.evidence(&bound).unwrap(), additional_evidence };
    let attestation = Attestation { init_data: None, runtime_data, tee_evidence };
    let problem = attest(&rig, &attestation).await.problem(403, "evidence-rejected");
    assert!(problem.reasons[0].contains("devices of another kind"), "{:?}", problem.reasons);
}
