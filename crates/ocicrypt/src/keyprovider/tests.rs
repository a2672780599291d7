use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::secret::KeyEncryptionKey;

const PLAIN: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn options() -> String {
    let (key, nonce) = (base64([1; 32]), base64([2; 16]));
    json!({"symkey": key, "digest": PLAIN, "cipheroptions": {"nonce": nonce}}).to_string()
}

/// What skopeo 1.18 writes for `--encryption-key provider:attestation-agent:shop`, beside a recipient's public key.
fn wrap() -> Value {
    json!({
        "op": "keywrap",
        "keywrapparams": {
            "ec": {
                "Parameters": {PROVIDER: [base64("shop")], "pubkeys": [base64("a public key")]},
                "DecryptConfig": {"Parameters": {}},
            },
            "optsdata": base64(options()),
        },
        "keyunwrapparams": {"dc": null, "annotation": null},
    })
}

fn packet() -> (KeyEncryptionKey, BrokerPacket) {
    let kek = KeyEncryptionKey::generate().unwrap();
    let private = PrivateOptions::from_json(options().as_bytes()).unwrap();
    let packet = BrokerPacket::seal(&"kbs:///shop/image-key/1".parse().unwrap(), &kek, &private).unwrap();
    (kek, packet)
}

fn unwrap() -> Value {
    json!({
        "op": "keyunwrap",
        "keywrapparams": {"ec": null, "optsdata": null},
        "keyunwrapparams": {"dc": {"Parameters": {PROVIDER: [base64("x")]}}, "annotation": base64(packet().1.to_json())},
    })
}

fn read(message: &Value) -> Result<Request, KeyProviderError> {
    Request::from_json(message.to_string().as_bytes())
}

#[test]
fn a_layer_key_and_the_parameter_are_read() {
    let Request::Wrap(request) = read(&wrap()).unwrap() else { panic!("not what was written") };
    assert_eq!(request.parameter.as_deref(), Some("shop"));
    assert_eq!(request.private.plain_digest().to_string(), PLAIN);
    assert_eq!(request.private.to_json().as_str(), options_in_order());
    assert!(!format!("{request:?}").contains(&base64([1; 32])));

    let mut message = wrap();
    message["keywrapparams"]["ec"]["Parameters"][PROVIDER] = json!([base64("Enabled")]);
    let Request::Wrap(request) = read(&message).unwrap() else { panic!("not what was written") };
    assert_eq!(request.parameter, None);
}

#[test]
fn the_provider_goes_by_either_of_its_names() {
    for parameters in
        [json!({OWN_PROVIDER: [base64("shop")]}), json!({OWN_PROVIDER: [base64("shop")], PROVIDER: [base64("shop")]})]
    {
        let mut message = wrap();
        message["keywrapparams"]["ec"]["Parameters"] = parameters;
        let Request::Wrap(request) = read(&message).unwrap() else { panic!("not what was written") };
        assert_eq!(request.parameter.as_deref(), Some("shop"));
    }
}

fn options_in_order() -> String {
    let (key, nonce) = (base64([1; 32]), base64([2; 16]));
    format!(r#"{{"symkey":"{key}","digest":"{PLAIN}","cipheroptions":{{"nonce":"{nonce}"}}}}"#)
}

#[test]
fn a_packet_goes_through_both_messages_and_opens() {
    let (kek, packet) = packet();
    let answer = Answer::Wrapped(packet);
    let answer: Value = serde_json::from_str(&answer.to_json()).unwrap();
    let mut message = unwrap();
    message["keyunwrapparams"]["annotation"] = answer["keywrapresults"]["annotation"].clone();
    for dc in [json!(null), json!({"Parameters": null}), json!({"Parameters": {"privkeys": [base64("another's")]}})] {
        message["keyunwrapparams"]["dc"] = dc;
        let Request::Unwrap(UnwrapRequest { parameter: None, packet: Packet::Broker(packet) }) =
            read(&message).unwrap()
        else {
            panic!("not what was written")
        };
        let answer = Answer::Unwrapped(PrivateOptions::from_json(&packet.open(&kek).unwrap()).unwrap());
        assert_eq!(format!("{answer:?}"), "Unwrapped(PrivateOptions([redacted]))");
        let answer: Value = serde_json::from_str(&answer.to_json()).unwrap();
        assert_eq!(answer, json!({"keyunwrapresults": {"optsdata": base64(options_in_order())}}));
    }
}

#[test]
fn what_cannot_be_answered_is_refused_with_its_reason() {
    let cases = [
        ("/op", json!("keyrotate"), "this is no message"),
        ("/keywrapparams/optsdata", json!(null), "the message has no `optsdata`"),
        ("/keywrapparams/optsdata", json!("?"), "the member `optsdata` of the message is no base64"),
        ("/keywrapparams/optsdata", json!(base64("{}")), "what is to be wrapped is not the key of a layer"),
        ("/keywrapparams/optsdata", json!("A".repeat(PAYLOAD_MAX + 4)), "the message or its member `optsdata`"),
        ("/keywrapparams/ec", json!(null), "the message has no `ec`"),
        ("/keywrapparams/ec/Parameters", json!({"other": ["QQ=="]}), "the key provider is named neither"),
        (
            "/keywrapparams/ec/Parameters",
            json!({PROVIDER: ["QQ=="], OWN_PROVIDER: ["Qg=="]}),
            "the parameter of the key provider",
        ),
        ("/keywrapparams/ec/Parameters/attestation-agent", json!([]), "the parameter of the key provider"),
        (
            "/keywrapparams/ec/Parameters/attestation-agent",
            json!(["QQ==", "Qg=="]),
            "the parameter of the key provider",
        ),
        ("/keywrapparams/ec/Parameters/attestation-agent", json!(["/w=="]), "the parameter of the key provider"),
        ("/keywrapparams/ec/Parameters/attestation-agent", json!(["?"]), "the member `Parameters`"),
    ];
    for (pointer, value, words) in cases {
        let mut message = wrap();
        *message.pointer_mut(pointer).unwrap() = value;
        let error = read(&message).unwrap_err().to_string();
        assert!(error.starts_with(words), "{pointer}: {error}");
    }
    let mut message = unwrap();
    message["keyunwrapparams"]["annotation"] = json!(base64("{}"));
    assert!(matches!(read(&message), Err(KeyProviderError::Packet(_))));
    let long = vec![b' '; INPUT_MAX + 1];
    assert!(matches!(Request::from_json(&long), Err(KeyProviderError::TooLong(_))));
    assert!(matches!(Request::read(std::io::repeat(b' ')), Err(KeyProviderError::TooLong(_))));
    assert!(Request::read(wrap().to_string().as_bytes()).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(Request::from_json(&bytes).is_err());
    }

    #[test]
    fn a_message_with_a_changed_byte_is_read_or_refused(at in 0..300usize, byte in any::<u8>(), other in any::<bool>()) {
        let mut message = if other { unwrap() } else { wrap() }.to_string().into_bytes();
        let at = at % message.len();
        message[at] = byte;
        // What is believed has a checked key or packet inside, whatever else the byte did.
        if let Ok(Request::Wrap(request)) = Request::from_json(&message) {
            prop_assert!(PrivateOptions::from_json(request.private.to_json().as_bytes()).is_ok());
        }
    }

    #[test]
    fn any_parameter_is_read_as_it_was_given(text in "[^\\x00]{0,64}") {
        let mut message = wrap();
        message["keywrapparams"]["ec"]["Parameters"][PROVIDER] = json!([base64(&text)]);
        let Request::Wrap(request) = read(&message).unwrap() else { panic!("not what was written") };
        prop_assert_eq!(request.parameter, (text != "Enabled").then_some(text));
    }
}
