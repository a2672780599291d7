//! Revocation pushed: whoever holds a request open hears of what happens to its lease, and of nothing else.

use std::time::Duration;

use release_protocol::{LeaseNews, LeaseState};
use reqwest::Method;
use serde_json::json;

use crate::guest::Guest;
use crate::rig::{Answer, PRODUCT, Rig, advance};

/// Far beyond what a push takes, and well below how long a request is held.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(400);

async fn ask(rig: &Rig, token: Option<&str>, since: Option<u64>) -> Answer {
    let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
    rig.send(Method::GET, &format!("/kbs/v0/lease/watch{query}"), token, None, None).await
}

/// What the guest hears when `happens` has happened while it waits.
async fn hears(rig: &Rig, token: &str, happens: impl Future<Output = ()>) -> LeaseNews {
    let before = leases_looked_at(rig).await;
    let waiting = async { tokio::time::timeout(SOON, ask(rig, Some(token), None)).await.unwrap() };
    let happening = async {
        // It looks once when it comes.
        until_looked_at(rig, before + 1).await;
        happens.await;
    };
    tokio::join!(waiting, happening).0.ok()
}

/// How often the service has looked at the lease of somebody who waits.
async fn leases_looked_at(rig: &Rig) -> u64 {
    let text = rig.send(Method::GET, "/metrics", Some(&rig.admin_token), None, None).await.body;
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("sealift_watched_leases_looked_at_total "));
    line.unwrap().parse().unwrap()
}

async fn until_looked_at(rig: &Rig, times: u64) {
    while leases_looked_at(rig).await < times {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_revocation_reaches_a_guest_that_waits() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    let news = hears(&rig, &token, rig.revoke(&license.id)).await;
    let LeaseState::Ended { reason } = news.state else { panic!("{news:?}") };
    assert!(reason.contains("was revoked") && reason.contains("contract ended"), "{reason}");
}

#[tokio::test]
async fn a_lease_that_the_vendor_ends_is_told_to_its_guest() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    let end = async {
        let path = format!("/leases/{}/end", guest.lease_id());
        assert!(rig.admin(Method::POST, &path, &json!({"reason": "moved"})).await.status < 300);
    };
    let news = hears(&rig, &token, end).await;
    assert_eq!(news.state, LeaseState::Ended { reason: "the lease has ended".to_owned() });
}

#[tokio::test]
async fn a_new_policy_makes_guests_renew_at_once() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    let strict = "package sealift.release\nimport rego.v1\ndefault allow := false\ndeny contains \"closed\"\n";
    let set = async { assert!(rig.set_policy(strict).await.status < 300) };
    let news = hears(&rig, &token, set).await;
    assert_eq!(news.state, LeaseState::Renew);
    assert_eq!(guest.renew(&rig).await.denied(), ["closed"]);
}

#[tokio::test]
async fn what_happens_between_two_requests_is_not_missed() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    let add = || async {
        let new = json!({"name": format!("p{}", uuid::Uuid::new_v4().simple()), "signers": []});
        rig.admin(Method::POST, "/products", &new).await
    };
    assert_eq!(add().await.status, 400, "a refused request changes nothing");
    let policy = "package sealift.release\nimport rego.v1\ndefault allow := true\n";
    let first = hears(&rig, &token, async { assert!(rig.set_policy(policy).await.status < 300) }).await;
    assert_eq!(first.state, LeaseState::Renew);
    assert!(rig.set_policy(policy).await.status < 300);
    let second: LeaseNews = ask(&rig, Some(&token), Some(first.since)).await.ok();
    assert_eq!(second.state, LeaseState::Renew, "{PRODUCT}: told at once");
    let quiet = tokio::time::timeout(A_WHILE, ask(&rig, Some(&token), Some(second.since))).await;
    assert!(quiet.is_err(), "told once");
}

#[tokio::test]
async fn what_happens_between_the_grant_and_the_first_request_is_not_missed() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let granted = Guest::new(&rig, &license.token).start(&rig).await;
    let policy = "package sealift.release\nimport rego.v1\ndefault allow := true\n";
    assert!(rig.set_policy(policy).await.status < 300);
    let asked = ask(&rig, Some(&granted.token), granted.news_since);
    let news: LeaseNews = tokio::time::timeout(SOON, asked).await.unwrap().ok();
    assert_eq!(news.state, LeaseState::Renew);
}

#[tokio::test]
async fn the_revocation_of_another_licence_is_no_news() {
    let rig = Rig::start().await;
    let (license, other) = (rig.issue(|_| {}).await, rig.issue(|_| {}).await);
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    let waiting = tokio::time::timeout(2 * A_WHILE, ask(&rig, Some(&token), None));
    let (heard, ()) = tokio::join!(waiting, rig.revoke(&other.id));
    assert!(heard.is_err(), "it still waits: {heard:?}");
}

#[tokio::test]
async fn a_token_that_has_expired_still_hears_and_no_token_does_not() {
    let rig = Rig::start().await;
    let license = rig.issue(|new| new.lease_seconds = 3600).await;
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    advance(1000);
    let news = hears(&rig, &token, rig.revoke(&license.id)).await;
    assert!(matches!(news.state, LeaseState::Ended { .. }));
    ask(&rig, None, None).await.problem(401, "not-attested");
    ask(&rig, Some("a.b.c"), None).await.problem(401, "not-attested");
}

#[tokio::test]
async fn only_the_guests_that_news_concern_ask_the_database() {
    const GUESTS: u64 = 20;
    let rig = Rig::start().await;
    let mut licenses = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..GUESTS {
        let license = rig.issue(|_| {}).await;
        tokens.push(Guest::new(&rig, &license.token).start(&rig).await.token);
        licenses.push(license);
    }
    let waiting = futures_util::future::join_all(tokens.iter().map(|token| ask(&rig, Some(token), None)));
    let happening = async {
        until_looked_at(&rig, GUESTS).await;
        rig.revoke(&licenses[0].id).await;
        rig.create_product("other").await;
        rig.add_reference("other", &rig.guest).await;
        until_looked_at(&rig, GUESTS + 1).await;
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(leases_looked_at(&rig).await, GUESTS + 1);
        // What concerns them all makes all of them look.
        assert!(rig.set_policy("package sealift.release\nallow := true").await.status < 300);
    };
    let (heard, ()) = tokio::time::timeout(3 * SOON, async { tokio::join!(waiting, happening) }).await.unwrap();
    let states: Vec<LeaseState> = heard.iter().map(|answer| answer.ok::<LeaseNews>().state).collect();
    assert!(matches!(states[0], LeaseState::Ended { .. }));
    assert!(states[1..].iter().all(|state| *state == LeaseState::Renew), "{states:?}");
    assert_eq!(leases_looked_at(&rig).await, 2 * GUESTS);
}
