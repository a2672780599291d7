use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use release_protocol::{Challenge, Request, Tee};
use serde_json::{Value, json};

use super::text;
use crate::store::AuditEntry;

fn document() -> Value {
    serde_json::from_str(text()).unwrap()
}

fn members(of: &Value) -> BTreeSet<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_frozen_copy_is_what_the_service_answers_now() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let frozen = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        frozen == text(),
        "the API has changed: look at the difference after `sealift openapi > attestation-service/openapi.json`"
    );
}

/// What is registered in this way is in the document; nothing is registered in another.
#[test]
fn every_route_is_registered_together_with_its_description() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut sources = vec![folder.with_extension("rs")];
    sources.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    assert!(sources.len() > 10);
    for source in sources {
        let text = std::fs::read_to_string(&source).unwrap();
        for other in [".route(", "routing::", ".route_service(", ".nest_service("] {
            assert!(!text.contains(other), "{} has `{other}`", source.display());
        }
    }
}

#[test]
fn every_operation_has_its_own_id_and_says_what_it_does_and_who_may() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} twice");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{method} {path}");
            let roles = operation["security"].as_array().unwrap();
            assert_eq!(roles.iter().any(|role| role["token"][0] == "admin"), super::finish::needs_role(path), "{path}");
        }
    }
    let operation = |path: &str, method: &str| &document["paths"][path][method];
    assert_eq!(
        operation("/api/v1/licenses", "post")["security"],
        json!([{"token": ["admin"]}, {"token": ["licensing"]}])
    );
    assert_eq!(operation("/api/v1/tokens", "post")["security"], json!([{"token": ["admin"]}]));
    assert_eq!(operation("/kbs/v0/auth", "post")["security"], json!([]));
    let seats = operation("/kbs/v0/attest", "post")["responses"]["409"]["description"].as_str().unwrap();
    assert!(seats.starts_with("`seats-exhausted`"), "{seats}");
}

#[test]
fn schemas_of_foreign_types_have_their_members() {
    let document = document();
    let schema = |name: &str| members(&document["components"]["schemas"][name]["properties"]);
    let request = Request { version: String::new(), tee: Tee::Snp, extra_params: Value::Null };
    assert_eq!(schema("AuthRequest"), members(&serde_json::to_value(request).unwrap()));
    let challenge = Challenge { nonce: String::new(), extra_params: Value::Null };
    assert_eq!(schema("AuthChallenge"), members(&serde_json::to_value(challenge).unwrap()));
    let entry = AuditEntry {
        sequence: 1,
        at: Timestamp::UNIX_EPOCH,
        kind: String::new(),
        body: Value::Null,
        salt: String::new(),
    };
    assert_eq!(schema("AuditEntry"), members(&serde_json::to_value(entry).unwrap()));
    let key = jose::jwe::EphemeralKey::generate().unwrap();
    let guest = jose::jwe::Recipient::from_jwk(&key.jwk()).unwrap();
    let resource = jose::jwe::encrypt(b"key", &[guest]).unwrap().to_json().unwrap();
    let resource: Value = serde_json::from_str(&resource).unwrap();
    assert_eq!(schema("EncryptedResource"), members(&resource));
}

#[test]
fn descriptions_have_no_links_that_lead_nowhere() {
    assert!(!text().contains("[`"));
}
