//! Licences that do not licence: each is denied with its reason, and the denial is in the audit log.

use jiff::{SignedDuration, Timestamp};
use jose::signing::SigningKey;
use release_protocol::{LicenseFile, LicenseId};

use crate::guest::Guest;
use crate::rig::{GRACE_SECONDS, LEASE_SECONDS, PRODUCT, Rig, advance, now, platform};

fn later(seconds: i64) -> Timestamp {
    now().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// The one reason of the denial, once it is seen to stand in the audit log as well.
async fn denial(rig: &Rig, token: &str) -> String {
    let reasons = Guest::new(rig, token).attest(rig).await.denied();
    let entries = rig.audit_of("denied").await;
    assert_eq!(entries.last().unwrap()["reasons"], serde_json::json!(reasons));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_revoked_licence_is_denied() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    rig.revoke(&license.id).await;
    let reason = denial(&rig, &license.token).await;
    assert_eq!(reason, format!("licence {} was revoked at {}: contract ended", license.id, now()));
}

#[tokio::test]
async fn an_expired_licence_is_denied() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.valid_until = later(60).into()).await;
    let end = later(60);
    advance(59);
    Guest::new(&rig, &license.token).start(&rig).await;
    advance(1);
    assert_eq!(denial(&rig, &license.token).await, format!("licence {} expired at {end}", license.id));
}

/// An autoscaler says for how long, and needs no clock that is right.
#[tokio::test]
async fn a_licence_for_so_long_from_now_ends_by_the_services_clock() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.valid_until = "+8h".parse().unwrap()).await;
    let end = later(8 * 3600);
    advance(8 * 3600 - 1);
    Guest::new(&rig, &license.token).start(&rig).await;
    advance(1);
    assert_eq!(denial(&rig, &license.token).await, format!("licence {} expired at {end}", license.id));
}

#[tokio::test]
async fn a_licence_that_is_not_yet_valid_is_denied() {
    let rig = Rig::start().await;
    let begin = later(60);
    let license = rig.issue(|license| license.valid_from = Some(begin)).await;
    assert_eq!(denial(&rig, &license.token).await, format!("licence {} holds from {begin}", license.id));
    advance(60);
    Guest::new(&rig, &license.token).start(&rig).await;
}

#[tokio::test]
async fn a_licence_of_another_product_is_denied() {
    let rig = Rig::start().await;
    rig.create_product("bank").await;
    let license = rig.issue(|license| license.products = vec!["bank".parse().unwrap()]).await;
    let reason = denial(&rig, &license.token).await;
    assert!(reason.contains(&format!("belongs to product {PRODUCT}, licence {} does not cover", license.id)));
}

#[tokio::test]
async fn a_licence_that_another_key_signed_is_denied() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let file: LicenseFile = license.token.parse().unwrap();
    let forged = file.unverified().sign(&SigningKey::generate().unwrap()).unwrap();
    assert_eq!(denial(&rig, forged.token()).await, "the licence was not issued by this service");
    denial(&rig, "nonsense").await;
}

#[tokio::test]
async fn a_licence_that_the_database_does_not_know_is_denied() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let mut claims = license.token.parse::<LicenseFile>().unwrap().unverified().clone();
    claims.id = LicenseId("lic-lost".to_owned());
    let lost = claims.sign(&rig.home.license_key().unwrap()).unwrap();
    assert_eq!(denial(&rig, lost.token()).await, "licence lic-lost is unknown");
}

#[tokio::test]
async fn a_licence_that_is_bound_to_another_chip_is_denied() {
    let rig = Rig::start().await;
    let chip = platform().chip_id().to_string();
    let bound = rig.issue(|license| license.platforms = vec![chip.clone()]).await;
    Guest::new(&rig, &bound.token).start(&rig).await;
    let elsewhere = rig.issue(|license| license.platforms = vec!["07".repeat(64)]).await;
    let reason = denial(&rig, &elsewhere.token).await;
    assert_eq!(reason, format!("licence {} is bound to other chips than {chip}", elsewhere.id));
}

#[tokio::test]
async fn revoking_says_how_many_run_and_until_when() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    Guest::new(&rig, &license.token).start(&rig).await;
    let path = format!("/licenses/{}/revoke", license.id);
    let reason = serde_json::json!({"reason": "contract ended"});
    let revoked: attestation_service::api::Revoked = rig.admin(reqwest::Method::POST, &path, &reason).await.ok();
    assert_eq!((revoked.running, revoked.stopped_by), (1, Some(later(LEASE_SECONDS + GRACE_SECONDS))));
    rig.admin(reqwest::Method::POST, &path, &reason).await.problem(409, "conflict");
}
