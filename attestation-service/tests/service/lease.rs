//! The life of a lease: renewed, refused, ended.

use attestation_service::api::LeaseStatus;
use release_protocol::AttestAnswer;
use reqwest::Method;

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{GRACE_SECONDS, KEY_PATH, LEASE_SECONDS, Rig, advance, now};

#[tokio::test]
async fn a_renewal_extends_the_lease() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    advance(LEASE_SECONDS / 3);
    let renewed: AttestAnswer = guest.renew(&rig).await.ok();
    let lease = renewed.lease.unwrap();
    assert_eq!(lease.id, guest.lease_id());
    assert_eq!(lease.expires_at.as_second(), now().as_second() + LEASE_SECONDS);
    assert_eq!(rig.audit_of("lease_renewed").await.len(), 1);
}

#[tokio::test]
async fn a_renewal_after_revocation_is_denied_and_so_is_the_key() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    guest.open(&rig, &token).await;
    rig.revoke(&license.id).await;
    assert!(guest.renew(&rig).await.denied()[0].contains("was revoked"));
    // The token is still good, the licence is not.
    assert!(rig.resource(Some(&token), KEY_PATH).await.denied()[0].contains("was revoked"));
}

#[tokio::test]
async fn an_older_attestation_does_not_renew() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let old = prove(&rig.guest, &guest.runtime_data(&challenge(&rig).await));
    attest(&rig, &old).await.ok::<AttestAnswer>();
    advance(200);
    let renewed: AttestAnswer = guest.renew(&rig).await.ok();
    advance(50);
    let replayed: AttestAnswer = attest(&rig, &old).await.ok();
    assert_eq!(renewed.lease, replayed.lease);
}

#[tokio::test]
async fn a_lease_that_never_was_is_not_renewed() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let reasons = Guest::new(&rig, &license.token).renew(&rig).await.denied();
    assert_eq!(reasons, ["there is no lease to renew"]);
}

#[tokio::test]
async fn the_lease_of_another_key_is_not_renewed() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 2).await;
    let (guest, other) = (Guest::new(&rig, &license.token), Guest::new(&rig, &license.token));
    guest.start(&rig).await;
    let mut runtime_data = other.runtime_data(&challenge(&rig).await);
    runtime_data.lease = Some(guest.lease_id());
    let reasons = attest(&rig, &prove(&rig.guest, &runtime_data)).await.denied();
    assert_eq!(reasons, ["the lease to renew belongs to another guest key"]);
}

#[tokio::test]
async fn a_lease_is_not_moved_to_another_licence() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let other = rig.issue(|_| {}).await;
    let mut guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    guest.license = Some(other.token);
    advance(1);
    let reasons = guest.renew(&rig).await.denied();
    assert_eq!(reasons, ["the lease was granted for another licence, image or chip"]);
}

#[tokio::test]
async fn an_ended_lease_gives_nothing_any_more() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    let end = rig.send(Method::POST, "/kbs/v0/lease/end", Some(&token), None, None).await;
    assert_eq!(end.status, 204);
    assert_eq!(rig.resource(Some(&token), KEY_PATH).await.denied(), ["the lease has ended"]);
    advance(1);
    assert_eq!(guest.renew(&rig).await.denied(), ["the lease has ended"]);
    assert_eq!(guest.attest(&rig).await.denied(), ["the lease has ended"], "a key has one lease in its life");
    let ended = rig.audit_of("lease_ended").await;
    assert_eq!(ended[0]["reason"], "the workload stopped");
}

#[tokio::test]
async fn a_lease_that_the_vendor_ends_is_not_renewed() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    let path = format!("/leases/{}/end", guest.lease_id());
    assert_eq!(rig.admin(Method::POST, &path, &()).await.status, 204);
    advance(1);
    assert_eq!(guest.renew(&rig).await.denied(), ["the lease has ended"]);
    rig.admin(Method::POST, "/leases/none/end", &()).await.problem(404, "unknown");
}

#[tokio::test]
async fn a_lapsed_lease_comes_back_while_a_seat_is_free() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    advance(LEASE_SECONDS + GRACE_SECONDS);
    let other = Guest::new(&rig, &license.token);
    other.start(&rig).await;
    guest.renew(&rig).await.problem(409, "seats-exhausted");
    advance(LEASE_SECONDS + GRACE_SECONDS);
    guest.renew(&rig).await.ok::<AttestAnswer>();
}

#[tokio::test]
async fn an_expired_lease_opens_nothing_although_the_token_lives() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.lease_seconds = 60).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    advance(59);
    guest.open(&rig, &token).await;
    advance(1);
    assert_eq!(rig.resource(Some(&token), KEY_PATH).await.denied(), ["the lease has expired"]);
}

#[tokio::test]
async fn leases_are_listed_page_by_page() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 7).await;
    for number in 0..7 {
        // Several of the same moment.
        advance(number % 2);
        Guest::new(&rig, &license.token).start(&rig).await;
    }
    let whole: Vec<LeaseStatus> = rig.admin_get("/leases").await;
    assert_eq!(whole.len(), 7);
    assert!(whole.windows(2).all(|pair| pair[0].started_at >= pair[1].started_at));
    let mut pages: Vec<LeaseStatus> = Vec::new();
    loop {
        let after = pages.last().map(|last| format!("&after={}", last.id)).unwrap_or_default();
        let page: Vec<LeaseStatus> = rig.admin_get(&format!("/leases?limit=3{after}")).await;
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    let ids = |leases: &[LeaseStatus]| leases.iter().map(|lease| lease.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&pages), ids(&whole));
    let token = Some(rig.admin_token.as_str());
    rig.send(Method::GET, "/api/v1/leases?after=none", token, None, None).await.problem(404, "unknown");
}
