//! Several services on one database: any step on any of them, one log, exact seats, and pushes that cross.

use std::sync::Arc;
use std::time::Duration;

use release_protocol::{AttestAnswer, LeaseNews, LeaseState};
use reqwest::Method;
use tokio::task::JoinSet;

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{KEY_PATH, Rig};

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
