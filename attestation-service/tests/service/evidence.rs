//! What must not count as evidence: stale, foreign, replayed, other keys, other measurements, other roots.

use jose::jwe::EphemeralKey;
use release_protocol::{AttestAnswer, Attestation, InitData, host_data};
use serde_json::json;

use crate::guest::{Guest, attest, challenge, prove, public};
use crate::rig::{KEY_PATH, Rig, advance, platform};

#[tokio::test]
async fn a_stale_nonce_is_refused() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let nonce = challenge(&rig).await;
    advance(301);
    let answer = attest(&rig, &prove(&rig.guest, &guest.runtime_data(&nonce))).await;
    let problem = answer.problem(401, "not-attested");
    assert_eq!(problem.detail, "the nonce is 301 s old, an answer is accepted within 300 s");
}

#[tokio::test]
async fn a_foreign_nonce_is_refused() {
    let (rig, other) = (Rig::start().await, Rig::start().await);
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    for nonce in [challenge(&other).await, "AAAA".to_owned(), "not base64".to_owned()] {
        let answer = attest(&rig, &prove(&rig.guest, &guest.runtime_data(&nonce))).await;
        let problem = answer.problem(401, "not-attested");
        assert_eq!(problem.detail, "the nonce is not one of this service's");
    }
}

#[tokio::test]
async fn a_replayed_attestation_changes_nothing() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let attestation = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
    let first: AttestAnswer = attest(&rig, &attestation).await.ok();
    advance(100);
    let again: AttestAnswer = attest(&rig, &attestation).await.ok();
    assert_eq!(first.lease, again.lease, "same lease, same end");
    let leases: Vec<serde_json::Value> = rig.admin_get("/leases").await;
    assert_eq!(leases.len(), 1);
    assert!(rig.audit_of("lease_renewed").await.is_empty());
}

#[tokio::test]
async fn a_report_that_was_made_for_another_key_is_refused() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let mut attestation = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
    let other = EphemeralKey::generate().unwrap();
    attestation.runtime_data.insert("tee-pubkey".to_owned(), serde_json::to_value(public(&other)).unwrap());
    let problem = attest(&rig, &attestation).await.problem(403, "evidence-rejected");
    assert!(problem.reasons[0].starts_with("report-data: "), "{:?}", problem.reasons);
}

#[tokio::test]
async fn the_report_binds_licence_and_workload() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let other = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let genuine = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
    for (member, value) in [
        ("license", json!(other.token)),
        ("workload", json!({"manifest_digest": format!("sha256:{}", "3".repeat(64))})),
        ("lease", json!(guest.lease_id())),
        ("unknown", json!(1)),
    ] {
        let mut changed = genuine.clone();
        changed.runtime_data.insert(member.to_owned(), value);
        attest(&rig, &changed).await.problem(403, "evidence-rejected");
    }
    let mut changed = genuine.clone();
    changed.tee_evidence.additional_evidence = "{}".to_owned();
    attest(&rig, &changed).await.problem(403, "evidence-rejected");
    attest(&rig, &genuine).await.ok::<AttestAnswer>();
}

#[tokio::test]
async fn an_unknown_measurement_is_denied_with_its_value() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let tampered = rig.launch(b"the shin");
    let answer = attest(&rig, &prove(&tampered, &guest.runtime_data(&challenge(&rig).await))).await;
    let reasons = answer.denied();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].contains(&tampered.measurement().to_string()), "{reasons:?}");
    assert_eq!(rig.audit_of("denied").await[0]["measurement"], tampered.measurement().to_string());
}

#[tokio::test]
async fn simulated_evidence_is_refused_by_a_service_for_hardware() {
    let rig = Rig::start_with(Vec::new()).await;
    assert!(!rig.service.allows_simulated());
    let license = rig.issue(|_| {}).await;
    let problem = Guest::new(&rig, &license.token).attest(&rig).await.problem(403, "evidence-rejected");
    assert!(problem.reasons[0].starts_with("trust-root: "), "{:?}", problem.reasons);
    assert_eq!(rig.audit_of("denied").await[0]["stage"], "evidence");
}

#[tokio::test]
async fn another_simulated_platform_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let other = launch_evidence::simulated::SimulatedPlatform::create(directory.path()).unwrap();
    assert_ne!(other.ark_der(), platform().ark_der());
    let rig = Rig::start_with(vec![other.ark_der().to_vec()]).await;
    let license = rig.issue(|_| {}).await;
    Guest::new(&rig, &license.token).attest(&rig).await.problem(403, "evidence-rejected");
}

#[tokio::test]
async fn other_protocols_and_tees_are_malformed_requests() {
    let rig = Rig::start().await;
    for request in [
        json!({"version": "0.1.0", "tee": "snp", "extra-params": ""}),
        json!({"version": "0.4.0", "tee": "cca", "extra-params": ""}),
        json!({"version": "0.4.0", "tee": "no such", "extra-params": ""}),
    ] {
        rig.post("/kbs/v0/auth", &request).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn evidence_is_judged_by_the_checks_of_its_tee() {
    let rig = Rig::start().await;
    for (primary, reason) in [
        (json!({"quote": "AAAA"}), "quote-form: "),
        (json!({"version": 1, "hcl_report": "AAAA"}), "evidence-form: "),
        (json!({"report": "AAAA"}), "length: "),
        (json!({}), "evidence-form: "),
    ] {
        let license = rig.issue(|_| {}).await;
        let guest = Guest::new(&rig, &license.token);
        let mut attestation = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
        attestation.tee_evidence.primary_evidence = primary.clone();
        let problem = attest(&rig, &attestation).await.problem(403, "evidence-rejected");
        assert!(problem.reasons[0].starts_with(reason), "{primary}: {:?}", problem.reasons);
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_encrypted_to_is_malformed() {
    let rig = Rig::start().await;
    let guest = Guest::new(&rig, "");
    let mut attestation = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
    let point = json!({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "AAAA", "y": "AAAA"});
    attestation.runtime_data.insert("tee-pubkey".to_owned(), point);
    attest(&rig, &attestation).await.problem(400, "malformed");
    rig.resource(None, KEY_PATH).await.problem(401, "not-attested");
}

#[tokio::test]
async fn init_data_must_be_what_the_host_passed_at_launch() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 9).await;
    let launched = rig.launch_with_host_data(host_data(b"version = 1"));
    let init_data = |body: &str| Some(InitData { format: "toml".to_owned(), body: body.to_owned() });
    for (guest, init_data, is_genuine) in [
        (&launched, init_data("version = 1"), true),
        (&launched, init_data("version = 2"), false),
        (&launched, None, false),
        (&rig.guest, init_data("version = 1"), false),
        (&rig.guest, None, true),
    ] {
        let runtime_data = Guest::new(&rig, &license.token).runtime_data(&challenge(&rig).await);
        let attestation = Attestation { init_data, ..prove(guest, &runtime_data) };
        let answer = attest(&rig, &attestation).await;
        if is_genuine {
            answer.ok::<AttestAnswer>();
        } else {
            let problem = answer.problem(403, "evidence-rejected");
            assert!(problem.reasons[0].starts_with("host-data: "), "{:?}", problem.reasons);
        }
    }
}
