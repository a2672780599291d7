use jose::jwe::EphemeralKey;
use proptest::prelude::*;

use super::*;
use crate::cipher::{AES_256_CTR_HMAC_SHA256, Digest};

fn options() -> (PublicOptions, PrivateOptions) {
    let encryptor = by_name(AES_256_CTR_HMAC_SHA256).unwrap().encryptor().unwrap();
    encryptor.finish(Digest::of(b"plain"))
}

fn kid(id: &str) -> Kid {
    Kid::new("keys.vendor.example", ["product", "image-key", id]).unwrap()
}

fn recipient() -> Recipient {
    Recipient::from_jwk(&EphemeralKey::generate().unwrap().jwk()).unwrap()
}

#[test]
fn several_keys_open_one_layer() {
    let (public, private) = options();
    let (a, b) = (KeyEncryptionKey::generate().unwrap(), KeyEncryptionKey::generate().unwrap());
    let annotations = LayerAnnotations::new(public, &private)
        .with_kek(&kid("a"), &a)
        .unwrap()
        .with_kek(&kid("b"), &b)
        .unwrap()
        .with_recipients(&[recipient(), recipient()])
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(annotations.len(), 3);
    assert_eq!(annotations[packet::ANNOTATION].split(',').count(), 2);
    let sealed = SealedLayer::parse(&annotations).unwrap();
    assert_eq!(sealed.kids().collect::<Vec<_>>(), [&kid("a"), &kid("b")]);
    assert_eq!(sealed.jwe[0].recipients(), 2);
    for kek in [&a, &b] {
        let opened = sealed.open_with_kek(kek).unwrap();
        assert_eq!(opened.to_json(), private.to_json());
    }
    let other = KeyEncryptionKey::generate().unwrap();
    assert!(matches!(sealed.open_with_kek(&other), Err(OpenError::Key)));
}

#[test]
fn a_new_key_comes_beside_the_old_ones_without_the_layer() {
    let (public, private) = options();
    let (old, new) = (KeyEncryptionKey::generate().unwrap(), KeyEncryptionKey::generate().unwrap());
    let mut annotations = LayerAnnotations::new(public, &private).with_kek(&kid("old"), &old).unwrap().build().unwrap();
    let foreign = "org.opencontainers.image.enc.keys.pgp";
    annotations.insert(foreign.to_owned(), "AAAA".to_owned());
    let sealed = SealedLayer::parse(&annotations).unwrap();
    let opened = sealed.open_with_kek(&old).unwrap();
    let again = LayerAnnotations::new(sealed.public, &opened)
        .keeping(&sealed)
        .with_kek(&kid("new"), &new)
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(again[foreign], "AAAA");
    assert_eq!(again[options::ANNOTATION], annotations[options::ANNOTATION]);
    let again = SealedLayer::parse(&again).unwrap();
    assert_eq!(again.other_wraps().collect::<Vec<_>>(), [foreign]);
    for kek in [&old, &new] {
        assert_eq!(again.open_with_kek(kek).unwrap().to_json(), private.to_json());
    }
}

#[test]
fn packets_under_either_name_open_and_are_moved_to_where_guests_look() {
    let (public, private) = options();
    let (a, b) = (KeyEncryptionKey::generate().unwrap(), KeyEncryptionKey::generate().unwrap());
    let seal = |id, kek: &KeyEncryptionKey| {
        let layer = LayerAnnotations::new(public, &private).with_kek(&kid(id), kek).unwrap();
        layer.build().unwrap().remove(packet::ANNOTATION).unwrap()
    };
    let mut annotations = BTreeMap::from([
        (options::ANNOTATION.to_owned(), public.to_annotation()),
        (packet::OWN_ANNOTATION.to_owned(), seal("a", &a)),
    ]);
    let opens = |annotations: &BTreeMap<String, String>, kek: &KeyEncryptionKey| {
        SealedLayer::parse(annotations).unwrap().open_with_kek(kek).is_ok()
    };
    assert!(opens(&annotations, &a) && !opens(&annotations, &b));
    annotations.insert(packet::ANNOTATION.to_owned(), seal("b", &b));
    assert!(opens(&annotations, &a) && opens(&annotations, &b));
    assert_eq!(SealedLayer::parse(&annotations).unwrap().other_wraps().count(), 0);

    assert!(move_packets_for_guests(&mut annotations));
    assert!(opens(&annotations, &a) && opens(&annotations, &b));
    assert_eq!(annotations[packet::ANNOTATION].split(',').count(), 2);
    assert!(!annotations.contains_key(packet::OWN_ANNOTATION));
    assert!(!move_packets_for_guests(&mut annotations));
}

#[test]
fn a_packet_in_the_place_of_ours_opens_by_the_new_key_alone_and_others_stay() {
    let (public, private) = options();
    let [ours, others, new] = [(); 3].map(|()| KeyEncryptionKey::generate().unwrap());
    let layer = LayerAnnotations::new(public, &private).with_kek(&kid("ours"), &ours).unwrap();
    let mut annotations = layer.with_kek(&kid("others"), &others).unwrap().build().unwrap();
    let packet = BrokerPacket::seal(&kid("new"), &new, &private).unwrap().to_annotation();
    let message = jwe::to_annotation(&jwe::seal(&private, &[recipient()]).unwrap());
    for round in 1..3 {
        replace_packets(&mut annotations, |kid| *kid != self::kid("others"), &packet, Some(&message));
        let layer = SealedLayer::parse(&annotations).unwrap();
        assert!(layer.open_with_kek(&ours).is_err());
        assert!(layer.open_with_kek(&others).is_ok() && layer.open_with_kek(&new).is_ok());
        assert_eq!((layer.packets.len(), layer.jwe.len()), (2, round));
    }
}

#[test]
fn a_packet_of_an_unknown_kind_is_an_error_unless_another_opens() {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    let (public, private) = options();
    let kek = KeyEncryptionKey::generate().unwrap();
    let mut annotations = LayerAnnotations::new(public, &private).with_kek(&kid("a"), &kek).unwrap().build().unwrap();
    let known = annotations[packet::ANNOTATION].clone();
    let unknown = r#"{"kid":"x","wrapped_data":"","provider":"aliyun"}"#;
    let unknown = BASE64_STANDARD.encode(unknown);
    annotations.insert(packet::ANNOTATION.to_owned(), format!("{unknown},{known}"));
    assert!(SealedLayer::parse(&annotations).unwrap().open_with_kek(&kek).is_ok());
    annotations.insert(packet::ANNOTATION.to_owned(), unknown);
    let sealed = SealedLayer::parse(&annotations).unwrap();
    let error = sealed.open_with_kek(&kek).unwrap_err();
    assert!(matches!(error, OpenError::Unsupported(packet) if packet.provider == "aliyun"));
}

#[test]
fn a_private_key_opens_its_message_among_several() {
    let key = DecryptionKey::from_pem(include_str!("../../tests/data/ec-p256.pem")).unwrap();
    let other = DecryptionKey::from_pem(include_str!("../../tests/data/rsa.pem")).unwrap();
    let (public, private) = options();
    let annotations = LayerAnnotations::new(public, &private)
        .with_recipients(&[recipient()])
        .unwrap()
        .with_recipients(&[Recipient::new(key.public_key().clone())])
        .unwrap()
        .build()
        .unwrap();
    let sealed = SealedLayer::parse(&annotations).unwrap();
    assert_eq!(sealed.jwe.len(), 2);
    assert_eq!(sealed.open_with_key(&key).unwrap().to_json(), private.to_json());
    assert!(matches!(sealed.open_with_key(&other), Err(OpenError::Key)));
}

#[test]
fn a_wrong_secret_under_the_right_key_is_named() {
    let key = DecryptionKey::from_pem(include_str!("../../tests/data/ec-p256.pem")).unwrap();
    let message = jose::jwe::encrypt(b"{}", &[Recipient::new(key.public_key().clone())]).unwrap();
    let (public, _) = options();
    let annotations = [(options::ANNOTATION, public.to_annotation()), (jwe::ANNOTATION, jwe::to_annotation(&message))];
    let sealed = SealedLayer::parse(annotations).unwrap();
    assert!(matches!(sealed.open_with_key(&key), Err(OpenError::PrivateOptions(OptionsError::Json))));
}

#[test]
fn annotations_of_no_sealed_layer_are_refused() {
    let (public, private) = options();
    let kek = KeyEncryptionKey::generate().unwrap();
    let good = LayerAnnotations::new(public, &private).with_kek(&kid("a"), &kek).unwrap().build().unwrap();
    let with = |name: &str, value: Option<&str>| {
        let mut annotations = good.clone();
        match value {
            Some(value) => annotations.insert(name.to_owned(), value.to_owned()),
            None => annotations.remove(name),
        };
        SealedLayer::parse(&annotations).unwrap_err()
    };
    assert!(matches!(with(options::ANNOTATION, None), ParseLayerError::NoPublicOptions));
    assert!(matches!(with(options::ANNOTATION, Some("")), ParseLayerError::PublicOptions(_)));
    assert!(matches!(with(packet::ANNOTATION, None), ParseLayerError::NoWrap));
    assert!(matches!(with(packet::ANNOTATION, Some("")), ParseLayerError::Packet(_)));
    assert!(matches!(with(jwe::ANNOTATION, Some("e30=")), ParseLayerError::Jwe(_)));
    let many = vec![good[packet::ANNOTATION].as_str(); WRAPS_MAX + 1].join(",");
    assert!(matches!(with(packet::ANNOTATION, Some(&many)), ParseLayerError::TooLong { .. }));
    let long = "A".repeat(ANNOTATION_MAX + 1);
    assert!(matches!(with(jwe::ANNOTATION, Some(&long)), ParseLayerError::TooLong { .. }));
    let nobody = LayerAnnotations::new(public, &private).with_recipients(&[]).unwrap().build();
    assert!(matches!(nobody, Err(SealError::NoWrap)));
}

#[test]
fn foreign_annotations_are_passed_over() {
    let (public, private) = options();
    let kek = KeyEncryptionKey::generate().unwrap();
    let mut annotations = LayerAnnotations::new(public, &private).with_kek(&kid("a"), &kek).unwrap().build().unwrap();
    assert!(annotations.keys().all(|name| is_encryption_annotation(name)));
    annotations.insert("org.example.note".to_owned(), "x".repeat(ANNOTATION_MAX + 1));
    assert!(SealedLayer::parse(&annotations).is_ok());
}

proptest! {
    #[test]
    fn any_annotations_are_read_or_refused(packets in "[A-Za-z0-9+/=,]{0,60}", jwe in "[A-Za-z0-9+/=,]{0,60}") {
        let (public, _) = options();
        let annotations = [
            (options::ANNOTATION, public.to_annotation()),
            (packet::ANNOTATION, packets),
            (jwe::ANNOTATION, jwe),
        ];
        let _ = SealedLayer::parse(annotations);
    }
}
