//! From evidence to key: what is released, to whom, for what.

use attestation_service::api::ImageKey;
use jose::jwe::EphemeralKey;
use release_protocol::Obligations;
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::rig::{KEK, KEY_ID, KEY_PATH, LEASE_SECONDS, MANIFEST, PRODUCT, Rig, advance, now};

const OTHER_MANIFEST: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

#[tokio::test]
async fn a_token_names_the_policy_that_decided_and_only_where_one_did() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let mut guest = Guest::new(&rig, &license.token);
    let appraisal = |token: &str| {
        let decoded = jose::jws::decode_unverified(token, "JWT").unwrap();
        decoded.claims::<serde_json::Value>().unwrap()["submods"]["cpu0"].clone()
    };
    let decided = appraisal(&guest.start(&rig).await.token);
    let policy = &rig.audit_of("lease_granted").await[0]["policy"];
    assert!(policy.as_str().unwrap().starts_with("sha256:"));
    assert_eq!(&decided["ear.appraisal-policy-id"], policy);
    assert_eq!(decided["ear.status"], "warning", "a simulated platform");
    let evidence = &decided["ear.veraison.annotated-evidence"];
    assert_eq!(evidence["snp"]["measurement"], rig.guest.measurement().to_string());

    (guest.workload, guest.license) = (None, None);
    let attested = appraisal(&guest.start(&rig).await.token);
    assert!(attested.get("ear.appraisal-policy-id").is_none());
    assert_eq!(attested["ear.trustworthiness-vector"]["executables"], 0);
}

#[tokio::test]
async fn an_attested_licensed_guest_gets_a_lease_and_the_key() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let answer = guest.start(&rig).await;

    assert!(answer.simulated, "the answer says that the platform is simulated");
    let lease = answer.lease.unwrap();
    assert_eq!((lease.id, lease.license), (guest.lease_id(), license.id.clone()));
    assert_eq!(lease.expires_at.as_second(), now().as_second() + LEASE_SECONDS);
    let obligations = Obligations {
        manifest_digest: Some(MANIFEST.to_owned()),
        signers: vec![rig.signer.verifying_key().thumbprint()],
        ..Obligations::default()
    };
    assert_eq!(answer.obligations, Some(obligations));
    guest.open(&rig, &answer.token).await;

    let kinds: Vec<String> = rig.audit().await.into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds[kinds.len() - 2..], ["lease_granted", "key_released"]);
    let released = rig.audit_of("key_released").await;
    assert_eq!(released[0]["resource"], KEY_PATH);
    assert_eq!(released[0]["license"], Value::from(license.id));
    assert_eq!(released[0]["simulated"], true);
}

#[tokio::test]
async fn the_key_is_for_no_other_guest() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let answer = Guest::new(&rig, &license.token).start(&rig).await;
    let released = rig.resource(Some(&answer.token), KEY_PATH).await;
    let message = jose::jwe::Jwe::parse(&released.body).unwrap();
    assert!(EphemeralKey::generate().unwrap().decrypt(&message).is_err());
}

#[tokio::test]
async fn a_key_is_not_released_for_another_manifest() {
    let rig = Rig::start().await;
    rig.register_key(PRODUCT, "key-2", &[OTHER_MANIFEST]).await;
    let license = rig.issue(|_| {}).await;
    let answer = Guest::new(&rig, &license.token).start(&rig).await;
    let reasons = rig.resource(Some(&answer.token), "shop/image-key/key-2").await.denied();
    assert_eq!(reasons, [format!("this key is not for manifest {MANIFEST}")]);
    assert_eq!(rig.audit_of("denied").await[0]["resource"], "shop/image-key/key-2");
}

#[tokio::test]
async fn a_pending_key_is_released_to_nobody_until_it_is_bound_and_is_bound_once() {
    let rig = Rig::start().await;
    rig.register_key(PRODUCT, "key-2", &[]).await;
    let license = rig.issue(|_| {}).await;
    let answer = Guest::new(&rig, &license.token).start(&rig).await;
    let path = "shop/image-key/key-2";
    let reasons = rig.resource(Some(&answer.token), path).await.denied();
    assert_eq!(reasons, [format!("this key is not for manifest {MANIFEST}")]);

    let bind = format!("/products/{PRODUCT}/keys/key-2/manifests");
    let bound = |digests: &[&str]| {
        let manifests: Vec<_> = digests.iter().map(|digest| json!({"digest": digest, "platform": "os/cpu"})).collect();
        json!({"image": "shop:1", "manifests": manifests})
    };
    rig.admin(Method::POST, &bind, &bound(&[])).await.problem(400, "malformed");
    rig.admin(Method::POST, &bind, &bound(&["sha256:1"])).await.problem(400, "malformed");
    rig.admin(Method::POST, &format!("/products/{PRODUCT}/keys/key-3/manifests"), &bound(&[MANIFEST]))
        .await
        .problem(404, "unknown");
    rig.create_product("bank").await;
    rig.admin(Method::POST, "/products/bank/keys/key-2/manifests", &bound(&[MANIFEST])).await.problem(404, "unknown");
    assert!(rig.audit_of("key_bound").await.is_empty());

    // Twice: who binds may have been interrupted.
    for _ in 0..2 {
        assert_eq!(rig.admin(Method::POST, &bind, &bound(&[MANIFEST])).await.status, 204);
    }
    let audited = rig.audit_of("key_bound").await;
    assert_eq!((audited.len(), &audited[0]["key"], &audited[0]["image"]), (1, &"key-2".into(), &"shop:1".into()));
    assert_eq!(rig.resource(Some(&answer.token), path).await.status, 200);
    for others in [&[OTHER_MANIFEST][..], &[MANIFEST, OTHER_MANIFEST]] {
        rig.admin(Method::POST, &bind, &bound(others)).await.problem(409, "conflict");
    }
    let keys: Vec<ImageKey> = rig.admin_get(&format!("/products/{PRODUCT}/keys")).await;
    let key = keys.iter().find(|key| key.id == "key-2").unwrap();
    assert_eq!((key.image.as_str(), key.manifests.len()), ("shop:1", 1));
}

#[tokio::test]
async fn a_key_of_another_product_is_not_released() {
    let rig = Rig::start().await;
    rig.create_product("bank").await;
    rig.register_key("bank", "key-2", &[MANIFEST]).await;
    let license = rig.issue(|_| {}).await;
    let answer = Guest::new(&rig, &license.token).start(&rig).await;
    let reasons = rig.resource(Some(&answer.token), "bank/image-key/key-2").await.denied();
    assert_eq!(reasons, ["the guest was attested for another product than bank"]);
}

#[tokio::test]
async fn an_unregistered_manifest_is_denied() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let mut guest = Guest::new(&rig, &license.token);
    guest.workload.as_mut().unwrap().manifest_digest = OTHER_MANIFEST.to_owned();
    let reasons = guest.attest(&rig).await.denied();
    assert_eq!(reasons, [format!("manifest {OTHER_MANIFEST} is registered for no product")]);
}

#[tokio::test]
async fn a_guest_without_workload_gets_a_token_but_no_key() {
    let rig = Rig::start().await;
    let mut guest = Guest::new(&rig, "");
    (guest.license, guest.workload) = (None, None);
    let answer = guest.start(&rig).await;
    assert_eq!((answer.lease, answer.obligations), (None, None));
    let reasons = rig.resource(Some(&answer.token), KEY_PATH).await.denied();
    assert_eq!(
        reasons,
        [
            "neither the guest nor its initialisation data (`sealift.license`, `sealift.manifest`) state a licence and the image \
          that is to run, so nothing can be released"
        ]
    );
}

#[tokio::test]
async fn a_workload_without_licence_is_denied() {
    let rig = Rig::start().await;
    let mut guest = Guest::new(&rig, "");
    guest.license = None;
    assert_eq!(guest.attest(&rig).await.denied(), ["no licence was presented"]);
}

#[tokio::test]
async fn a_resource_is_not_given_without_token() {
    let rig = Rig::start().await;
    rig.resource(None, KEY_PATH).await.problem(401, "not-attested");
    rig.resource(Some("nonsense"), KEY_PATH).await.problem(401, "not-attested");
    // A nonce is no token, although both travel in the same cookie.
    let nonce = crate::guest::challenge(&rig).await;
    rig.resource(Some(&nonce), KEY_PATH).await.problem(401, "not-attested");
}

#[tokio::test]
async fn an_unknown_resource_is_not_found() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let token = Guest::new(&rig, &license.token).start(&rig).await.token;
    for path in ["shop/image-key/none", "none/image-key/key-1", "shop/secret/key-1"] {
        rig.resource(Some(&token), path).await.problem(404, "unknown");
    }
    for path in ["shop/image-key", "shop/image-key/key-1/more", "shop/image-key/%2e%2e"] {
        rig.resource(Some(&token), path).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn a_token_dies_after_five_minutes() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    advance(299);
    guest.open(&rig, &token).await;
    advance(1);
    let problem = rig.resource(Some(&token), KEY_PATH).await.problem(401, "not-attested");
    assert_eq!(problem.detail, "the token has expired");
}

#[tokio::test]
async fn a_token_of_another_service_is_refused() {
    let (rig, other) = (Rig::start().await, Rig::start().await);
    let license = other.issue(|_| {}).await;
    let token = Guest::new(&other, &license.token).start(&other).await.token;
    let problem = rig.resource(Some(&token), KEY_PATH).await.problem(401, "not-attested");
    assert_eq!(problem.detail, "the token is not one of this service's");
}

#[tokio::test]
async fn a_licence_is_no_token() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    rig.resource(Some(&license.token), KEY_PATH).await.problem(401, "not-attested");
}

#[tokio::test]
async fn a_large_licence_still_travels() {
    let rig = Rig::start().await;
    let chip = crate::rig::platform().chip_id().to_string();
    let license = rig
        .issue(|license| {
            license.platforms = (0..150).map(|number| format!("{number:0128x}")).skip(1).collect();
            license.platforms.push(chip);
        })
        .await;
    let guest = Guest::new(&rig, &license.token);
    let answer = guest.start(&rig).await;
    guest.open(&rig, &answer.token).await;
    assert!(answer.token.len() < 8 * 1024, "the token has {} bytes, a header has to carry it", answer.token.len());
}

#[tokio::test]
async fn keys_are_kept_nowhere_in_the_clear() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    Guest::new(&rig, &license.token).start(&rig).await;
    let kek_hex = hex::encode(KEK);
    let mut found = 0;
    for content in rig.all_that_is_kept().await {
        let holds = |secret: &[u8]| content.windows(secret.len()).any(|window| window == secret);
        assert!(!holds(&KEK) && !holds(KEK_BASE64.as_bytes()) && !holds(kek_hex.as_bytes()));
        assert!(!holds(rig.admin_token.as_bytes()), "an API token is kept as its hash");
        found += usize::from(holds(KEY_ID.as_bytes()));
    }
    assert!(found > 0, "the key's row was in nothing that was searched");
}

/// `KEK` as it was sent.
const KEK_BASE64: &str = "dGhpcnR5LXR3byBieXRlcyBvZiBpbWFnZSBrZXkhISE=";
