//! A stock key broker client: no members of ours, a cookie for a session, `tee-pubkey` and `nonce` bound and no more.

use jose::jwe::EphemeralKey;
use release_protocol::report_data;
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::public;
use crate::rig::{KEY_PATH, Rig};

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
