//! Witnesses of the audit log: asked only where the settings name them, shown that the log has only grown, and believed by
//! their keys alone.

#[path = "../../../crates/transparency-log/tests/support/witness.rs"]
#[expect(clippy::expect_used, reason = "a failed expectation is a failed test")]
mod support;

use attestation_service::{LogSettings, Service, ServiceError, ServiceOptions, ServiceSettings, WitnessSettings};
use release_protocol::{AttestAnswer, LogPlace};
use reqwest::Method;
use support::{TestWitness, WITNESSED_AT};
use transparency_log::{CheckpointError, KeyKind, Receipt, ReceiptError, SignedCheckpoint, VerifierKey, Witnesses};

use crate::guest::Guest;
use crate::rig::{Answer, Rig, now};

fn witness(rig: &Rig, name: &str) -> TestWitness {
    TestWitness::start(name, rig.home.log_verifier_key().unwrap())
}

/// Nobody is asked but when the service starts and when the test says so.
fn settings(witnesses: &[&TestWitness], quorum: Option<usize>) -> LogSettings {
    let witnesses = witnesses
        .iter()
        .map(|witness| WitnessSettings { key: witness.key().clone(), url: witness.url().parse().unwrap() })
        .collect();
    LogSettings { quorum, interval_seconds: 86_400, witnesses }
}

fn all_of(witnesses: &[&TestWitness]) -> Witnesses {
    let keys: Vec<_> = witnesses.iter().map(|witness| witness.key().clone()).collect();
    Witnesses::new(keys, witnesses.len()).unwrap()
}

async fn get(rig: &Rig, path: &str) -> Answer {
    rig.send(Method::GET, &format!("/api/v1/log{path}"), Some(&rig.admin_token), None, None).await
}

async fn cosigned(rig: &Rig) -> SignedCheckpoint {
    let answer = get(rig, "/checkpoint/cosigned").await;
    assert_eq!(answer.status, 200);
    SignedCheckpoint::from_bytes(&answer.body).unwrap()
}

/// Has the log shown to its witnesses until they have seen it as it is.
async fn show(rig: &Rig) {
    let size = rig.service.log_checkpoint().await.unwrap().unverified().size;
    while rig.service.cosigned_checkpoint().ok().is_none_or(|cosigned| cosigned.unverified().size != size) {
        rig.service.clone().ask_witnesses().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_asked_where_the_settings_name_nobody() {
    let rig = Rig::start().await;
    assert_eq!(rig.service.clone().ask_witnesses().await.unwrap(), 0);
    get(&rig, "/checkpoint/cosigned").await.problem(404, "unknown");
    rig.send(Method::GET, "/kbs/v0/log/witnessed?index=0", None, None, None).await.problem(404, "unknown");
    assert!(!rig.home.directory().join("service/log.cosigned").exists());
}

#[tokio::test]
async fn checkpoints_are_cosigned_as_the_log_grows_and_receipts_carry_them() {
    let mut rig = Rig::start().await;
    let key = rig.home.log_verifier_key().unwrap();
    let (one, two) = (witness(&rig, "one.example/w"), witness(&rig, "two.example/w"));
    let both = all_of(&[&one, &two]);
    rig.restart_witnessed(settings(&[&one, &two], None)).await;
    show(&rig).await;
    let first = cosigned(&rig).await.verify_witnessed(&key, &both).unwrap();
    assert!(first.cosignatures.iter().all(|cosignature| cosignature.at_seconds == WITNESSED_AT));

    // What comes with a lease is too new to be cosigned.
    let license = rig.issue(|_| {}).await.token;
    let granted = Guest::new(&rig, &license).attest(&rig).await.ok::<AttestAnswer>().receipt.unwrap();
    assert!(granted.index.get() >= first.checkpoint.size.get());
    granted.verify(&key).unwrap();
    let refused = granted.verify_witnessed(&key, &both).unwrap_err();
    assert!(matches!(refused, ReceiptError::Checkpoint(CheckpointError::Quorum { quorum: 2, found: 0 })));

    show(&rig).await;
    let second = cosigned(&rig).await.verify_witnessed(&key, &both).unwrap();
    assert_eq!((one.size(), two.size()), (second.checkpoint.size.get(), second.checkpoint.size.get()));
    let receipt = get(&rig, &format!("/receipts/{}", granted.index.get() + 1)).await;
    let receipt = Receipt::from_json(&receipt.body).unwrap();
    assert_eq!(receipt.verify_witnessed(&key, &both).unwrap().cosignatures.len(), 2);
    assert_eq!(receipt.entry, granted.entry);
    // The guest gets the same without a token: it has the entry already.
    let path = format!("/kbs/v0/log/witnessed?index={}", granted.index);
    let place: LogPlace = rig.send(Method::GET, &path, None, None, None).await.ok();
    let fresh = Receipt { proof: place.inclusion_proof, checkpoint: place.checkpoint, ..granted };
    fresh.verify_witnessed(&key, &both).unwrap();
    for beyond in [second.checkpoint.size.get(), u64::MAX] {
        let path = format!("/kbs/v0/log/witnessed?index={beyond}");
        rig.send(Method::GET, &path, None, None, None).await.problem(404, "unknown");
    }
}

#[tokio::test]
async fn a_witness_that_knows_more_than_the_service_remembers_is_shown_the_proof_from_there() {
    let mut rig = Rig::start().await;
    let witness = witness(&rig, "w.example");
    rig.restart_witnessed(settings(&[&witness], None)).await;
    show(&rig).await;
    rig.issue(|_| {}).await;
    std::fs::remove_file(rig.home.directory().join("service/log.cosigned")).unwrap();
    let before = witness.answers().len();
    rig.restart_witnessed(settings(&[&witness], None)).await;
    show(&rig).await;
    let answers = witness.answers();
    let round: Vec<_> = answers[before..].iter().filter(|status| [200, 409].contains(status)).collect();
    assert_eq!(round[0], &409, "it says what it has seen: {answers:?}");
    assert!(round.contains(&&200), "{answers:?}");
    let key = rig.home.log_verifier_key().unwrap();
    cosigned(&rig).await.verify_witnessed(&key, &all_of(&[&witness])).unwrap();
}

#[tokio::test]
async fn a_checkpoint_with_fewer_cosignatures_than_the_quorum_is_not_shown() {
    let mut rig = Rig::start().await;
    let (one, two) = (witness(&rig, "one.example/w"), witness(&rig, "two.example/w"));
    rig.restart_witnessed(settings(&[&one, &two], None)).await;
    show(&rig).await;
    let before = cosigned(&rig).await;
    two.set_away(true);
    rig.issue(|_| {}).await;
    assert_eq!(rig.service.clone().ask_witnesses().await.unwrap(), 1);
    assert_eq!(cosigned(&rig).await, before);

    rig.restart_witnessed(settings(&[&one, &two], Some(1))).await;
    assert!(cosigned(&rig).await.unverified().size >= before.unverified().size, "what was kept is recalled");
    show(&rig).await;
    let key = rig.home.log_verifier_key().unwrap();
    let newest = cosigned(&rig).await.verify_witnessed(&key, &all_of(&[&one])).unwrap();
    assert!(newest.checkpoint.size > before.unverified().size);
    two.set_away(false);
    rig.issue(|_| {}).await;
    show(&rig).await;
    cosigned(&rig).await.verify_witnessed(&key, &all_of(&[&one, &two])).unwrap();
}

#[tokio::test]
async fn what_other_witnesses_cosigned_counts_no_more_when_the_settings_have_changed() {
    let mut rig = Rig::start().await;
    let (old, new) = (witness(&rig, "old.example/w"), witness(&rig, "new.example/w"));
    rig.restart_witnessed(settings(&[&old], None)).await;
    show(&rig).await;
    rig.restart().await;
    get(&rig, "/checkpoint/cosigned").await.problem(404, "unknown");
    new.set_away(true);
    rig.restart_witnessed(settings(&[&new], None)).await;
    get(&rig, "/checkpoint/cosigned").await.problem(404, "unknown");
}

#[tokio::test]
async fn a_witness_cosigns_neither_a_log_that_has_shrunk_nor_one_that_was_rewritten() {
    let mut rig = Rig::start().await;
    let witness = witness(&rig, "w.example");
    for _ in 0..3 {
        rig.issue(|_| {}).await;
    }
    rig.restart_witnessed(settings(&[&witness], None)).await;
    show(&rig).await;
    let seen = witness.size();

    // The same keys with another history.
    let mut other = Rig::start().await;
    for file in ["log.key", "log.pub"] {
        let file = format!("service/{file}");
        std::fs::copy(rig.home.directory().join(&file), other.home.directory().join(&file)).unwrap();
    }
    other.restart_witnessed(settings(&[&witness], None)).await;
    assert!(other.service.log_checkpoint().await.unwrap().unverified().size.get() < seen);
    assert_eq!(other.service.clone().ask_witnesses().await.unwrap(), 0);
    while other.service.log_checkpoint().await.unwrap().unverified().size.get() <= seen {
        other.issue(|_| {}).await;
    }
    assert_eq!(other.service.clone().ask_witnesses().await.unwrap(), 0);
    assert_eq!((witness.answers().last(), witness.size()), (Some(&422), seen));
    get(&other, "/checkpoint/cosigned").await.problem(404, "unknown");
}

#[tokio::test]
async fn settings_that_no_checkpoint_could_meet_are_refused_at_start() {
    let rig = Rig::start().await;
    // Its database is to be opened by others.
    rig.service.store().close().await;
    let good = witness(&rig, "w.example");
    let log_key = rig.home.log_verifier_key().unwrap();
    assert_eq!(log_key.kind(), KeyKind::Ed25519);
    let one = |key: VerifierKey, url: &str| WitnessSettings { key, url: url.parse().unwrap() };
    let own = one(good.key().clone(), &good.url());
    for (witnesses, quorum, said) in [
        (vec![own.clone()], Some(2), "no such set of witnesses"),
        (vec![own.clone()], Some(0), "a quorum of 0"),
        (vec![own.clone(), own.clone()], None, "no such set of witnesses"),
        (vec![one(log_key, "https://w.example/")], None, "of the wrong kind"),
        (vec![one(good.key().clone(), "ftp://w.example/")], None, "is not https"),
    ] {
        let log = LogSettings { quorum, witnesses, ..LogSettings::default() };
        let url = "https://127.0.0.1:8443".parse().unwrap();
        let settings = ServiceSettings { log, ..ServiceSettings::new("127.0.0.1:0".parse().unwrap(), url) };
        let options = ServiceOptions { settings, simulated_roots: Vec::new(), clock: now };
        let refused = Service::open(&rig.home, options).await.unwrap_err();
        assert!(matches!(refused, ServiceError::Home(_)) && refused.to_string().contains(said), "{refused}");
    }
}
