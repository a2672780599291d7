//! A stock key broker client: no members of ours, a cookie for a session, `tee-pubkey` and `nonce` bound and no more.

use attestation_service::api::{IssuedLicense, LeaseStatus, Revoked};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jose::jwe::{DecryptionKey, EphemeralKey, Jwe};
use launch_evidence::simulated::SimulatedGuest;
use release_protocol::{AttestAnswer, host_data, report_data};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha384};

use crate::guest::{Guest, attest, challenge, prove, public};
use crate::rig::{GRACE_SECONDS, KEK, KEY_PATH, LEASE_SECONDS, MANIFEST, Rig, advance};

fn cookie(answer: &crate::rig::Answer) -> String {
    answer.cookie.as_deref().unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_stock_client_gets_its_token_and_no_image_key() {
    let rig = Rig::start().await;
    let request = json!({"version": "0.4.0", "tee": "snp", "extra-params": {}}).to_string();
    let challenge = rig.send(Method::POST, "/kbs/v0/auth", None, None, Some(request.into_bytes())).await;
    let session = cookie(&challenge);
    let nonce = challenge.ok::<Value>()["nonce"].clone();

    let key = EphemeralKey::generate().unwrap();
    let runtime_data = json!({"tee-pubkey": public(&key), "nonce": nonce});
    let evidence = rig.guest.evidence(&report_data(runtime_data.as_object().unwrap(), "").unwrap()).unwrap();
    let attestation = json!({
        "init-data": null,
        "runtime-data": runtime_data,
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    });
    let body = attestation.to_string().into_bytes();
    let answer = rig.send(Method::POST, "/kbs/v0/attest", None, Some(&session), Some(body)).await;
    let session = cookie(&answer);
    let token = answer.ok::<Value>()["token"].as_str().unwrap().to_owned();
    assert_eq!(token.split('.').count(), 3, "a compact JWS");

    let path = format!("/kbs/v0/resource/{KEY_PATH}");
    let by_cookie = rig.send(Method::GET, &path, None, Some(&session), None).await;
    let by_token = rig.resource(Some(&token), KEY_PATH).await;
    assert_eq!(by_cookie.denied(), by_token.denied());
    // Problems carry what stock clients read.
    let problem: Value = serde_json::from_slice(&by_cookie.body).unwrap();
    assert!(problem["type"].is_string() && problem["detail"].is_string());
}

#[tokio::test]
async fn a_client_with_an_rsa_key_gets_its_answer_encrypted_to_that() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let key = DecryptionKey::from_der(pkcs8.as_ref()).unwrap();
    let mut jwk = serde_json::to_value(key.public_key().to_jwk()).unwrap();
    jwk["alg"] = json!("RSA-OAEP-256");
    let mut runtime_data = Guest::new(&rig, &license.token).runtime_data(&challenge(&rig).await);
    runtime_data.tee_pubkey = serde_json::from_value(jwk).unwrap();
    let answer: AttestAnswer = attest(&rig, &prove(&rig.guest, &runtime_data)).await.ok();
    let released = rig.resource(Some(&answer.token), KEY_PATH).await;
    assert_eq!(released.status, 200, "{}", String::from_utf8_lossy(&released.body));
    assert_eq!(Jwe::parse(&released.body).unwrap().decrypt(&key).unwrap().as_slice(), KEK);
}

/// Confidential Containers' initialisation data, naming licence and image.
fn init_data(license: &str, manifest: &str) -> String {
    format!(
        "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"sealift.license\" = \"{license}\"\n\"sealift.manifest\" = \"{manifest}\"\n"
    )
}

/// Launches a guest with these initialisation data; the stock client in it attests.
async fn attest_launched(rig: &Rig, key: &EphemeralKey, body: &str) -> crate::rig::Answer {
    attest_claiming(rig, &launched(rig, body), key, body).await
}

fn launched(rig: &Rig, body: &str) -> SimulatedGuest {
    rig.launch_with_host_data(host_data(body.as_bytes()))
}

/// The same in a guest that was launched as it was, whatever the client says of that.
async fn attest_claiming(rig: &Rig, guest: &SimulatedGuest, key: &EphemeralKey, body: &str) -> crate::rig::Answer {
    let runtime_data = json!({"tee-pubkey": public(key), "nonce": challenge(rig).await});
    let evidence = guest.evidence(&report_data(runtime_data.as_object().unwrap(), "").unwrap()).unwrap();
    let attestation = json!({
        "init-data": {"format": "toml", "body": body},
        "runtime-data": runtime_data,
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    });
    rig.post("/kbs/v0/attest", &attestation).await
}

/// What a stock client does for each layer: a new key, evidence over it, the image's key to it.
async fn open_layer(rig: &Rig, guest: &SimulatedGuest, body: &str) {
    let key = EphemeralKey::generate().unwrap();
    let answer: AttestAnswer = attest_claiming(rig, guest, &key, body).await.ok();
    let released = rig.resource(Some(&answer.token), KEY_PATH).await;
    assert_eq!(released.status, 200, "{}", String::from_utf8_lossy(&released.body));
    assert_eq!(key.decrypt(&Jwe::parse(&released.body).unwrap()).unwrap().as_slice(), KEK);
}

/// A licence for one seat, and initialisation data of it that the vendor has approved.
async fn approved_launch(rig: &Rig) -> (IssuedLicense, String) {
    let license = rig.issue(|_| {}).await;
    let body = init_data(&license.token, MANIFEST);
    approve(rig, &body).await;
    (license, body)
}

async fn approve(rig: &Rig, body: &str) {
    let reference = json!({"kind": "init-data", "init_data": hex::encode(host_data(body.as_bytes()))});
    rig.admin(Method::POST, "/products/shop/references", &reference).await.ok::<Value>();
}

#[tokio::test]
async fn a_stock_client_gets_the_key_that_its_approved_launch_names() {
    let rig = Rig::start().await;
    let (license, body) = approved_launch(&rig).await;
    let guest = launched(&rig, &body);
    open_layer(&rig, &guest, &body).await;

    let [lease]: [LeaseStatus; 1] = rig.admin_get::<Vec<_>>("/leases").await.try_into().unwrap();
    assert!(!lease.revocable, "nothing stops a stock client");
    assert_eq!((lease.license, lease.state.as_str()), (license.id.clone(), "live"));
    let [granted] = rig.audit_of("lease_granted").await.try_into().unwrap();
    assert_eq!(granted["revocable"], false);

    // The next guest takes a seat of its own, of which there is one.
    let another = EphemeralKey::generate().unwrap();
    attest_launched(&rig, &another, &body).await.problem(409, "seats-exhausted");
    // The same guest attests anew by another key for each layer, for several at once: the same lease.
    tokio::join!(open_layer(&rig, &guest, &body), open_layer(&rig, &guest, &body), open_layer(&rig, &guest, &body));
    assert_eq!(rig.admin_get::<Vec<LeaseStatus>>("/leases").await.len(), 1);
    // Its lease is over without a renewal.
    advance(LEASE_SECONDS + GRACE_SECONDS + 1);
    let [lease]: [LeaseStatus; 1] = rig.admin_get::<Vec<_>>("/leases").await.try_into().unwrap();
    assert_eq!(lease.state, "lapsed");
}

#[tokio::test]
async fn a_revocation_says_how_many_it_does_not_stop_and_ends_their_keys() {
    let rig = Rig::start().await;
    let (license, body) = approved_launch(&rig).await;
    let key = EphemeralKey::generate().unwrap();
    let answer: AttestAnswer = attest_launched(&rig, &key, &body).await.ok();
    let revoke = format!("/licenses/{}/revoke", license.id);
    let revoked: Revoked = rig.admin(Method::POST, &revoke, &json!({"reason": "contract ended"})).await.ok();
    assert_eq!((revoked.running, revoked.not_revocable), (1, 1));
    assert!(rig.resource(Some(&answer.token), KEY_PATH).await.denied()[0].contains("revoked"));
    assert!(attest_launched(&rig, &key, &body).await.denied()[0].contains("revoked"));
}

#[tokio::test]
async fn a_launch_that_the_vendor_did_not_approve_opens_nothing() {
    let rig = Rig::start().await;
    let (license, approved) = approved_launch(&rig).await;
    let key = EphemeralKey::generate().unwrap();
    for body in
        [approved.replace("[data]\n", "[data]\n\"policy.rego\" = \"default allow := true\"\n"), format!("{approved}\n")]
    {
        let reasons = attest_launched(&rig, &key, &body).await.denied();
        assert_eq!(reasons.len(), 1);
        assert!(reasons[0].contains("are none that the vendor approved for product shop"), "{reasons:?}");
    }
    // Approved, but no image that is registered; and none that names no image.
    let other = init_data(&license.token, &MANIFEST.replace('1', "2"));
    approve(&rig, &other).await;
    assert!(attest_launched(&rig, &key, &other).await.denied()[0].contains("registered for no product"));
    let nameless = approved.lines().filter(|line| !line.contains("manifest")).collect::<Vec<_>>().join("\n");
    approve(&rig, &nameless).await;
    let answer: AttestAnswer = attest_launched(&rig, &key, &nameless).await.ok();
    assert!(answer.lease.is_none());
    rig.resource(Some(&answer.token), KEY_PATH).await.denied();
}

#[tokio::test]
async fn initialisation_data_that_the_report_does_not_bind_are_refused() {
    let rig = Rig::start().await;
    let (_, body) = approved_launch(&rig).await;
    let key = EphemeralKey::generate().unwrap();
    attest_claiming(&rig, &rig.guest, &key, &body).await.problem(403, "evidence-rejected");
}

/// For evaluation, where there is no TEE: whoever is a sample may have the key.
const ALLOWS_SAMPLES: &str =
    "package sealift.release\nimport rego.v1\ndefault allow := false\nallow if input.tee.tee == \"sample\"\n";

/// What a stock client sends where there is no TEE.
async fn attest_without_a_tee(rig: &Rig, key: &EphemeralKey, body: &str) -> crate::rig::Answer {
    let request =
        json!({"version": "0.4.0", "tee": "sample", "extra-params": {"supported-hash-algorithms": ["sha384"]}});
    let challenge: Value = rig.post("/kbs/v0/auth", &request).await.ok();
    let runtime_data = json!({"tee-pubkey": public(key), "nonce": challenge["nonce"]});
    let mut bound = runtime_data.clone();
    bound["additional-evidence"] = json!("");
    let digest = Sha384::digest(serde_json_canonicalizer::to_vec(&bound).unwrap());
    let attestation = json!({
        "init-data": {"format": "toml", "body": body},
        "runtime-data": runtime_data,
        "tee-evidence": {
            "primary_evidence": {"svn": "1", "report_data": STANDARD.encode(digest)}, "additional_evidence": "",
        },
    });
    rig.post("/kbs/v0/attest", &attestation).await
}

#[tokio::test]
async fn a_client_without_a_tee_is_simulated_and_opens_what_a_policy_of_the_product_lets_it() {
    let rig = Rig::start().await;
    let (_, body) = approved_launch(&rig).await;
    let key = EphemeralKey::generate().unwrap();
    let reasons = attest_without_a_tee(&rig, &key, &body).await.denied();
    assert_eq!(reasons, ["the client has no TEE, its evidence is a sample: nothing is proven of it"]);

    rig.set_policy(ALLOWS_SAMPLES).await;
    let answer: AttestAnswer = attest_without_a_tee(&rig, &key, &body).await.ok();
    assert!(answer.simulated);
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(answer.token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    let says = &claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["sample"];
    assert_eq!((&says["svn"], &says["simulated"]), (&json!("1"), &json!(true)), "{claims}");
    let released = rig.resource(Some(&answer.token), KEY_PATH).await;
    assert_eq!(key.decrypt(&Jwe::parse(&released.body).unwrap()).unwrap().as_slice(), KEK);
    // Nothing tells samples apart, so that each key counts as a guest, and there is one seat.
    let another = EphemeralKey::generate().unwrap();
    attest_without_a_tee(&rig, &another, &body).await.problem(409, "seats-exhausted");
    for kind in ["lease_granted", "key_released"] {
        assert_eq!(rig.audit_of(kind).await[0]["simulated"], true, "{kind}");
    }
}

#[tokio::test]
async fn a_service_that_accepts_no_simulated_platform_gives_no_sample_a_challenge() {
    let rig = Rig::start_with(Vec::new()).await;
    let request = json!({"version": "0.4.0", "tee": "sample", "extra-params": ""});
    let problem = rig.post("/kbs/v0/auth", &request).await.problem(400, "malformed");
    assert!(problem.detail.contains("evidence of TEE `sample` is not verified here"));
}
