//! The admin API and the HTTP layer: who may ask, what is malformed, what is too large.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{PRODUCT, Rig, new_license, now};

#[tokio::test]
async fn nothing_is_answered_without_a_good_token() {
    let rig = Rig::start().await;
    for (method, path) in [
        (Method::GET, "/api/v1/products"),
        (Method::POST, "/api/v1/products"),
        (Method::GET, "/api/v1/audit"),
        (Method::POST, "/api/v1/licenses"),
        (Method::POST, "/api/v1/leases/any/end"),
        (Method::GET, "/api/v1/audit/1"),
        (Method::GET, "/api/v1/platforms"),
        (Method::POST, "/api/v1/platforms/deny"),
        (Method::POST, "/api/v1/platforms/allow"),
    ] {
        for token in [None, Some(""), Some("sealift_AAAA")] {
            rig.send(method.clone(), path, token, None, Some(b"{}".to_vec())).await.problem(401, "not-attested");
        }
    }
}

#[tokio::test]
async fn an_oversized_body_is_refused() {
    let rig = Rig::start().await;
    let body = vec![b' '; (1 << 20) + 1];
    for path in ["/kbs/v0/auth", "/kbs/v0/attest"] {
        let answer = rig.send(Method::POST, path, None, None, Some(body.clone())).await;
        answer.problem(413, "too-large");
    }
    let token = Some(rig.admin_token.as_str());
    rig.send(Method::POST, "/api/v1/licenses", token, None, Some(body)).await.problem(413, "too-large");
}

#[tokio::test]
async fn malformed_json_is_a_bad_request() {
    let rig = Rig::start().await;
    for body in ["", "{", "[]", "\"text\"", "{\"version\": 1}", &"[".repeat(60_000)] {
        for path in ["/kbs/v0/auth", "/kbs/v0/attest"] {
            let body = Some(body.as_bytes().to_vec());
            rig.send(Method::POST, path, None, None, body).await.problem(400, "malformed");
        }
        let token = Some(rig.admin_token.as_str());
        let body = Some(body.as_bytes().to_vec());
        rig.send(Method::POST, "/api/v1/licenses", token, None, body).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn an_unknown_route_is_a_problem_document() {
    let rig = Rig::start().await;
    rig.send(Method::GET, "/nothing", None, None, None).await.problem(404, "unknown");
}

#[tokio::test]
async fn health_says_whether_simulated_platforms_are_accepted() {
    let (evaluation, production) = (Rig::start().await, Rig::start_with(Vec::new()).await);
    for (rig, allowed) in [(evaluation, true), (production, false)] {
        let health: Value = rig.send(Method::GET, "/healthz", None, None, None).await.ok();
        assert_eq!(health["status"], "ok");
        assert_eq!(health["simulated_platforms_allowed"], allowed);
    }
}

#[tokio::test]
async fn a_senseless_licence_is_not_issued() {
    let rig = Rig::start().await;
    let past = now().checked_sub(SignedDuration::from_secs(1)).unwrap();
    let senseless = [
        new_license(|license| license.seats = 0),
        new_license(|license| license.products.clear()),
        new_license(|license| license.customer = " ".to_owned()),
        new_license(|license| license.valid_until = past.into()),
        new_license(|license| license.valid_until = "+0s".parse().unwrap()),
        new_license(|license| license.valid_until = "+500000years".parse().unwrap()),
        new_license(|license| {
            license.valid_from = Some(now().checked_add(SignedDuration::from_hours(9)).unwrap());
            license.valid_until = "+8h".parse().unwrap();
        }),
        new_license(|license| license.lease_seconds = 0),
        new_license(|license| license.lease_seconds = 32 * 24 * 3600),
        new_license(|license| license.platforms = vec!["no chip".to_owned()]),
        new_license(|license| license.platforms = vec!["00".repeat(64)]),
        new_license(|license| {
            license.valid_from = Some(Timestamp::MIN);
            license.valid_until = Timestamp::MIN.into();
        }),
    ];
    for license in senseless {
        rig.admin(Method::POST, "/licenses", &license).await.problem(400, "malformed");
    }
    let unknown = new_license(|license| license.products = vec!["none".parse().unwrap()]);
    rig.admin(Method::POST, "/licenses", &unknown).await.problem(404, "unknown");
}

#[tokio::test]
async fn a_key_id_keeps_its_key() {
    let rig = Rig::start().await;
    // The same key again is no offence: a packer may have been interrupted.
    rig.register_key(PRODUCT, crate::rig::KEY_ID, &[crate::rig::MANIFEST]).await;
    let path = format!("/products/{PRODUCT}/keys");
    let manifests = json!([{"digest": crate::rig::MANIFEST, "platform": "linux/amd64"}]);
    let zeros = "A".repeat(43) + "=";
    let other = json!({"id": crate::rig::KEY_ID, "kek": zeros, "image": "image", "manifests": manifests});
    rig.admin(Method::POST, &path, &other).await.problem(409, "conflict");
    for (kek, manifests) in
        [("AAAA", manifests.clone()), ("?", manifests), (&zeros, json!([{"digest": "sha256:1", "platform": ""}]))]
    {
        let key = json!({"id": "key-2", "kek": kek, "image": "image", "manifests": manifests});
        rig.admin(Method::POST, &path, &key).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn a_removed_reference_opens_nothing_any_more() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let measurement = rig.guest.measurement();
    let path = format!("/products/{PRODUCT}/references/{measurement}");
    assert_eq!(rig.admin(Method::DELETE, &path, &()).await.status, 204);
    let reasons = crate::guest::Guest::new(&rig, &license.token).attest(&rig).await.denied();
    assert!(reasons[0].contains("is no reference value"), "{reasons:?}");
    rig.admin(Method::DELETE, &path, &()).await.problem(404, "unknown");
}
