//! ID blocks: known answers of two other tools, keys in both forms, and what is refused.
#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

#[path = "support/sev_package.rs"]
mod sev_package;

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use launch_evidence::measure::id_block::{IdAuthInfo, IdBlock, IdBlockError, OwnerKey, ParseOwnerKeyError};
use launch_evidence::{GuestId, Measurement};
use proptest::prelude::*;
use serde_json::Value;

/// The `sev` package's own keys; the known answers were made with them.
fn package_key(name: &str) -> OwnerKey {
    let path = sev_package::file(&format!("tests/measurement/{name}"));
    OwnerKey::from_pem(&fs::read_to_string(path).expect("a key")).expect("a key")
}

fn id_key() -> OwnerKey {
    package_key("test_id_key.pem")
}

fn author_key() -> OwnerKey {
    package_key("test_auth_key.pem")
}

fn block() -> IdBlock {
    IdBlock {
        measurement: Measurement([0xA5; 48]),
        family_id: GuestId(*b"family of guests"),
        image_id: GuestId(*b"image of a guest"),
        guest_svn: 0x0102_0304,
        policy: IdBlock::DEFAULT_POLICY,
    }
}

fn vectors() -> Option<Value> {
    let folder = std::env::var_os("SEALIFT_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let text = fs::read(folder.join("launch/id_blocks.json")).ok()?;
    Some(serde_json::from_slice(&text).expect("JSON"))
}

#[test]
fn blocks_and_digests_are_those_of_other_tools() {
    let Some(cases) = vectors() else { return };
    let cases = cases.as_array().expect("a list");
    assert!(cases.len() >= 2, "only {} cases were found", cases.len());
    for case in cases {
        let text = |name: &str| case[name].as_str().expect("a text");
        let bytes = |name: &str| hex::decode(text(name)).expect("hexadecimal");
        let block = IdBlock {
            measurement: text("launch_digest").parse().expect("a digest"),
            family_id: text("family_id").parse().expect("an id"),
            image_id: text("image_id").parse().expect("an id"),
            guest_svn: u32::try_from(case["guest_svn"].as_u64().expect("a number")).expect("a number"),
            policy: u64::from_str_radix(text("policy").trim_start_matches("0x"), 16).expect("a number"),
        };
        assert_eq!(block.to_bytes().as_slice(), bytes("id_block"), "{}", text("name"));
        assert_eq!(IdBlock::parse(&bytes("id_block")).expect("a block"), block);

        let theirs = IdAuthInfo::parse(&bytes("id_auth")).expect("4096 bytes");
        theirs.verify(&block).expect("signatures that verify");
        assert_eq!(theirs.id_key_digest().to_string(), text("id_key_digest"));
        assert_eq!(theirs.author_key_digest().expect("an author").to_string(), text("author_key_digest"));
        assert_eq!(id_key().digest().to_string(), text("id_key_digest"));
        assert_eq!(author_key().digest().to_string(), text("author_key_digest"));

        // Signatures differ each time they are made; nothing else does.
        let ours = block.sign(&id_key(), Some(&author_key())).expect("a signature");
        ours.verify(&block).expect("signatures that verify");
        assert_eq!(without_signatures(&ours), without_signatures(&theirs), "{}", text("name"));
    }
}

fn without_signatures(auth: &IdAuthInfo) -> Vec<u8> {
    let mut bytes = auth.as_bytes().to_vec();
    for start in [0x40, 0x680] {
        bytes.iter_mut().skip(start).take(144).for_each(|byte| *byte = 0);
    }
    bytes
}

/// The layout without the vectors: what stands at which offset.
#[test]
fn a_block_is_laid_out_as_the_firmware_reads_it() {
    let bytes = block().to_bytes();
    assert_eq!(bytes[..0x30], [0xA5; 48]);
    assert_eq!(&bytes[0x30..0x50], b"family of guestsimage of a guest");
    assert_eq!(bytes[0x50..0x60], [1, 0, 0, 0, 4, 3, 2, 1, 0, 0, 3, 0, 0, 0, 0, 0]);
}

#[test]
fn every_byte_of_block_and_authentication_is_bound() {
    let auth = block().sign(&id_key(), Some(&author_key())).expect("a signature");
    for at in 0..IdBlock::LEN {
        let mut bytes = block().to_bytes();
        bytes[at] ^= 1;
        assert!(IdBlock::parse(&bytes).and_then(|block| auth.verify(&block)).is_err(), "byte {at:#x} of the block");
    }
    for (start, end) in [(0, 8), (0x40, 0x644), (0x680, 0xC84)] {
        for at in (start..end).step_by(3) {
            let mut bytes = *auth.as_bytes();
            bytes[at] ^= 1;
            let changed = IdAuthInfo::parse(&bytes).expect("4096 bytes");
            assert!(changed.verify(&block()).is_err(), "byte {at:#x} of the authentication");
        }
    }
}

#[test]
fn without_an_author_key_its_places_are_zero() {
    let auth = block().sign(&id_key(), None).expect("a signature");
    auth.verify(&block()).expect("a signature that verifies");
    assert_eq!(auth.author_key_digest(), None);
    assert_eq!(auth.as_bytes()[4..8], [0; 4]);
    assert!(auth.as_bytes()[0x680..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_block_signed_by_another_key_does_not_verify() {
    let ours = block().sign(&id_key(), None).expect("a signature");
    let theirs = block().sign(&author_key(), None).expect("a signature");
    let mut mixed = *ours.as_bytes();
    mixed[0x40..0x240].copy_from_slice(&theirs.as_bytes()[0x40..0x240]);
    let mixed = IdAuthInfo::parse(&mixed).expect("4096 bytes");
    assert_eq!(mixed.verify(&block()), Err(IdBlockError::Signature { what: "signature over the ID block" }));
}

#[test]
fn a_policy_that_no_firmware_launches_is_not_signed() {
    for policy in [0, 0x1_0000, 0x3_0000 | 1 << 26, 0x3_0000 | 1 << 63] {
        let block = IdBlock { policy, ..block() };
        assert_eq!(block.sign(&id_key(), None), Err(IdBlockError::Policy { bits: policy }));
        assert_eq!(IdBlock::parse(&block.to_bytes()), Err(IdBlockError::Policy { bits: policy }));
    }
}

/// The same key in the forms that OpenSSL writes, made here by moving its bytes.
#[test]
fn keys_are_read_in_both_forms() {
    let pkcs8 = fs::read_to_string(sev_package::file("tests/measurement/test_id_key.pem")).expect("a key");
    let body: String = pkcs8.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).expect("base64");
    // The octet string of a PKCS #8 key on P-384 begins after 27 bytes; it holds SEC 1's form without the curve.
    let sec1 = BASE64_STANDARD.encode(&der[27..]);
    let lines: Vec<&str> = (0..sec1.len()).step_by(64).map(|at| &sec1[at..sec1.len().min(at + 64)]).collect();
    let sec1 = format!(
        "-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n\
         -----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        lines.join("\n")
    );
    let key = OwnerKey::from_pem(&sec1).expect("a key");
    assert_eq!(key.digest(), id_key().digest());
    let told = format!("{key:?} {key:#?}");
    assert!(told.contains("[redacted]"), "{told}");
}

#[test]
fn what_is_no_key_on_p384_is_refused() {
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let p256 = BASE64_STANDARD.encode(p256.to_pkcs8v1().expect("a key"));
    let (start, rest) = p256.split_at(64);
    let (middle, end) = rest.split_at(64);
    let p256 = &format!("-----BEGIN PRIVATE KEY-----\n{start}\n{middle}\n{end}\n-----END PRIVATE KEY-----\n");
    let cases = [
        ("", ParseOwnerKeyError::Pem),
        ("-----BEGIN PRIVATE KEY-----\n", ParseOwnerKeyError::Pem),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", ParseOwnerKeyError::Pem),
        ("-----BEGIN PRIVATE KEY-----\nA*AA\n-----END PRIVATE KEY-----\n", ParseOwnerKeyError::Pem),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", ParseOwnerKeyError::NotP384),
        (p256, ParseOwnerKeyError::NotP384),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n", ParseOwnerKeyError::Encrypted),
    ];
    for (text, expected) in cases {
        assert_eq!(OwnerKey::from_pem(text).expect_err("no key"), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(block) = IdBlock::parse(&bytes) {
            prop_assert_eq!(block.to_bytes().to_vec(), bytes.clone());
        }
        prop_assert!(IdAuthInfo::parse(&bytes).is_err());
    }

    #[test]
    fn what_is_written_is_read(bits in 0..1_u64 << 26, svn: u32, ids: [u8; 16], digest: [u8; 32]) {
        let mut measurement = [0; 48];
        measurement[..32].copy_from_slice(&digest);
        let block = IdBlock {
            measurement: Measurement(measurement), family_id: GuestId(ids), image_id: GuestId([7; 16]), guest_svn: svn,
            policy: bits | 1 << 17,
        };
        prop_assert_eq!(IdBlock::parse(&block.to_bytes()), Ok(block));
    }

    #[test]
    fn any_text_is_a_key_or_refused(text in "(-----(BEGIN|END) (EC )?PRIVATE KEY-----|[A=:\n ]){0,40}") {
        let _ = OwnerKey::from_pem(&text);
    }
}
