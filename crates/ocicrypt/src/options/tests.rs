use proptest::prelude::*;

use super::*;

/// As skopeo 1.9.3 wrote them, with other values.
const PUBLIC: &str =
    r#"{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"QhR1J18zWjqOFQYxNpNRZ2eX1u6f873OAiugCvdP0t0=","cipheroptions":{}}"#;
const PRIVATE: &str = r#"{"symkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","digest":"sha256:56fee4b12b280ea1e7c1b550002bb18b342ccbd7229cd4b147ea07aa1a691294","cipheroptions":{"nonce":"EBESExQVFhcYGRobHB0eHw=="}}"#;

#[test]
fn options_are_written_as_they_came() {
    let public = PublicOptions::from_json(PUBLIC.as_bytes()).unwrap();
    assert_eq!(public.to_json(), PUBLIC);
    let again = PublicOptions::from_annotation(&public.to_annotation()).unwrap();
    assert_eq!(again.to_json(), PUBLIC);
    assert_eq!(again.cipher(), "AES_256_CTR_HMAC_SHA256");
    let private = PrivateOptions::from_json(PRIVATE.as_bytes()).unwrap();
    assert_eq!(private.to_json().as_str(), PRIVATE);
    assert_eq!(private.key.expose()[31], 0x1f);
    assert_eq!(private.nonce.expose()[0], 0x10);
}

#[test]
fn missing_public_cipher_options_are_none() {
    for options in [r#","cipheroptions":null"#, ""] {
        let json = PUBLIC.replace(r#","cipheroptions":{}"#, options);
        assert!(PublicOptions::from_json(json.as_bytes()).is_ok(), "{json}");
    }
}

#[test]
fn any_public_cipher_option_is_refused() {
    for option in ["nonce", "symkey", "x"] {
        let json = PUBLIC.replace("{}", &format!(r#"{{"{option}":"EBESExQVFhcYGRobHB0eHw=="}}"#));
        let error = PublicOptions::from_json(json.as_bytes()).unwrap_err();
        assert!(matches!(error, OptionsError::PublicCipherOption { name } if name == option));
    }
}

#[test]
fn public_options_that_are_none_are_refused() {
    let error = |from: &str, to: &str| {
        let json = PUBLIC.replace(from, to);
        assert_ne!(json, PUBLIC);
        PublicOptions::from_json(json.as_bytes()).unwrap_err()
    };
    assert!(matches!(error("AES_256", "AES_128"), OptionsError::Cipher(CipherError::UnknownCipher { .. })));
    assert!(matches!(error("QhR1J1", ""), OptionsError::Base64 | OptionsError::Length { .. }));
    assert!(matches!(error("0t0=", "0t0"), OptionsError::Base64));
    assert!(matches!(error(r#""hmac""#, r#""mac""#), OptionsError::Json));
    assert!(matches!(error(r#""hmac""#, r#""symkey":"","hmac""#), OptionsError::Json));
    assert!(matches!(error(r#""hmac""#, r#""hmac":"","hmac""#), OptionsError::Json));
    assert!(matches!(error("{}}", "{}} {}"), OptionsError::Json));
    let empty = PUBLIC.replace("QhR1J18zWjqOFQYxNpNRZ2eX1u6f873OAiugCvdP0t0=", "");
    let empty = PublicOptions::from_json(empty.as_bytes()).unwrap_err();
    assert!(matches!(empty, OptionsError::Length { member: "hmac", expected: 32 }));
    let long = " ".repeat(JSON_MAX + 1);
    assert!(matches!(PublicOptions::from_json(long.as_bytes()), Err(OptionsError::TooLong)));
    let long = "A".repeat(JSON_MAX * 2);
    assert!(matches!(PublicOptions::from_annotation(&long), Err(OptionsError::TooLong)));
    assert!(matches!(PublicOptions::from_annotation("?"), Err(OptionsError::Base64)));
}

#[test]
fn private_options_that_are_none_are_refused() {
    let error = |from: &str, to: &str| {
        let json = PRIVATE.replace(from, to);
        assert_ne!(json, PRIVATE);
        PrivateOptions::from_json(json.as_bytes()).unwrap_err()
    };
    assert!(matches!(error("AAECAwQF", "AAEC"), OptionsError::Length { member: "symkey", .. }));
    assert!(matches!(error("EBESExQV", "EBES"), OptionsError::Length { member: "nonce", .. }));
    assert!(matches!(error(r#"{"nonce":"EBESExQVFhcYGRobHB0eHw=="}"#, "{}"), OptionsError::Length { .. }));
    assert!(matches!(error(r#"{"nonce":"EBESExQVFhcYGRobHB0eHw=="}"#, "null"), OptionsError::Length { .. }));
    assert!(matches!(error(r#""nonce""#, r#""x":"","nonce""#), OptionsError::Json));
    assert!(matches!(error(r#""nonce""#, r#""nonce":"","nonce""#), OptionsError::Json));
    assert!(matches!(error("sha256:56", "sha256:5"), OptionsError::Digest));
    assert!(matches!(error("sha256:", "sha512:"), OptionsError::Digest));
}

#[test]
fn an_error_shows_nothing_of_the_options() {
    let json = PRIVATE.replace("AAECAwQF", "AAEC");
    let error = PrivateOptions::from_json(json.as_bytes()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("AAEC"));
}

proptest! {
    #[test]
    fn any_values_survive(key: [u8; 32], nonce: [u8; 16], digest: [u8; 32], mac: [u8; 32]) {
        let private = PrivateOptions {
            key: LayerKey::try_from(&key[..]).unwrap(),
            nonce: Nonce::try_from(&nonce[..]).unwrap(),
            digest: Digest::from_bytes(digest),
        };
        let again = PrivateOptions::from_json(private.to_json().as_bytes()).unwrap();
        prop_assert_eq!(again.key.expose(), &key);
        prop_assert_eq!(again.nonce.expose(), &nonce);
        prop_assert_eq!(again.plain_digest(), Digest::from_bytes(digest));
        let public = PublicOptions::new(Mac::from_bytes(mac));
        let again = PublicOptions::from_annotation(&public.to_annotation()).unwrap();
        prop_assert_eq!(again.hmac().as_bytes(), &mac);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = PublicOptions::from_json(&bytes);
        let _ = PrivateOptions::from_json(&bytes);
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(index: prop::sample::Index, byte: u8) {
        for text in [PUBLIC, PRIVATE] {
            let mut bytes = text.as_bytes().to_vec();
            let index = index.index(bytes.len());
            bytes[index] = byte;
            let _ = PublicOptions::from_json(&bytes);
            let _ = PrivateOptions::from_json(&bytes);
        }
    }
}
