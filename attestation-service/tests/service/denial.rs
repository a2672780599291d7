//! Who denied: each kind of denial leaves an audit entry that says so, from which `policy explain` takes its advice.

use attestation_service::Stage;

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{KEY_PATH, Rig};

/// The judgement that the newest entry names.
async fn newest(rig: &Rig) -> Option<Stage> {
    let entry = rig.audit().await.pop().unwrap();
    assert_eq!(entry.kind, "denied");
    Stage::of_entry(&entry.body)
}

#[tokio::test]
async fn every_kind_of_denial_names_the_judgement() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);

    let other = guest.runtime_data(&challenge(&rig).await);
    let mut attestation = prove(&rig.guest, &other);
    attestation.runtime_data.remove("license");
    attest(&rig, &attestation).await.problem(403, "evidence-rejected");
    assert_eq!(newest(&rig).await, Some(Stage::Evidence));

    guest.renew(&rig).await.denied();
    assert_eq!(newest(&rig).await, Some(Stage::Lease));

    let token = guest.start(&rig).await.token;
    Guest::new(&rig, &license.token).attest(&rig).await.problem(409, "seats-exhausted");
    assert_eq!(newest(&rig).await, Some(Stage::Seats));

    let mut stray = Guest::new(&rig, &license.token);
    stray.workload.as_mut().unwrap().manifest_digest = format!("sha256:{}", "2".repeat(64));
    stray.attest(&rig).await.denied();
    assert_eq!(newest(&rig).await, Some(Stage::Manifest));

    assert_eq!(rig.set_policy("package sealift.release\nallow := false").await.status, 204);
    guest.renew(&rig).await.denied();
    assert_eq!(newest(&rig).await, Some(Stage::Policy));

    rig.revoke(&license.id).await;
    guest.renew(&rig).await.denied();
    assert_eq!(newest(&rig).await, Some(Stage::License));

    rig.resource(Some(&token), KEY_PATH).await.denied();
    assert_eq!(newest(&rig).await, Some(Stage::Key));
}
