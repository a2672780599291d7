use proptest::prelude::*;
use serde_json::json;

use super::*;

const TYP: &str = "test+jwt";

fn signed(header: &Value, payload: &[u8], key: &SigningKey) -> String {
    let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(payload));
    let signature = base64url(&key.sign_fixed(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn error(token: &str, key: &SigningKey) -> JwsError {
    verify(token, TYP, &[key.verifying_key().clone()]).unwrap_err()
}

#[test]
fn a_token_of_other_code_verifies() {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/data/vectors.json")).unwrap();
    let public = &vectors["keys"]["p256"];
    let key = VerifyingKey::from_spki_pem(public["public"].as_str().unwrap()).unwrap();
    let other = SigningKey::generate().unwrap().verifying_key().clone();
    let token = verify(vectors["jws"].as_str().unwrap(), TYP, &[other, key]).unwrap();
    assert_eq!(token.claims::<Value>().unwrap(), json!({"n": 1}));
    assert_eq!(token.payload(), br#"{"n":1}"#);
    assert_eq!(token.signer(), public["thumbprint"].as_str().unwrap());
}

#[test]
fn extra_members_travel_in_the_header() {
    let key = SigningKey::generate().unwrap();
    let mut extra = Map::new();
    extra.insert("jwk".to_owned(), serde_json::to_value(key.verifying_key().jwk()).unwrap());
    let token = sign_with_header(TYP, &extra, &json!({"a": 1}), &key).unwrap();
    let verified = verify(&token, TYP, &[key.verifying_key().clone()]).unwrap();
    assert_eq!(verified.header()["jwk"], extra["jwk"]);
    assert_eq!(verified.header()["alg"], "ES256");
    for reserved in ["alg", "typ", "crit"] {
        let extra = [(reserved.to_owned(), json!("none"))].into_iter().collect();
        assert!(matches!(sign_with_header(TYP, &extra, &1, &key), Err(JwsError::Header)));
    }
}

#[test]
fn a_header_that_says_anything_else_is_refused() {
    let key = SigningKey::generate().unwrap();
    for alg in [json!("none"), json!("HS256"), json!("es256"), json!(null)] {
        let token = signed(&json!({"alg": alg, "typ": TYP}), b"{}", &key);
        assert!(matches!(error(&token, &key), JwsError::Algorithm));
    }
    let token = signed(&json!({"typ": TYP}), b"{}", &key);
    assert!(matches!(error(&token, &key), JwsError::Algorithm));
    let token = signed(&json!({"alg": "ES256", "typ": TYP, "crit": ["exp"]}), b"{}", &key);
    assert!(matches!(error(&token, &key), JwsError::Header));
    for typ in [json!("other"), json!("TEST+JWT"), json!(null)] {
        let token = signed(&json!({"alg": "ES256", "typ": typ}), b"{}", &key);
        assert!(matches!(error(&token, &key), JwsError::Type { .. }));
    }
    let twice = r#"{"alg":"ES256","typ":"other","typ":"test+jwt"}"#;
    let token = format!("{}.e30.AAAA", base64url(twice.as_bytes()));
    assert!(matches!(error(&token, &key), JwsError::Malformed));
}

#[test]
fn other_spellings_of_a_good_token_are_refused() {
    let key = SigningKey::generate().unwrap();
    let token = sign(TYP, &json!({"ab": 1}), &key).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    // The last character of 64 bytes carries four spare bits, which must be zero.
    let spare = format!(
        "{signed}.{}{}",
        &signature[..85],
        match &signature[85..] {
            "A" => "B",
            "Q" => "R",
            "g" => "h",
            _ => "x",
        }
    );
    for bad in [
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{token}.AAAA"),
        format!("{signed}."),
        signed.to_owned(),
        String::new(),
        "..".to_owned(),
        spare,
    ] {
        assert!(verify(&bad, TYP, &[key.verifying_key().clone()]).is_err(), "{bad}");
    }
}

#[test]
fn a_token_of_nobody_known_is_refused() {
    let key = SigningKey::generate().unwrap();
    let token = sign(TYP, &json!({}), &key).unwrap();
    assert!(matches!(error(&token, &SigningKey::generate().unwrap()), JwsError::Signature));
    assert!(matches!(verify(&token, TYP, &[]), Err(JwsError::Signature)));
    assert!(decode_unverified(&token, TYP).is_ok());
    assert!(matches!(decode_unverified(&token, "other"), Err(JwsError::Type { .. })));
}

#[test]
fn a_payload_with_a_member_twice_is_no_claims() {
    let key = SigningKey::generate().unwrap();
    let token = signed(&json!({"alg": "ES256", "typ": TYP}), br#"{"a":1,"a":2}"#, &key);
    let verified = verify(&token, TYP, &[key.verifying_key().clone()]).unwrap();
    assert!(matches!(verified.claims::<Value>(), Err(JwsError::Payload(_))));
}

#[test]
fn long_tokens_are_neither_made_nor_read() {
    let key = SigningKey::generate().unwrap();
    let payload = "x".repeat(TOKEN_MAX);
    assert!(matches!(sign(TYP, &payload, &key), Err(JwsError::TooLong)));
    assert!(matches!(error(&format!("{payload}x"), &key), JwsError::TooLong));
}

proptest! {
    #[test]
    fn no_changed_byte_verifies(index: prop::sample::Index, flip in 1u8..0x80) {
        let key = SigningKey::generate().unwrap();
        let mut token = sign(TYP, &json!({"a": 1}), &key).unwrap().into_bytes();
        let index = index.index(token.len());
        token[index] ^= flip;
        if let Ok(token) = String::from_utf8(token) {
            prop_assert!(verify(&token, TYP, &[key.verifying_key().clone()]).is_err());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[A-Za-z0-9_=.-]{0,80}") {
        let _ = decode_unverified(&text, TYP);
    }
}
