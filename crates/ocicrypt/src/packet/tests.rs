use proptest::prelude::*;

use super::*;

/// AES-256-GCM of Python's `cryptography`: the private options of `options/tests.rs`, key 40…5f,
/// initialization vector 01…0c.
const V1: &str = r#"{"kid":"kbs:///product/image-key/1","wrapped_data":"3QgmSUdP0gxszcVMBdpA98llHCYCtOF/jzcOxJ5foE5lwkYpIUDdzrIhgvSKbCRg6OLV4DigzcXKs42YG8kV8dOG1LCR7kv7TA31zeq/kr3nqCOEZlh2GlGZoqOEmGerEsDIsbSHhRYnR0QZh2XM1/MO3ZKH3z4cp79mzaej72WUcJRQFr6r6/lG9P22mtsBhCi5Eqi/OH4OHPXJbPec1qV+YwsOZzbxwbyvkgycXlDt/uoiIeNf8A4vCK3JAyRMhSsjDkuI335DDWUujd1+LLI=","iv":"AQIDBAUGBwgJCgsM","wrap_type":"A256GCM"}"#;
const PRIVATE: &str = r#"{"symkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","digest":"sha256:56fee4b12b280ea1e7c1b550002bb18b342ccbd7229cd4b147ea07aa1a691294","cipheroptions":{"nonce":"EBESExQVFhcYGRobHB0eHw=="}}"#;

fn kek(first: u8) -> KeyEncryptionKey {
    let bytes: Vec<u8> = (first..).take(32).collect();
    KeyEncryptionKey::try_from(&bytes[..]).unwrap()
}

fn broker(json: &str) -> BrokerPacket {
    match Packet::from_json(json.as_bytes()).unwrap() {
        Packet::Broker(packet) => packet,
        Packet::Unsupported(packet) => panic!("unsupported: {packet}"),
    }
}

#[test]
fn a_packet_is_that_of_other_code() {
    let kid = "kbs:///product/image-key/1".parse().unwrap();
    let iv = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let packet = BrokerPacket::seal_with_iv(&kid, &kek(64), PRIVATE.as_bytes(), iv).unwrap();
    assert_eq!(packet.to_json(), V1);
    assert_eq!(broker(V1).open(&kek(64)).unwrap().as_slice(), PRIVATE.as_bytes());
}

#[test]
fn version_2_is_read() {
    let v2 =
        V1.replace(r#"{"kid""#, r#"{"version":"0.1.0","provider":"kbs","provider_settings":{},"annotations":{},"kid""#);
    let packet = broker(&v2);
    assert_eq!(packet.kid().as_str(), "kbs:///product/image-key/1");
    assert!(packet.open(&kek(64)).is_some());
    assert_eq!(packet.to_json(), V1);
}

#[test]
fn another_key_or_a_changed_packet_does_not_open() {
    assert!(broker(V1).open(&kek(65)).is_none());
    for (from, to) in [("3QgmSU", "3QgmSV"), ("AQIDBA", "AQIDBB")] {
        assert!(broker(&V1.replace(from, to)).open(&kek(64)).is_none(), "{from}");
    }
    let (head, rest) = V1.split_once("3Qgm").unwrap();
    let (_, tail) = rest.split_once('"').unwrap();
    assert!(broker(&format!("{head}\"{tail}")).open(&kek(64)).is_none());
}

#[test]
fn packets_of_other_kinds_are_told_apart() {
    for (from, to) in [
        ("A256GCM", "A256CTR"),
        (r#","wrap_type":"A256GCM""#, ""),
        (r#"{"kid""#, r#"{"provider":"aliyun","kid""#),
        (r#"{"kid""#, r#"{"version":"0.2.0","kid""#),
        ("kbs:///", "kbs+pkcs11:///"),
    ] {
        let packet = Packet::from_json(V1.replace(from, to).as_bytes()).unwrap();
        assert!(matches!(packet, Packet::Unsupported(_)), "{to}");
    }
}

#[test]
fn packets_that_are_none_are_refused() {
    let error = |from: &str, to: &str| {
        let json = V1.replace(from, to);
        assert_ne!(json, V1);
        Packet::from_json(json.as_bytes()).unwrap_err()
    };
    assert!(matches!(error("AQID", ""), PacketError::Iv));
    assert!(matches!(error("AQID", "AQI="), PacketError::Base64));
    assert!(matches!(error("3QgmSU", "3Qgm-U"), PacketError::Base64));
    assert!(matches!(error("image-key/1", "image-key"), PacketError::Kid(_)));
    assert!(matches!(error(r#""iv""#, r#""iv":"","iv""#), PacketError::Json(_)));
    assert!(matches!(error(r#""kid""#, r#""id""#), PacketError::Json(_)));
    assert!(matches!(Packet::from_json(&vec![b' '; PACKET_MAX + 1]), Err(PacketError::TooLong)));
    assert!(matches!(Packet::from_annotation(&"A".repeat(PACKET_MAX * 2)), Err(PacketError::TooLong)));
    assert!(matches!(Packet::from_annotation("?"), Err(PacketError::Base64)));
}

#[test]
fn two_packets_never_share_an_initialization_vector() {
    let private = PrivateOptions::from_json(PRIVATE.as_bytes()).unwrap();
    let kid = "kbs:///product/image-key/1".parse().unwrap();
    let seal = || BrokerPacket::seal(&kid, &kek(0), &private).unwrap();
    assert_ne!(seal().iv, seal().iv);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Packet::from_json(&bytes);
    }

    #[test]
    fn a_changed_byte_never_opens_as_another(index: prop::sample::Index, byte: u8) {
        let mut bytes = V1.as_bytes().to_vec();
        let index = index.index(bytes.len());
        bytes[index] = byte;
        if let Ok(Packet::Broker(packet)) = Packet::from_json(&bytes)
            && let Some(plain) = packet.open(&kek(64))
        {
            prop_assert_eq!(plain.as_slice(), PRIVATE.as_bytes());
        }
    }
}
