//! Several services on one database: any step on any of them, one log, exact seats, and pushes that cross.

use std::sync::Arc;
use std::time::Duration;

use release_protocol::{AttestAnswer, LeaseNews, LeaseState};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{KEY_ID, KEY_PATH, MANIFEST, PRODUCT, Rig, advance};
use crate::service::custody::{all_done, make_file, rotate};

#[tokio::test]
async fn each_step_of_a_start_may_meet_another_replica() {
    let rig = Rig::start().await;
    let (second, third) = (rig.replica().await, rig.replica().await);
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let attestation = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
    let answer: AttestAnswer = attest(&second, &attestation).await.ok();
    assert_eq!(third.resource(Some(&answer.token), KEY_PATH).await.status, 200);
    // The same answer to the same challenge, elsewhere: the same lease, no second seat.
    let again: AttestAnswer = attest(&third, &attestation).await.ok();
    assert_eq!(again.lease, answer.lease);
    rig.send(Method::POST, "/kbs/v0/lease/end", Some(&answer.token), None, None).await;
    third.resource(Some(&answer.token), KEY_PATH).await.problem(403, "denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_guests_at_three_replicas_get_exactly_the_fifty_seats_and_one_log() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 50).await;
    let replicas = [Arc::new(rig.replica().await), Arc::new(rig.replica().await), Arc::new(rig)];
    let mut tasks = JoinSet::new();
    for number in 0..500 {
        let replica = Arc::clone(&replicas[number % replicas.len()]);
        let guest = Guest::new(&replica, &license.token);
        tasks.spawn(async move {
            let attestation = prove(&replica.guest, &guest.runtime_data(&challenge(&replica).await));
            attest(&replica, &attestation).await.status
        });
    }
    let statuses = tasks.join_all().await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(409)), (50, 450), "{statuses:?}");

    let entries = replicas[0].audit().await;
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(numbers, (numbers[0]..numbers[0] + 1000).take(numbers.len()).collect::<Vec<_>>(), "no gap");
    assert_eq!(entries.iter().filter(|entry| entry.kind == "lease_granted").count(), 50);
    let heads: Vec<_> = {
        let mut heads = Vec::new();
        for replica in &replicas {
            heads.push(replica.service.log_checkpoint().await.unwrap().unverified().clone());
        }
        heads
    };
    assert!(heads.windows(2).all(|pair| (pair[0].size, pair[0].root) == (pair[1].size, pair[1].root)));
}

#[tokio::test]
async fn a_revocation_at_one_replica_reaches_a_guest_that_waits_at_another() {
    let rig = Rig::start().await;
    let other = rig.replica().await;
    let license = rig.issue(|_| {}).await;
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    let waiting = other.send(Method::GET, "/kbs/v0/lease/watch", Some(&token), None, None);
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        rig.revoke(&license.id).await;
    };
    let (heard, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), waiting), revoking);
    assert!(matches!(heard.unwrap().ok::<LeaseNews>().state, LeaseState::Ended { .. }));
}

#[tokio::test]
async fn what_one_replica_has_told_does_not_make_a_guest_renew_at_another() {
    let rig = Rig::start().await;
    let other = rig.replica().await;
    let license = rig.issue(|_| {}).await;
    // Makes every lease be judged again, right before it is granted.
    rig.add_reference(crate::rig::PRODUCT, &rig.launch(b"another shim")).await;
    let answer = Guest::new(&rig, &license.token).start(&rig).await;
    let path = format!("/kbs/v0/lease/watch?since={}", answer.news_since.unwrap());
    let asked = other.send(Method::GET, &path, Some(&answer.token), None, None);
    assert!(tokio::time::timeout(Duration::from_millis(600), asked).await.is_err(), "there is no news");
}

/// Every replica keeps in mind what decisions rest on; each kind of change has to be seen there at once.
#[tokio::test]
async fn what_one_replica_changes_decides_at_another_at_once() {
    let rig = Rig::start().await;
    let other = rig.replica().await;
    let license = rig.issue(|license| license.seats = 100).await;
    let start = || async {
        advance(1);
        Guest::new(&other, &license.token).attest(&other).await
    };
    let denied = async |why: &str| {
        let reasons = start().await.denied();
        assert!(reasons.iter().any(|reason| reason.contains(why)), "{reasons:?} for {why}");
    };
    let allowed = async || drop(start().await.ok::<AttestAnswer>());
    let post = async |path: &str, body: Value| {
        let answer = rig.admin(Method::POST, path, &body).await;
        assert!(answer.status < 300, "{path}: {}", String::from_utf8_lossy(&answer.body));
    };
    allowed().await;

    assert_eq!(rig.set_policy("package sealift.release\nallow := false\ndeny contains \"shut\"").await.status, 204);
    denied("shut").await;
    assert_eq!(rig.set_policy("").await.status, 204);
    allowed().await;

    let references: Vec<Value> = rig.admin_get(&format!("/products/{PRODUCT}/references")).await;
    let reference = format!("/products/{PRODUCT}/references/{}", references[0]["id"].as_str().unwrap());
    rig.admin(Method::DELETE, &reference, &json!({})).await;
    denied("measurement").await;
    rig.add_reference(PRODUCT, &rig.guest).await;
    allowed().await;

    post("/platforms/deny", json!({"rule": "Genoa", "reason": "recalled"})).await;
    denied("recalled").await;
    post("/platforms/allow", json!({"rule": "Genoa", "reason": "mended"})).await;
    allowed().await;

    post(&format!("/licenses/{}/suspend", license.id), json!({"reason": "unpaid"})).await;
    denied("is suspended").await;
    post(&format!("/licenses/{}/resume", license.id), json!({"reason": "paid"})).await;
    allowed().await;
    rig.revoke(&license.id).await;
    denied("was revoked").await;
}

#[tokio::test]
async fn what_one_replica_adds_is_known_at_another_at_once() {
    const LATER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";
    let rig = Rig::start().await;
    let other = rig.replica().await;
    let license = rig.issue(|license| license.seats = 100).await;
    let start = async |token: String| {
        let mut guest = Guest::new(&other, &token);
        guest.workload.as_mut().unwrap().manifest_digest = LATER.to_owned();
        guest.attest(&other).await
    };
    let reasons = start(license.token.clone()).await.denied();
    assert_eq!(reasons, [format!("manifest {LATER} is registered for no product")]);
    // The other replica has the key in mind as it was when it released it.
    let token = Guest::new(&other, &license.token).start(&other).await.token;
    assert_eq!(other.resource(Some(&token), KEY_PATH).await.status, 200);
    rig.register_key(PRODUCT, KEY_ID, &[MANIFEST, LATER]).await;
    let answer: AttestAnswer = start(license.token).await.ok();
    assert_eq!(other.resource(Some(&answer.token), KEY_PATH).await.status, 200);
    let issued_later = rig.issue(|_| {}).await;
    start(issued_later.token).await.ok::<AttestAnswer>();
}

#[tokio::test]
async fn a_key_is_not_released_after_what_another_replica_changed() {
    let rig = Rig::start().await;
    let other = rig.replica().await;
    let token = |license: String| {
        let other = &other;
        async move {
            let token = Guest::new(other, &license).start(other).await.token;
            assert_eq!(other.resource(Some(&token), KEY_PATH).await.status, 200);
            token
        }
    };
    let license = rig.issue(|_| {}).await;
    let first = token(license.token).await;
    rig.revoke(&license.id).await;
    let reasons = other.resource(Some(&first), KEY_PATH).await.denied();
    assert!(reasons[0].contains("was revoked"), "{reasons:?}");

    let second = token(rig.issue(|_| {}).await.token).await;
    let deny = json!({"rule": "Genoa", "reason": "recalled"});
    rig.admin(Method::POST, "/platforms/deny", &deny).await.ok::<Value>();
    let reasons = other.resource(Some(&second), KEY_PATH).await.denied();
    assert!(reasons[0].contains("recalled"), "{reasons:?}");
}

#[tokio::test]
async fn a_master_key_that_one_replica_changes_is_every_replicas_at_once() {
    let rig = Rig::start().await;
    let (second, third) = (rig.replica().await, rig.replica().await);
    make_file(&rig, "next.key", 9);
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&second, &license.token);
    let token = guest.start(&second).await.token;
    // What each has in mind is under the former one.
    for replica in [&rig, &second, &third] {
        guest.open(replica, &token).await;
    }
    assert_eq!(rotate(&rig, "file:next.key").await.status, 200);
    // None of the others has been told of it yet.
    second.register_key(PRODUCT, "by-second", &[MANIFEST]).await;
    for replica in [&rig, &second, &third] {
        guest.open(replica, &token).await;
    }
    let status = all_done(&third).await;
    assert_eq!((status.master_keys[0].name.as_str(), status.master_keys[1].sealed), ("file:next.key", 0));
    third.register_key(PRODUCT, "by-third", &[MANIFEST]).await;
    for replica in [&rig, &second, &third] {
        guest.open(replica, &token).await;
        // A challenge of one is answered at another, whichever working key they go by.
        let attestation = prove(&rig.guest, &guest.runtime_data(&challenge(replica).await));
        attest(&second, &attestation).await.ok::<AttestAnswer>();
    }
    assert_eq!(rig.audit_of("master_key_retired").await.len(), 1);
    // Without a name there is none: a file that is made here would be nowhere else.
    let problem = rig.admin(Method::POST, "/custody/rotate", &json!({})).await.problem(400, "malformed");
    assert!(problem.detail.contains("name the new master key"), "{}", problem.detail);
}
