//! A stock key broker client: no members of ours, a cookie for a session, `tee-pubkey` and `nonce` bound and no more.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use jose::jwe::{DecryptionKey, EphemeralKey, Jwe};
use release_protocol::{AttestAnswer, report_data};
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::{Guest, attest, challenge, prove, public};
use crate::rig::{KEK, KEY_PATH, Rig};

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
