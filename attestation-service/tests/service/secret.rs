//! Secrets beside image keys: put, listed without what is in them, delivered under a lease of their product, forgotten.

use attestation_service::api::{SECRET_MAX, SecretStatus};
use jose::jwe::Jwe;
use reqwest::Method;

use crate::guest::Guest;
use crate::rig::{Answer, GRACE_SECONDS, LEASE_SECONDS, PRODUCT, Rig, advance};

const SECRET: &[u8] = b"a secret that nobody else may see";
const PATH: &str = "shop/config/database";

async fn put(rig: &Rig, path: &str, secret: &[u8]) -> Answer {
    let (product, name) = path.split_once('/').unwrap();
    let path = format!("/api/v1/products/{product}/secrets/{name}");
    rig.send(Method::PUT, &path, Some(&rig.admin_token), None, Some(secret.to_vec())).await
}

async fn list(rig: &Rig) -> Vec<SecretStatus> {
    rig.admin_get(&format!("/products/{PRODUCT}/secrets")).await
}

#[tokio::test]
async fn a_guest_under_a_lease_gets_the_secrets_of_its_product() {
    let rig = Rig::start().await;
    assert_eq!(put(&rig, PATH, SECRET).await.status, 204);
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let started = guest.start(&rig).await;
    let answer = rig.resource(Some(&started.token), PATH).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(guest.key.decrypt(&Jwe::parse(&answer.body).unwrap()).unwrap().as_slice(), SECRET);
    let [released] = rig.audit_of("key_released").await.try_into().unwrap();
    assert_eq!((&released["resource"], &released["lease"]), (&PATH.into(), &guest.lease_id().0.into()));

    // Another in its place is what guests get from then on; once it is forgotten, nothing.
    assert_eq!(put(&rig, PATH, b"another").await.status, 204);
    let answer = rig.resource(Some(&started.token), PATH).await;
    assert_eq!(guest.key.decrypt(&Jwe::parse(&answer.body).unwrap()).unwrap().as_slice(), b"another");
    let path = format!("/products/{PRODUCT}/secrets/config/database");
    assert_eq!(rig.admin(Method::DELETE, &path, &()).await.status, 204);
    rig.resource(Some(&started.token), PATH).await.problem(404, "unknown");
    rig.admin(Method::DELETE, &path, &()).await.problem(404, "unknown");
}

#[tokio::test]
async fn a_secret_is_delivered_to_nobody_without_a_live_lease_of_its_product() {
    let rig = Rig::start().await;
    put(&rig, PATH, SECRET).await;
    rig.create_product("bank").await;
    put(&rig, "bank/config/database", SECRET).await;
    rig.resource(None, PATH).await.problem(401, "not-attested");
    let license = rig.issue(|_| {}).await;
    let mut stranger = Guest::new(&rig, &license.token);
    stranger.workload = None;
    let token = stranger.start(&rig).await.token;
    rig.resource(Some(&token), PATH).await.denied();
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    let reasons = rig.resource(Some(&token), "bank/config/database").await.denied();
    assert_eq!(reasons, ["the guest was attested for another product than bank"]);
    rig.revoke(&license.id).await;
    assert!(rig.resource(Some(&token), PATH).await.denied()[0].contains("revoked"));
    advance(LEASE_SECONDS + GRACE_SECONDS + 1);
    rig.resource(Some(&token), PATH).await.problem(401, "not-attested");
}

#[tokio::test]
async fn a_list_of_secrets_and_the_log_and_the_database_hold_nothing_of_what_is_in_them() {
    let rig = Rig::start().await;
    put(&rig, PATH, SECRET).await;
    let [listed] = list(&rig).await.try_into().unwrap();
    assert_eq!((listed.resource.as_str(), listed.bytes), (PATH, u32::try_from(SECRET.len()).unwrap()));
    let entries = serde_json::to_string(&rig.audit().await).unwrap();
    assert!(entries.contains("secret_stored") && entries.contains(PATH));
    let shown = String::from_utf8(SECRET.to_vec()).unwrap();
    assert!(!entries.contains(&shown));
    for file in rig.all_that_is_kept().await {
        assert!(memchr::memmem::find(&file, SECRET).is_none());
    }
}

#[tokio::test]
async fn what_is_no_secret_is_refused_and_leaves_nothing() {
    let rig = Rig::start().await;
    put(&rig, "shop/image-key/key-2", SECRET).await.problem(400, "malformed");
    put(&rig, "shop/config/..%2Fkey", SECRET).await.problem(400, "malformed");
    put(&rig, PATH, b"").await.problem(400, "malformed");
    put(&rig, PATH, &vec![0; SECRET_MAX + 1]).await.problem(400, "malformed");
    put(&rig, "unknown/config/database", SECRET).await.problem(404, "unknown");
    assert_eq!(list(&rig).await, []);
    assert_eq!(put(&rig, PATH, &vec![1; SECRET_MAX]).await.status, 204);
}
