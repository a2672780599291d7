//! What is limited, and what those see who watch over the service.

use attestation_service::LimitSettings;
use attestation_service::api::Health;
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{Rig, offline, platform};

pub(crate) async fn limited(change: impl FnOnce(&mut LimitSettings)) -> Rig {
    let mut limits = LimitSettings::default();
    change(&mut limits);
    Rig::start_limited(vec![platform().ark_der().to_vec()], offline(), limits).await
}

pub(crate) fn request() -> Value {
    json!({"version": "0.4.0", "tee": "snp", "extra-params": ""})
}

#[tokio::test]
async fn a_flood_from_one_address_is_told_to_come_back_and_served_when_it_does() {
    let rig = limited(|limits| (limits.requests_per_second, limits.burst) = (1, 100)).await;
    let (mut served, mut refused, mut wait) = (0_u32, 0_u32, 0);
    for _ in 0..3000 {
        let answer = rig.post("/kbs/v0/auth", &request()).await;
        if answer.status == 200 {
            served += 1;
        } else {
            answer.problem(429, "too-many-requests");
            wait = answer.retry_after.unwrap();
            refused += 1;
        }
    }
    assert!(served >= 100 && refused > 0, "{served} served, {refused} refused");
    assert_eq!(wait, 1);
    rig.admin_get::<Value>("/products").await;
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    rig.post("/kbs/v0/auth", &request()).await.ok::<Value>();
    assert!(metrics(&rig).await.contains(&format!("sealift_rate_limited_total {refused}\n")));
}

#[tokio::test]
async fn fifty_instances_behind_one_address_start_at_once_by_default() {
    let rig = limited(|_| ()).await;
    // A start takes fewer requests than these.
    for _ in 0..50 * 15 {
        rig.post("/kbs/v0/auth", &request()).await.ok::<Value>();
    }
}

#[tokio::test]
async fn what_is_too_much_at_once_is_told_to_come_back() {
    let rig = limited(|limits| (limits.concurrent_requests, limits.requests_per_second) = (1, 0)).await;
    // A body that never ends holds the only place.
    let body = reqwest::Body::wrap_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let url = format!("https://{}/kbs/v0/attest", rig.server.address());
    let endless = tokio::spawn(rig.http.post(url).body(body).send());
    let refused = loop {
        let answer = rig.post("/kbs/v0/auth", &request()).await;
        if answer.status != 200 {
            break answer;
        }
    };
    refused.problem(503, "unavailable");
    assert_eq!(refused.retry_after, Some(1));
    rig.admin_get::<Value>("/products").await;
    endless.abort();
    while rig.post("/kbs/v0/auth", &request()).await.status != 200 {}
}

async fn metrics(rig: &Rig) -> String {
    let answer = rig.send(Method::GET, "/metrics", Some(&rig.admin_token), None, None).await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).unwrap()
}

#[tokio::test]
async fn metrics_count_and_name_nobody() {
    let rig = limited(|_| ()).await;
    let issued = rig.issue(|license| "Customer Ltd".clone_into(&mut license.customer)).await;
    rig.post("/kbs/v0/auth", &request()).await.ok::<Value>();
    rig.post("/kbs/v0/attest", &json!({})).await.problem(400, "malformed");
    rig.resource(None, "shop/image-key/key-1").await.problem(401, "not-attested");
    let entries = rig.audit().await.len();
    let text = metrics(&rig).await;
    for line in [
        "sealift_http_requests_total{route=\"auth\",status=\"2xx\"} 1",
        "sealift_http_requests_total{route=\"attest\",status=\"4xx\"} 1",
        "sealift_http_requests_total{route=\"resource\",status=\"4xx\"} 1",
        "sealift_attestations_total{outcome=\"refused\"} 1",
        "sealift_key_releases_total 0",
        "sealift_leases_live 0",
        &format!("sealift_audit_entries {entries}"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    for name in ["shop", "key-1", "Customer", &issued.id] {
        assert!(!text.contains(name), "{name} in\n{text}");
    }
    rig.send(Method::GET, "/metrics", None, None, None).await.problem(401, "not-attested");
}

#[tokio::test]
async fn a_service_without_its_database_lives_but_is_not_ready() {
    let rig = limited(|_| ()).await;
    let get = |path: &'static str| rig.send(Method::GET, path, None, None, None);
    assert_eq!(get("/readyz").await.ok::<Health>().status, "ready");
    rig.service.store().close().await;
    assert!(get("/readyz").await.retry_after.is_some());
    get("/readyz").await.problem(503, "unavailable");
    assert_eq!(get("/healthz").await.ok::<Health>().status, "ok");
}
