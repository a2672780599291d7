use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/data/vectors.json")).unwrap()
}

#[test]
fn a_signature_of_other_code_verifies() {
    let vectors = vectors();
    let key = VerifyingKey::from_spki_pem(vectors["keys"]["p256"]["public"].as_str().unwrap()).unwrap();
    let signature = BASE64_STANDARD.decode(vectors["der"].as_str().unwrap()).unwrap();
    assert_eq!(key.verify_der(b"a message", &signature), Ok(()));
    assert_eq!(key.verify_der(b"another message", &signature), Err(BadSignature));
}

#[test]
fn both_encodings_verify_as_themselves_only() {
    let key = SigningKey::generate().unwrap();
    let (der, fixed) = (key.sign_der(b"m").unwrap(), key.sign_fixed(b"m").unwrap());
    let public = key.verifying_key();
    assert_eq!(public.verify_der(b"m", &der), Ok(()));
    assert_eq!(public.verify_fixed(b"m", &fixed), Ok(()));
    assert_eq!(fixed.len(), 64);
    assert_eq!(public.verify_der(b"m", &fixed), Err(BadSignature));
    assert_eq!(public.verify_fixed(b"m", &der), Err(BadSignature));
    let other = SigningKey::generate().unwrap();
    assert_eq!(other.verifying_key().verify_der(b"m", &der), Err(BadSignature));
}

#[test]
fn keys_survive_pem() {
    let key = SigningKey::generate().unwrap();
    let again = SigningKey::from_pkcs8_pem(&key.to_pkcs8_pem().unwrap()).unwrap();
    assert_eq!(again.verifying_key(), key.verifying_key());
    let public = VerifyingKey::from_spki_pem(&key.verifying_key().to_spki_pem().unwrap()).unwrap();
    assert_eq!(public, *key.verifying_key());
    assert_eq!(public.jwk().algorithm.as_deref(), Some("ES256"));
}

#[test]
fn sec1_keys_are_read_where_they_are_allowed() {
    let vectors = vectors();
    let key = &vectors["keys"]["p256"];
    let pem = key["traditional"].as_str().unwrap();
    let read = SigningKey::from_pem(pem).unwrap();
    assert_eq!(read.verifying_key().thumbprint(), key["thumbprint"].as_str().unwrap());
    assert!(matches!(SigningKey::from_pkcs8_pem(pem), Err(KeyError::Unsupported { .. })));
    // With a block of parameters before the key.
    SigningKey::from_pem(include_str!("../../tests/data/ecparam.pem")).unwrap();
}

#[test]
fn other_curves_and_kinds_are_refused() {
    let vectors = vectors();
    for name in ["p384", "p521", "rsa"] {
        let key = &vectors["keys"][name];
        let private = SigningKey::from_pem(key["pkcs8"].as_str().unwrap());
        assert_eq!(private.unwrap_err(), KeyError::Malformed, "{name}");
        let public = VerifyingKey::from_spki_pem(key["public"].as_str().unwrap());
        assert!(matches!(public, Err(KeyError::Unsupported { .. })), "{name}");
    }
    let encrypted = vectors["keys"]["p256"]["encrypted"].as_str().unwrap();
    assert_eq!(SigningKey::from_pem(encrypted).unwrap_err(), KeyError::Encrypted);
}

#[test]
fn a_private_key_is_not_printed() {
    let key = SigningKey::generate().unwrap();
    let pem = key.to_pkcs8_pem().unwrap();
    let printed = format!("{key:?} {key:#?}");
    assert!(printed.contains("[redacted]"));
    for line in pem.lines().filter(|line| !line.starts_with('-')) {
        assert!(!printed.contains(line));
    }
}
