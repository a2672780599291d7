use serde_json::{Value, json};

use super::*;
use crate::jwe::DecryptionKey;

/// `tests/data/make.py` says how they were made.
fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/data/vectors.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn pem_jwk_and_thumbprint_agree_with_jwcrypto() {
    for (name, key) in vectors()["keys"].as_object().unwrap() {
        let public = PublicKey::from_pem(text(&key["public"])).unwrap();
        assert_eq!(public.thumbprint(), text(&key["thumbprint"]), "{name}");
        assert_eq!(public.to_spki_pem().unwrap(), text(&key["public"]), "{name}");
        let jwk: Jwk = serde_json::from_value(key["jwk"].clone()).unwrap();
        assert_eq!(jwk.key, public, "{name}");
        assert_eq!(serde_json::to_value(jwk).unwrap(), key["jwk"], "{name}");
    }
}

#[test]
fn private_keys_of_all_forms_have_the_public_half() {
    for (name, key) in vectors()["keys"].as_object().unwrap() {
        let public = PublicKey::from_pem(text(&key["public"])).unwrap();
        for form in ["pkcs8", "traditional"] {
            let private = DecryptionKey::from_pem(text(&key[form])).unwrap();
            assert_eq!(*private.public_key(), public, "{name} {form}");
        }
        let encrypted = DecryptionKey::from_pem(text(&key["encrypted"]));
        assert_eq!(encrypted.unwrap_err(), KeyError::Encrypted, "{name}");
        let as_public = PublicKey::from_pem(text(&key["pkcs8"]));
        assert_eq!(as_public.unwrap_err(), KeyError::Private, "{name}");
    }
}

/// RFC 7638 §3.1.
#[test]
fn thumbprint_is_that_of_rfc_7638() {
    let jwk: Jwk = serde_json::from_value(json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZ\
              CiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZ\
              gnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIq\
              bw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"
    }))
    .unwrap();
    assert_eq!(jwk.key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(jwk.key_id.as_deref(), Some("2011-04-29"));
}

/// The `tee-pubkey` of a key broker client, byte for byte.
#[test]
fn a_key_broker_clients_key_is_written_as_it_came() {
    let text = r#"{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"NHKj6Q8rr_zAuuMfBP-nYrXVdF_Id0Aa4cccXPZy3bA","y":"VytMTjbKDUOAfGL4Q7fiFrHC-XRUVhJIvy4IOHHL0W8"}"#;
    let jwk: Jwk = serde_json::from_str(text).unwrap();
    assert_eq!(jwk.algorithm.as_deref(), Some("ECDH-ES+A256KW"));
    assert_eq!(serde_json::to_string(&jwk).unwrap(), text);
}

#[test]
fn a_certificate_gives_its_key() {
    let certificate = PublicKey::from_pem(include_str!("../../tests/data/cert.pem")).unwrap();
    let key = PublicKey::from_pem(include_str!("../../tests/data/cert.pub.pem")).unwrap();
    assert_eq!(certificate, key);
}

#[test]
fn keys_that_are_none_are_refused() {
    let good = vectors()["keys"]["p256"]["jwk"].clone();
    let with = |member: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[member] = value;
        jwk
    };
    let x = text(&good["x"]);
    for bad in [
        with("x", good["y"].clone()),
        with("x", json!(x[..42])),
        with("x", json!(format!("{x}="))),
        with("x", json!(null)),
        with("crv", json!("P-384")),
        with("crv", json!("secp256k1")),
        with("kty", json!("oct")),
        with("d", good["x"].clone()),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "n": "AQAB"}),
    ] {
        assert!(serde_json::from_value::<Jwk>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn der_that_is_no_public_key_is_refused() {
    let spki = PublicKey::from_pem(text(&vectors()["keys"]["p256"]["public"])).unwrap().to_spki_der().unwrap();
    let point = &spki[spki.len() - 65..];
    for bad in [&[][..], point, &spki[..spki.len() - 1], &[0x30, 0]] {
        assert_eq!(PublicKey::from_der(bad).unwrap_err(), KeyError::Malformed);
    }
    assert!(matches!(
        PublicKey::from_pem("-----BEGIN X-----\nAAAA\n-----END X-----"),
        Err(KeyError::Unsupported { .. })
    ));
}

#[test]
fn a_point_is_compressed_or_not_but_never_hybrid() {
    let key = PublicKey::from_pem(text(&vectors()["keys"]["p256"]["public"])).unwrap();
    let uncompressed = key.to_spki_der().unwrap();
    let (header, point) = uncompressed.split_at(uncompressed.len() - 65);
    let parity = point[64] & 1;

    // 32 bytes fewer: in the whole, and in the bit string.
    let mut compressed = [header, &[2 + parity], &point[1..33]].concat();
    compressed[1] -= 32;
    compressed[24] -= 32;
    assert_eq!(PublicKey::from_der(&compressed).unwrap(), key);

    let hybrid = [header, &[6 + parity], &point[1..]].concat();
    assert_eq!(PublicKey::from_der(&hybrid).unwrap_err(), KeyError::Malformed);
}

/// Every value of every byte: by chance, what is wrong with one of them shows in one run of a hundred.
#[test]
fn a_changed_key_is_another_or_none() {
    let key = PublicKey::from_pem(text(&vectors()["keys"]["p256"]["public"])).unwrap();
    let good = key.to_spki_der().unwrap();
    for index in 0..good.len() {
        for flip in 1..=255 {
            let mut der = good.clone();
            der[index] ^= flip;
            assert_ne!(PublicKey::from_der(&der).ok(), Some(key.clone()), "byte {index} flipped by {flip:#x}");
        }
    }
}
