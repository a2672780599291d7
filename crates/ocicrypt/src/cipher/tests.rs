use std::fmt::Write as _;

use aws_lc_rs::hmac;
use proptest::prelude::*;
use sha256_lanes::{Sha256, update_together};
use subtle::ConstantTimeEq as _;

use super::*;

/// AES-256-CTR and HMAC-SHA-256 of Python's `cryptography` and `hmac`: key 00…1f, plain text
/// `7 * i mod 256` for 100 bytes; nonce, ciphertext, HMAC over the ciphertext. The second counter
/// runs over all 128 bits.
const VECTORS: [[&str; 3]; 2] = [
    [
        "101112131415161718191a1b1c1d1e1f",
        "e9c4e19fae1779d7c84bda9b62bccae789b6351f77075e401e5d26fe99e0e20ac6ff92e7cbc7e56efd0350df1806914c37eee95bbfa7e0d8\
         213d23ab59a2f1e39279bf6eafa5ca65b5634a9b527208d2eb3b2fa3a25839ab7d5623642a8d7f3f7876d24a",
        "421475275f335a3a8e150631369351676797d6ee9ff3bdce022ba00af74fd2dd",
    ],
    [
        "fffffffffffffffffffffffffffffffe",
        "63e2ba17a93d62ecc2d2bf93cd97452d99ee9a98c034ea7bfb28a7c6994485371277ee43d64a95c1b1ecbc47e91535c9a00a28cb26cae564\
         2e790dacec698484ce7b7b0b69cf694cf057af380c37b3b0e274681664d23a4ee8f1c5fe4174cfcfeef84809",
        "109afc55c689c25b6a183b1e595ec5dff1c69807455e0f31c3efc57c3efdcd18",
    ],
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn counting_key() -> LayerKey {
    let bytes: Vec<u8> = (0..32).collect();
    LayerKey::try_from(&bytes[..]).unwrap()
}

fn nonce(hex: &str) -> Nonce {
    let bytes = u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
    Nonce::try_from(&bytes[..]).unwrap()
}

fn plain(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 256).unwrap()).collect()
}

#[test]
fn ciphertext_and_hmac_are_those_of_other_code() {
    for [start, ciphertext, mac] in VECTORS {
        let mut layer = plain(100);
        let mut encryptor = LayerEncryptor::with_key(counting_key(), nonce(start)).unwrap();
        encryptor.apply(&mut layer).unwrap();
        assert_eq!(hex(&layer), ciphertext);
        let (public, _) = encryptor.finish(Digest::of(b""));
        assert_eq!(hex(public.hmac().as_bytes()), mac);
    }
}

#[test]
fn from_one_buffer_into_another_the_ciphertext_is_the_same() {
    for [start, ciphertext, _] in VECTORS {
        for chunk in [16, 48, 64, 100] {
            let (from, mut to) = (plain(100), vec![0; 100]);
            let mut ctr = CtrStream::new(&counting_key(), &nonce(start)).unwrap();
            from.chunks(chunk).zip(to.chunks_mut(chunk)).for_each(|(from, to)| ctr.apply_to(from, to).unwrap());
            assert_eq!(hex(&to), ciphertext);
        }
    }
    let mut ctr = CtrStream::new(&counting_key(), &nonce(VECTORS[0][0])).unwrap();
    assert_eq!(ctr.apply_to(&[0; 16], &mut [0; 32]), Err(CipherError::Internal));
}

/// A layer, encrypted: its ciphertext and options.
fn sealed(len: usize) -> (Vec<u8>, PublicOptions, PrivateOptions) {
    let mut layer = plain(len);
    let digest = Digest::of(&layer);
    let mut encryptor = by_name(AES_256_CTR_HMAC_SHA256).unwrap().encryptor().unwrap();
    encryptor.apply(&mut layer).unwrap();
    let (public, private) = encryptor.finish(digest);
    (layer, public, private)
}

fn decryptor(public: &PublicOptions, private: PrivateOptions) -> LayerDecryptor {
    by_name(public.cipher()).unwrap().decryptor(public, private).unwrap()
}

#[test]
fn two_layers_never_share_a_key_or_nonce() {
    let (_, _, a) = sealed(0);
    let (_, _, b) = sealed(0);
    assert!(!bool::from(a.key.ct_eq(&b.key)));
    assert!(!bool::from(a.nonce.ct_eq(&b.nonce)));
}

#[test]
fn a_changed_or_cut_layer_is_refused() {
    for change in [
        |layer: &mut Vec<u8>| layer[0] ^= 1,
        |layer: &mut Vec<u8>| layer[999] ^= 0x80,
        |layer: &mut Vec<u8>| layer.truncate(999),
        |layer: &mut Vec<u8>| layer.push(0),
        |layer: &mut Vec<u8>| layer.clear(),
    ] {
        let (mut layer, public, private) = sealed(1000);
        change(&mut layer);
        let mut decryptor = decryptor(&public, private);
        decryptor.apply(&mut layer).unwrap();
        assert_eq!(decryptor.finish(), Err(CipherError::Authentication));
    }
}

#[test]
fn another_hmac_or_key_is_refused() {
    let (mut layer, public, private) = sealed(100);
    let mut mac = *public.hmac().as_bytes();
    mac[31] ^= 1;
    let mut check = decryptor(&PublicOptions::new(Mac::from_bytes(mac)), private);
    check.apply(&mut layer).unwrap();
    assert_eq!(check.finish(), Err(CipherError::Authentication));

    let (mut layer, public, _) = sealed(100);
    let (_, _, other) = sealed(100);
    let mut check = decryptor(&public, other);
    check.apply(&mut layer).unwrap();
    assert_eq!(check.finish(), Err(CipherError::Authentication));
}

#[test]
fn halves_on_two_threads_do_what_the_whole_does() {
    let (layer, public, private) = sealed(10_000);
    let (mut ctr, mut check) = decryptor(&public, private).split();
    let ciphertext = layer.clone();
    let verdict = std::thread::spawn(move || {
        ciphertext.chunks(333).for_each(|chunk| check.update(chunk));
        check.finish()
    });
    let mut layer = layer;
    layer.chunks_mut(777).for_each(|chunk| ctr.apply(chunk).unwrap());
    assert_eq!(layer, plain(10_000));
    assert_eq!(verdict.join().unwrap(), Ok(Digest::of(&layer)));

    let (mut ctr, mut seal) = by_name(AES_256_CTR_HMAC_SHA256).unwrap().encryptor().unwrap().split();
    ctr.apply(&mut layer).unwrap();
    seal.update(&layer);
    let (public, private) = seal.finish(Digest::of(&plain(10_000)));
    let mut whole = decryptor(&public, private);
    whole.apply(&mut layer).unwrap();
    assert_eq!(whole.finish(), Ok(Digest::of(&plain(10_000))));
}

#[test]
fn an_unknown_cipher_is_named_but_not_at_length() {
    let error = by_name("AEAD_CHACHA20").unwrap_err();
    assert_eq!(error, CipherError::UnknownCipher { name: "AEAD_CHACHA20".to_owned() });
    let CipherError::UnknownCipher { name } = by_name(&"x".repeat(1000)).unwrap_err() else {
        panic!("an unknown cipher")
    };
    assert_eq!(name.len(), NAME_SHOWN_MAX);
}

#[test]
fn neither_key_nor_mac_is_printed() {
    let (_, public, private) = sealed(1);
    let texts = [
        format!("{public:?} {private:?} {private:#?}"),
        format!("{:?}", LayerEncryptor::with_key(counting_key(), nonce(VECTORS[0][0])).unwrap()),
        format!("{:?}", decryptor(&public, private)),
    ];
    for text in texts {
        assert!(text.contains("[redacted]"), "{text}");
        assert!(!text.contains(&format!("{:?}", &public.hmac().as_bytes()[..4]).replace(']', "")), "{text}");
    }
    assert!(!CipherError::Authentication.to_string().contains(&hex(public.hmac().as_bytes())));
}

proptest! {
    #[test]
    fn an_hmac_beside_a_digest_is_the_librarys_own(lengths in proptest::collection::vec(0usize..200, 0..12)) {
        let bytes = plain(lengths.iter().sum());
        let (mut mac, mut digest) = (HmacStream::new(&counting_key()), Sha256::new());
        let mut rest = &bytes[..];
        for length in lengths {
            let (chunk, tail) = rest.split_at(length);
            update_together(&mut [mac.lane(chunk), digest.lane(chunk)]);
            rest = tail;
        }
        let wanted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, counting_key().expose()), &bytes);
        let mac = mac.finish();
        prop_assert_eq!(&mac.as_bytes()[..], wanted.as_ref());
        prop_assert_eq!(digest.finish(), *Digest::of(&bytes).as_bytes());
    }

    #[test]
    fn chunks_of_any_length_make_the_same_layer(lengths in proptest::collection::vec(0usize..70, 0..12)) {
        let len = lengths.iter().sum();
        let (mut whole, public, private) = sealed(len);
        let mut decryptor = decryptor(&public, private);
        let mut rest = &mut whole[..];
        for length in lengths {
            let (chunk, tail) = rest.split_at_mut(length);
            decryptor.apply(chunk).unwrap();
            rest = tail;
        }
        prop_assert_eq!(decryptor.finish(), Ok(Digest::of(&plain(len))));
        prop_assert_eq!(whole, plain(len));
    }

    #[test]
    fn in_place_and_into_another_buffer_are_one_key_stream(
        steps in proptest::collection::vec((0usize..5, 0usize..20, 0usize..3), 1..20),
        first: u128,
    ) {
        let nonce = Nonce::try_from(&first.to_be_bytes()[..]).unwrap();
        let mut all = vec![0; 4096];
        CtrStream::new(&counting_key(), &nonce).unwrap().apply(&mut all).unwrap();
        let mut stream = CtrStream::new(&counting_key(), &nonce).unwrap();
        for (blocks, bytes, way) in steps {
            let at = usize::try_from(stream.position()).unwrap();
            let mut part = vec![0; blocks * 16 + bytes];
            match way {
                0 => stream.apply(&mut part).unwrap(),
                1 => stream.apply_to(&vec![0; part.len()], &mut part).unwrap(),
                _ => {
                    stream.seek((at / 2) as u64).unwrap();
                    continue;
                }
            }
            prop_assert_eq!(&part[..], &all[at..at + part.len()]);
        }
    }

    #[test]
    fn the_key_stream_can_be_entered_anywhere(start in 0usize..200, len in 0usize..70, first: u128) {
        let nonce = Nonce::try_from(&first.to_be_bytes()[..]).unwrap();
        let mut all = vec![0; start + len];
        CtrStream::new(&counting_key(), &nonce).unwrap().apply(&mut all).unwrap();
        let mut part = vec![0; len];
        let mut stream = CtrStream::new(&counting_key(), &nonce).unwrap();
        stream.seek(start as u64).unwrap();
        stream.apply(&mut part).unwrap();
        prop_assert_eq!(stream.position(), (start + len) as u64);
        prop_assert_eq!(&part[..], &all[start..]);
    }
}
