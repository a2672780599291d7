use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::jwk::{Jwk, KeyError, PublicKey};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/data/vectors.json")).unwrap()
}

fn private(vectors: &Value, name: &str) -> DecryptionKey {
    DecryptionKey::from_pem(vectors["keys"][name]["pkcs8"].as_str().unwrap()).unwrap()
}

fn public(vectors: &Value, name: &str) -> PublicKey {
    PublicKey::from_pem(vectors["keys"][name]["public"].as_str().unwrap()).unwrap()
}

#[test]
fn messages_of_jwcrypto_are_opened() {
    let vectors = vectors();
    for message in vectors["messages"].as_array().unwrap() {
        let name = message["name"].as_str().unwrap();
        let jwe: Jwe = message["text"].as_str().unwrap().parse().unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let key = private(&vectors, message["key"].as_str().unwrap());
        let plain = jwe.decrypt(&key).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(plain.as_slice(), vectors["payload"].as_str().unwrap().as_bytes(), "{name}");
    }
}

#[test]
fn every_algorithm_opens_what_it_closed() {
    use Algorithm::{EcdhEs, EcdhEsA128Kw, EcdhEsA192Kw, EcdhEsA256Kw, RsaOaep, RsaOaep256};
    let vectors = vectors();
    let rsa = [RsaOaep, RsaOaep256];
    let ec = [EcdhEs, EcdhEsA128Kw, EcdhEsA192Kw, EcdhEsA256Kw];
    for (name, algorithms) in [("rsa", &rsa[..]), ("p256", &ec), ("p384", &ec), ("p521", &ec)] {
        for algorithm in algorithms {
            let recipient = Recipient::with_algorithm(public(&vectors, name), *algorithm).unwrap();
            let message = encrypt(b"secret", &[recipient]).unwrap();
            assert_eq!(message.algorithms(), [Some(algorithm.name().to_owned())]);
            let message: Jwe = message.to_json().unwrap().parse().unwrap();
            assert_eq!(message.decrypt(&private(&vectors, name)).unwrap().as_slice(), b"secret");
        }
    }
}

#[test]
fn several_recipients_open_the_same_message() {
    let vectors = vectors();
    let names = ["rsa", "p256", "p521"];
    let recipients = names.map(|name| Recipient::new(public(&vectors, name)));
    let message = encrypt(b"secret", &recipients).unwrap();
    let json: Value = serde_json::to_value(&message).unwrap();
    assert_eq!(json["recipients"].as_array().unwrap().len(), 3);
    assert!(json.get("encrypted_key").is_none());
    let message: Jwe = message.to_string().parse().unwrap();
    for name in names {
        assert_eq!(message.decrypt(&private(&vectors, name)).unwrap().as_slice(), b"secret");
    }
    // For no P-384 key: nothing but another curve's share.
    assert_eq!(message.decrypt(&private(&vectors, "p384")), Err(DecryptError::Unsupported));
}

/// A key broker's answer: its clients serialize the parsed header again, in this order.
#[test]
fn an_answer_to_an_ephemeral_key_has_the_brokers_shape() {
    let guest = EphemeralKey::generate().unwrap();
    let jwk: Jwk = serde_json::from_value(serde_json::to_value(guest.jwk()).unwrap()).unwrap();
    let answer = encrypt(b"a key", &[Recipient::from_jwk(&jwk).unwrap()]).unwrap();
    let text = serde_json::to_string(&answer).unwrap();
    let member = |name: &str| {
        let value: Value = serde_json::from_str(&text).unwrap();
        value[name].as_str().unwrap().to_owned()
    };
    let header = BASE64_URL_SAFE_NO_PAD.decode(member("protected")).unwrap();
    let header = String::from_utf8(header).unwrap();
    let epk = &serde_json::from_str::<Value>(&header).unwrap()["epk"];
    let (x, y) = (epk["x"].as_str().unwrap(), epk["y"].as_str().unwrap());
    assert_eq!(
        header,
        format!(r#"{{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}}}"#)
    );
    let [protected, key, iv, ciphertext, tag] = ["protected", "encrypted_key", "iv", "ciphertext", "tag"].map(member);
    assert_eq!(
        text,
        format!(
            r#"{{"protected":"{protected}","encrypted_key":"{key}","iv":"{iv}","ciphertext":"{ciphertext}","tag":"{tag}"}}"#
        )
    );
    let answer: Jwe = serde_json::from_str(&text).unwrap();
    for _ in 0..2 {
        assert_eq!(guest.decrypt(&answer).unwrap().as_slice(), b"a key");
    }
    let other = EphemeralKey::generate().unwrap();
    assert_eq!(other.decrypt(&answer), Err(DecryptError::Decryption));
    assert_ne!(other.thumbprint(), guest.thumbprint());
}

#[test]
fn an_rsa_client_gets_the_algorithm_of_its_key() {
    let vectors = vectors();
    let mut jwk = public(&vectors, "rsa").to_jwk();
    jwk.algorithm = Some("RSA-OAEP-256".to_owned());
    assert_eq!(Recipient::from_jwk(&jwk).unwrap().algorithm(), Algorithm::RsaOaep256);
    jwk.algorithm = None;
    assert_eq!(Recipient::from_jwk(&jwk).unwrap().algorithm(), Algorithm::RsaOaep);
    for other in ["RSA1_5", "ECDH-ES", "dir"] {
        jwk.algorithm = Some(other.to_owned());
        assert!(matches!(Recipient::from_jwk(&jwk), Err(KeyError::Unsupported { .. })), "{other}");
    }
}

#[test]
fn direct_agreement_and_nobody_are_no_list_of_recipients() {
    let vectors = vectors();
    let direct = Recipient::with_algorithm(public(&vectors, "p256"), Algorithm::EcdhEs).unwrap();
    let several = [direct, Recipient::new(public(&vectors, "rsa"))];
    assert_eq!(encrypt(b"", &several).unwrap_err(), EncryptError::Recipients);
    assert_eq!(encrypt(b"", &[]).unwrap_err(), EncryptError::Recipients);
    let many = vec![Recipient::new(public(&vectors, "p256")); RECIPIENTS_MAX + 1];
    assert_eq!(encrypt(b"", &many).unwrap_err(), EncryptError::Recipients);
}

/// Changes one member of a good message's JSON.
fn changed(change: impl FnOnce(&mut Value)) -> (Result<Jwe, ParseJweError>, EphemeralKey) {
    let guest = EphemeralKey::generate().unwrap();
    let message = encrypt(b"a key", &[Recipient::from_jwk(&guest.jwk()).unwrap()]).unwrap();
    let mut json = serde_json::to_value(&message).unwrap();
    change(&mut json);
    (json.to_string().parse(), guest)
}

fn with_header(change: impl FnOnce(&mut Value)) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let (message, guest) = changed(|json| {
        let header = BASE64_URL_SAFE_NO_PAD.decode(json["protected"].as_str().unwrap()).unwrap();
        let mut header = serde_json::from_slice(&header).unwrap();
        change(&mut header);
        json["protected"] = base64url(header.to_string().as_bytes()).into();
    });
    guest.decrypt(&message.unwrap())
}

#[test]
fn headers_that_would_have_to_be_understood_are_refused() {
    assert_eq!(with_header(|h| h["crit"] = json!(["exp"])), Err(DecryptError::Header));
    assert_eq!(with_header(|h| h["zip"] = json!("DEF")), Err(DecryptError::Header));
    assert_eq!(with_header(|h| h["epk"] = json!({})), Err(DecryptError::Header));
    assert_eq!(with_header(|h| h["apu"] = json!("A")), Err(DecryptError::Header));
    assert_eq!(with_header(|h| h["alg"] = json!(1)), Err(DecryptError::Header));
    for (member, other) in [("alg", "RSA-OAEP"), ("alg", "dir"), ("enc", "A256CBC-HS512")] {
        assert_eq!(with_header(|h| h[member] = json!(other)), Err(DecryptError::Unsupported), "{other}");
    }
    for (member, other) in [("alg", "ECDH-ES"), ("alg", "ECDH-ES+A128KW"), ("enc", "A128GCM")] {
        assert_eq!(with_header(|h| h[member] = json!(other)), Err(DecryptError::Decryption), "{other}");
    }
    // The same header in other bytes is another message: they are authenticated as received.
    assert_eq!(with_header(|h| h["x"] = json!(1)), Err(DecryptError::Decryption));
    let (message, guest) = changed(|json| json["header"] = json!({"alg": "ECDH-ES+A256KW"}));
    assert_eq!(guest.decrypt(&message.unwrap()), Err(DecryptError::Header));
    let (message, guest) = changed(|json| json["aad"] = json!("AAAA"));
    assert_eq!(guest.decrypt(&message.unwrap()), Err(DecryptError::Decryption));
}

#[test]
fn a_short_tag_or_iv_does_not_open() {
    for member in ["tag", "iv"] {
        let (message, guest) = changed(|json| json[member] = json!("AAAA"));
        assert_eq!(guest.decrypt(&message.unwrap()), Err(DecryptError::Decryption));
    }
}

#[test]
fn texts_that_are_no_message_are_refused() {
    let (message, _) = changed(|json| json["iv"] = json!("A="));
    assert!(matches!(message, Err(ParseJweError::Base64)));
    let (message, _) = changed(|json| json["recipients"] = json!([]));
    assert!(matches!(message, Err(ParseJweError::Recipients)));
    let share = json!({"header": {}, "encrypted_key": "AAAA"});
    let (message, _) = changed(|json| json["recipients"] = vec![share; RECIPIENTS_MAX + 1].into());
    assert!(matches!(message, Err(ParseJweError::Recipients)));
    let (message, _) = changed(|json| {
        json["header"] = json!({});
        json["recipients"] = json!([{}]);
    });
    assert!(matches!(message, Err(ParseJweError::Recipients)));
    for text in ["{}", "", "a.b.c.d", "a.b.c.d.e.f", r#"{"ciphertext":"","ciphertext":""}"#] {
        assert!(text.parse::<Jwe>().is_err(), "{text}");
    }
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(Jwe::TEXT_MAX));
    assert!(matches!(long.parse::<Jwe>(), Err(ParseJweError::TooLong)));
}

#[test]
fn a_private_key_is_not_printed() {
    let key = private(&vectors(), "p256");
    assert!(format!("{key:?}").contains("[redacted]"));
}

proptest! {
    #[test]
    fn any_payload_survives(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let guest = EphemeralKey::generate().unwrap();
        let message = encrypt(&payload, &[Recipient::from_jwk(&guest.jwk()).unwrap()]).unwrap();
        let message: Jwe = message.to_string().parse().unwrap();
        let plain = guest.decrypt(&message).unwrap();
        prop_assert_eq!(plain.as_slice(), payload.as_slice());
    }

    #[test]
    fn no_changed_part_opens(
        member in prop::sample::select(vec!["encrypted_key", "iv", "ciphertext", "tag"]),
        index: prop::sample::Index,
        flip in 1u8..,
    ) {
        let (message, guest) = changed(|json| {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(json[member].as_str().unwrap()).unwrap();
            let index = index.index(bytes.len());
            bytes[index] ^= flip;
            json[member] = base64url(&bytes).into();
        });
        prop_assert_eq!(guest.decrypt(&message.unwrap()), Err(DecryptError::Decryption));
    }

    #[test]
    fn any_text_is_read_or_refused(
        text in r#"\{("protected":"[AQg]{0,4}",?)?("recipients":\[(\{\},?){0,2}\],?)?("ciphertext":"")?\}|[A-Z.]{0,9}"#,
    ) {
        if let Ok(message) = text.parse::<Jwe>() {
            let _ = message.algorithms();
            let again: Jwe = message.to_string().parse().unwrap();
            prop_assert_eq!(again, message);
        }
    }
}
