//! The OpenAPI document: served, valid by a validator of others, and about routes that are there.

#[path = "../../../crates/transparency-log/tests/support/python.rs"]
#[expect(clippy::expect_used, reason = "a peer that cannot be set up is a failed test")]
mod python;

use std::process::Command;

use attestation_service::openapi;
use reqwest::Method;
use serde_json::Value;

use crate::limits::limited;

const PEER: &str = "openapi-spec-validator==0.9.0";

#[test]
fn openapi_spec_validator_finds_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let check = |document: &str| {
        let path = directory.path().join("openapi.json");
        std::fs::write(&path, document).unwrap();
        let python = python::with_peer(PEER);
        let told = Command::new(python).args(["-m", "openapi_spec_validator"]).arg(path).output().unwrap();
        (told.status.success(), String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned())
    };
    let (is_valid, said) = check(openapi());
    assert!(is_valid, "{said}");
    let (is_valid, said) = check(&openapi().replacen("\"summary\"", "\"sumary\"", 1));
    assert!(!is_valid, "the validator sees nothing: {said}");
}

#[tokio::test]
async fn anybody_may_read_the_document() {
    let rig = limited(|_| ()).await;
    let answer = rig.send(Method::GET, "/openapi.json", None, None, None).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, openapi().as_bytes()));
}

#[tokio::test]
async fn every_documented_operation_is_answered_as_its_security_says() {
    let rig = limited(|limits| limits.requests_per_second = 0).await;
    let document: Value = serde_json::from_str(openapi()).unwrap();
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let asked = path.replace("{entry}", "1").replace(['{', '}'], "");
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = rig.send(method.clone(), &asked, None, None, Some(Vec::new())).await;
            let text = String::from_utf8_lossy(&answer.body);
            assert!(!text.contains("there is nothing at") && answer.status != 405, "{method} {path}: {text}");
            let is_open = operation["security"].as_array().unwrap().is_empty();
            // Who waits for news without a session, or asks for a log's proof without its sizes, hears something else.
            if is_open {
                assert_ne!(answer.status, 401, "{method} {path}: {text}");
            } else {
                answer.problem(401, "not-attested");
            }
            let documented = operation["responses"].get(answer.status.to_string());
            assert!(documented.is_some(), "{method} {path} is answered by {}", answer.status);
        }
    }
    assert!(operations > 45, "{operations}");
}
