//! Seats are counted exactly: one by one, and all at once.

use std::sync::Arc;

use release_protocol::AttestAnswer;
use reqwest::Method;
use tokio::task::JoinSet;

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{GRACE_SECONDS, KEY_PATH, LEASE_SECONDS, Rig, advance};

#[tokio::test]
async fn a_seat_is_free_again_after_lease_and_grace() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    Guest::new(&rig, &license.token).start(&rig).await;
    let problem = Guest::new(&rig, &license.token).attest(&rig).await.problem(409, "seats-exhausted");
    assert_eq!(problem.detail, "all 1 seats of the licence are taken");
    let entry = rig.audit().await.into_iter().find(|entry| Some(entry.sequence) == problem.entry).unwrap();
    assert_eq!(entry.kind, "denied");

    advance(LEASE_SECONDS + GRACE_SECONDS - 1);
    Guest::new(&rig, &license.token).attest(&rig).await.problem(409, "seats-exhausted");
    advance(1);
    Guest::new(&rig, &license.token).start(&rig).await;
}

#[tokio::test]
async fn a_seat_that_lapsed_is_not_taken_back_when_the_clock_is_set_back() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let first = Guest::new(&rig, &license.token);
    let token = first.start(&rig).await.token;
    advance(LEASE_SECONDS + GRACE_SECONDS);
    let second = Guest::new(&rig, &license.token);
    let its_token = second.start(&rig).await.token;
    advance(1 - LEASE_SECONDS - GRACE_SECONDS);
    first.renew(&rig).await.problem(409, "seats-exhausted");
    let denied = rig.resource(Some(&token), KEY_PATH).await.denied();
    assert_eq!(denied, ["the lease has expired"]);

    rig.send(Method::POST, "/kbs/v0/lease/end", Some(&its_token), None, None).await;
    advance(1);
    first.renew(&rig).await.ok::<AttestAnswer>();
}

#[tokio::test]
async fn a_seat_is_free_again_when_its_workload_stops() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    rig.send(Method::POST, "/kbs/v0/lease/end", Some(&token), None, None).await;
    Guest::new(&rig, &license.token).start(&rig).await;
}

#[tokio::test]
async fn a_seat_is_given_back_with_a_token_that_has_died() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.lease_seconds = 24 * 3600).await;
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    advance(3600);
    rig.resource(Some(&token), KEY_PATH).await.problem(401, "not-attested");
    let end = rig.send(Method::POST, "/kbs/v0/lease/end", Some(&token), None, None).await;
    assert_eq!(end.status, 204);
    Guest::new(&rig, &license.token).start(&rig).await;
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    for token in [None, Some("nonsense"), Some(&*forged)] {
        rig.send(Method::POST, "/kbs/v0/lease/end", token, None, None).await.problem(401, "not-attested");
    }
}

#[tokio::test]
async fn a_copy_of_a_guest_takes_a_seat_of_its_own_or_is_denied_as_the_policy_says() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 3).await;
    let first = Guest::new(&rig, &license.token);
    first.start(&rig).await;
    // The same launch on the same processor, with another ephemeral key.
    Guest::new(&rig, &license.token).start(&rig).await;
    let licenses: Vec<serde_json::Value> = rig.admin_get("/licenses").await;
    assert_eq!(licenses[0]["seats_in_use"], 2);

    let one_a_machine = "package sealift.release\nallow if input.others_on_chip == 0\n\
                         deny contains \"another instance runs on this machine\" if input.others_on_chip > 0\n";
    assert_eq!(rig.set_policy(one_a_machine).await.status, 204);
    advance(1);
    let reasons = Guest::new(&rig, &license.token).attest(&rig).await.denied();
    assert_eq!(reasons, ["another instance runs on this machine"]);
    let other = rig.issue(|_| {}).await;
    Guest::new(&rig, &other.token).start(&rig).await;
}

#[tokio::test]
async fn a_renewal_takes_no_second_seat() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    advance(1);
    guest.renew(&rig).await.ok::<AttestAnswer>();
    // A fresh attestation of the same key is a renewal, too, whatever it calls itself.
    advance(1);
    guest.start(&rig).await;
    let licenses: Vec<serde_json::Value> = rig.admin_get("/licenses").await;
    assert_eq!(licenses[0]["seats_in_use"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_guests_at_once_get_exactly_the_fifty_seats() {
    let rig = Arc::new(Rig::start().await);
    let license = rig.issue(|license| license.seats = 50).await;
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let (rig, guest) = (rig.clone(), Guest::new(&rig, &license.token));
        tasks.spawn(async move {
            let attestation = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
            attest(&rig, &attestation).await.status
        });
    }
    let statuses = tasks.join_all().await;
    let with = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((with(200), with(409)), (50, 450), "{statuses:?}");
    assert_eq!(rig.audit_of("lease_granted").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_attestation_sent_twenty_times_at_once_is_one_lease() {
    let rig = Arc::new(Rig::start().await);
    let license = rig.issue(|license| license.seats = 5).await;
    let guest = Guest::new(&rig, &license.token);
    let attestation = Arc::new(prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await)));
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (rig, attestation) = (rig.clone(), attestation.clone());
        tasks.spawn(async move { attest(&rig, &attestation).await.ok::<AttestAnswer>().lease.unwrap() });
    }
    let leases = tasks.join_all().await;
    assert!(leases.iter().all(|lease| lease == &leases[0]));
    assert_eq!(rig.audit_of("lease_granted").await.len(), 1);
}

#[tokio::test]
async fn leases_challenges_and_tokens_survive_a_restart() {
    let mut rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 2).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    let late = Guest::new(&rig, &license.token);
    let attestation = prove(&rig.guest, &late.runtime_data(&challenge(&rig).await));
    rig.restart().await;
    guest.open(&rig, &token).await;
    attest(&rig, &attestation).await.ok::<AttestAnswer>();
    Guest::new(&rig, &license.token).attest(&rig).await.problem(409, "seats-exhausted");
    advance(1);
    guest.renew(&rig).await.ok::<AttestAnswer>();
}
