//! What becomes of a licence between its issue and its end, and what that means for those who run under it.

use attestation_service::api::{IssuedLicense, LicenseStatus, Revoked};
use jiff::SignedDuration;
use release_protocol::AttestAnswer;
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::rig::{Answer, LEASE_SECONDS, Rig, advance, new_license, now};

async fn change(rig: &Rig, id: &str, verb: &str, body: &Value) -> Answer {
    rig.admin(Method::POST, &format!("/licenses/{id}/{verb}"), body).await
}

async fn state(rig: &Rig, id: &str) -> String {
    let license: LicenseStatus = rig.admin_get(&format!("/licenses/{id}")).await;
    license.state
}

fn because(reason: &str) -> Value {
    json!({"reason": reason})
}

#[tokio::test]
async fn the_states_follow_each_other_as_documented() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    assert_eq!(state(&rig, &license.id).await, "issued");
    Guest::new(&rig, &license.token).start(&rig).await;
    assert_eq!(state(&rig, &license.id).await, "active");
    change(&rig, &license.id, "suspend", &because("unpaid")).await.ok::<Value>();
    assert_eq!(state(&rig, &license.id).await, "suspended");
    change(&rig, &license.id, "suspend", &because("again")).await.problem(409, "conflict");
    change(&rig, &license.id, "resume", &because("paid")).await.ok::<Value>();
    assert_eq!(state(&rig, &license.id).await, "active");
    change(&rig, &license.id, "resume", &because("again")).await.problem(409, "conflict");
    advance(24 * 3600);
    assert_eq!(state(&rig, &license.id).await, "expired");
    let until = now().checked_add(SignedDuration::from_hours(1)).unwrap();
    change(&rig, &license.id, "renew", &json!({"valid_until": until, "reason": "next year"})).await.ok::<Value>();
    assert_eq!(state(&rig, &license.id).await, "active");
    rig.revoke(&license.id).await;
    assert_eq!(state(&rig, &license.id).await, "revoked");
    for verb in ["suspend", "resume", "renew", "transfer", "revoke"] {
        let body = json!({"reason": "too late", "customer": "partner-a", "seats": 2});
        change(&rig, &license.id, verb, &body).await.problem(409, "conflict");
    }
}

#[tokio::test]
async fn nothing_is_changed_without_a_reason_and_every_change_is_recorded_with_it() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    for verb in ["suspend", "resume", "renew", "transfer", "revoke"] {
        change(&rig, &license.id, verb, &json!({"reason": " ", "customer": "x"})).await.problem(400, "malformed");
        change(&rig, &license.id, verb, &json!({})).await.problem(400, "malformed");
        change(&rig, "lic-0", verb, &json!({"reason": "r", "customer": "x"})).await.problem(404, "unknown");
    }
    let changes = [
        ("suspend", "license_suspended", because("one")),
        ("resume", "license_resumed", because("two")),
        ("renew", "license_renewed", json!({"reason": "three", "seats": 2})),
        ("transfer", "license_transferred", json!({"reason": "four", "customer": "partner-a"})),
    ];
    for (verb, kind, body) in changes {
        change(&rig, &license.id, verb, &body).await.ok::<Value>();
        let recorded = rig.audit_of(kind).await;
        assert_eq!((recorded.len(), &recorded[0]["reason"]), (1, &body["reason"]), "{kind}");
    }
}

#[tokio::test]
async fn a_suspended_licence_lets_nothing_start_and_nothing_go_on_until_it_is_resumed() {
    let rig = Rig::start().await;
    let license = rig.issue(|new| new.seats = 2).await;
    let running = Guest::new(&rig, &license.token);
    running.start(&rig).await;
    change(&rig, &license.id, "suspend", &because("unpaid")).await.ok::<Value>();
    assert!(running.renew(&rig).await.denied()[0].contains("is suspended since"));
    assert!(Guest::new(&rig, &license.token).attest(&rig).await.denied()[0].contains("unpaid"));
    change(&rig, &license.id, "resume", &because("paid")).await.ok::<Value>();
    running.renew(&rig).await.ok::<AttestAnswer>();
    Guest::new(&rig, &license.token).start(&rig).await;
}

#[tokio::test]
async fn a_renewed_licence_holds_for_the_file_that_is_out_there() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    assert_eq!(Guest::new(&rig, &license.token).attest(&rig).await.status, 409, "one seat");
    change(&rig, &license.id, "renew", &json!({"seats": 2, "reason": "more"})).await.ok::<Value>();
    Guest::new(&rig, &license.token).start(&rig).await;
    advance(25 * 3600);
    assert!(Guest::new(&rig, &license.token).attest(&rig).await.denied()[0].contains("expired"));
    let until = now().checked_add(SignedDuration::from_hours(1)).unwrap();
    change(&rig, &license.id, "renew", &json!({"valid_until": until, "reason": "longer"})).await.ok::<Value>();
    Guest::new(&rig, &license.token).start(&rig).await;
    advance(3600);
    change(&rig, &license.id, "renew", &json!({"valid_until": "8h", "reason": "no sign"}))
        .await
        .problem(400, "malformed");
    change(&rig, &license.id, "renew", &json!({"valid_until": "+8h", "reason": "longer"})).await.ok::<Value>();
    advance(8 * 3600 - 1);
    assert_eq!(state(&rig, &license.id).await, "active");
    advance(1);
    assert_eq!(state(&rig, &license.id).await, "expired");
}

#[tokio::test]
async fn a_transferred_licence_opens_for_the_new_customers_file_alone() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let old = Guest::new(&rig, &license.token);
    old.start(&rig).await;
    let body = json!({"customer": "partner-a", "reason": "sold"});
    let new: IssuedLicense = change(&rig, &license.id, "transfer", &body).await.ok();
    assert_eq!(new.id, license.id, "the same licence");
    assert!(old.renew(&rig).await.denied()[0].contains("went to another customer"));
    advance(2 * LEASE_SECONDS + 1000);
    Guest::new(&rig, &new.token).start(&rig).await;
    let shown: LicenseStatus = rig.admin_get(&format!("/licenses/{}", new.id)).await;
    assert_eq!(shown.customer, "partner-a");
}

#[tokio::test]
async fn a_licence_moves_to_another_chip_and_back() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    let body = json!({"platforms": ["ab".repeat(64)], "reason": "new machine"});
    change(&rig, &license.id, "transfer", &body).await.ok::<Value>();
    assert!(guest.renew(&rig).await.denied()[0].contains("bound to other chips"));
    change(&rig, &license.id, "transfer", &json!({"platforms": [], "reason": "any"})).await.ok::<Value>();
    guest.renew(&rig).await.ok::<AttestAnswer>();
    for wrong in ["short".to_owned(), "00".repeat(64)] {
        let body = json!({"platforms": [wrong], "reason": "r"});
        change(&rig, &license.id, "transfer", &body).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn what_runs_drains_after_a_revocation_and_not_longer() {
    let rig = Rig::start().await;
    let license = rig.issue(|new| new.seats = 2).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    let drain = 2 * LEASE_SECONDS;
    let body = json!({"reason": "end of contract", "drain_seconds": drain});
    let revoked: Revoked = change(&rig, &license.id, "revoke", &body).await.ok();
    let end = now().checked_add(SignedDuration::from_secs(drain)).unwrap();
    assert_eq!((revoked.running, revoked.stopped_by), (1, Some(end)));
    assert!(Guest::new(&rig, &license.token).attest(&rig).await.denied()[0].contains("was revoked"), "no new start");
    advance(LEASE_SECONDS / 2);
    let renewed: AttestAnswer = guest.renew(&rig).await.ok();
    assert_eq!(renewed.lease.unwrap().grace_seconds, 0);
    advance(drain - LEASE_SECONDS / 2 - 10);
    let lease = guest.renew(&rig).await.ok::<AttestAnswer>().lease.unwrap();
    assert_eq!((lease.ttl_seconds, lease.expires_at), (10, end), "the last lease ends with the drain");
    advance(10);
    assert!(guest.renew(&rig).await.denied()[0].contains("was revoked"));
}

#[tokio::test]
async fn many_licences_are_issued_in_one_go_or_none_is() {
    let rig = Rig::start().await;
    let many: Vec<_> = (0..50).map(|number| new_license(|new| new.customer = format!("customer-{number}"))).collect();
    let issued: Vec<IssuedLicense> = rig.admin(Method::POST, "/licenses/batch", &many).await.ok();
    assert_eq!(issued.len(), 50);
    Guest::new(&rig, &issued[49].token).start(&rig).await;
    let mut broken = many;
    broken[30].seats = 0;
    let problem = rig.admin(Method::POST, "/licenses/batch", &broken).await.problem(400, "malformed");
    assert_eq!(problem.detail, "licence 31: a licence has at least one seat");
    let all: Vec<LicenseStatus> = rig.admin_get("/licenses").await;
    assert_eq!(all.len(), 50);
}
