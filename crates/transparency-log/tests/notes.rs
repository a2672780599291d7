//! Notes, checkpoints, receipts and what a client remembers: what is written is read again, and nothing altered is believed.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use transparency_log::{
    Advance, Checkpoint, CheckpointError, Cosigner, KeyName, LeafIndex, MAX_NOTE_BYTES, MAX_SIGNATURES, MemoryTree,
    NoteError, NoteSigner, Receipt, ReceiptError, SeenError, SeenLog, SignedCheckpoint, SignedNote, TileKind, TilePath,
    TreeSize, VerifierKey, Witnesses, decode_bundle, encode_bundle,
};

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn size(leaves: u64) -> TreeSize {
    leaves.try_into().unwrap()
}

fn signer() -> NoteSigner {
    NoteSigner::generate(name("log.example/audit")).unwrap()
}

fn tree(leaves: u64) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for number in 0..leaves {
        tree.append(format!("entry {number}").as_bytes()).unwrap();
    }
    tree
}

fn signed(signer: &NoteSigner, tree: &MemoryTree, leaves: u64) -> SignedCheckpoint {
    let root = transparency_log::root(tree, size(leaves)).unwrap();
    Checkpoint::new(signer.name().clone(), size(leaves), root).unwrap().sign(signer).unwrap()
}

fn receipt(signer: &NoteSigner) -> Receipt {
    let tree = tree(11);
    let index = LeafIndex::try_from(6).unwrap();
    Receipt {
        entry: b"entry 6".to_vec(),
        index,
        proof: tree.inclusion_proof(index, size(11)).unwrap(),
        checkpoint: signed(signer, &tree, 11),
    }
}

#[test]
fn a_key_survives_its_file_and_does_not_show_itself() {
    let signer = signer();
    let pem = signer.to_pkcs8_pem().unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let again = NoteSigner::from_pkcs8_pem(signer.name().clone(), &pem).unwrap();
    assert_eq!(again.verifier_key(), signer.verifier_key());
    assert!(format!("{signer:?}").ends_with("[redacted])"));
    assert_eq!(signer.verifier_key().to_string().parse::<VerifierKey>().unwrap(), signer.verifier_key());
    let body = pem.lines().nth(1).unwrap();
    assert!(NoteSigner::from_pkcs8_pem(signer.name().clone(), &pem.replace(body, &body[4..])).is_err());
    assert!(NoteSigner::from_pkcs8_pem(signer.name().clone(), "").is_err());
}

#[test]
fn any_altered_byte_of_a_signed_checkpoint_is_refused() {
    let signer = signer();
    let note = signed(&signer, &tree(7), 7).to_string().into_bytes();
    SignedCheckpoint::from_bytes(&note).unwrap().verify(&signer.verifier_key()).unwrap();
    for place in 0..note.len() {
        for bit in 0..8 {
            let mut altered = note.clone();
            altered[place] ^= 1 << bit;
            let believed = SignedCheckpoint::from_bytes(&altered)
                .is_ok_and(|checkpoint| checkpoint.verify(&signer.verifier_key()).is_ok());
            assert!(!believed, "bit {bit} of byte {place}");
        }
        let cut = SignedCheckpoint::from_bytes(&note[..place]);
        assert!(cut.is_err(), "cut at {place}");
    }
}

#[test]
fn any_altered_byte_of_a_receipts_parts_is_refused() {
    let signer = signer();
    let good = receipt(&signer);
    assert_eq!(good.verify(&signer.verifier_key()).unwrap().entry, b"entry 6");
    let json = serde_json::to_vec(&good).unwrap();
    assert_eq!(Receipt::from_json(&json).unwrap(), good);
    for place in 0..json.len() {
        let mut altered = json.clone();
        altered[place] ^= 1;
        if let Ok(read) = Receipt::from_json(&altered) {
            assert!(read.verify(&signer.verifier_key()).is_err(), "byte {place}");
        }
    }
    let more = String::from_utf8(json).unwrap().replacen('{', "{\"more\":1,", 1);
    assert!(matches!(Receipt::from_json(more.as_bytes()), Err(ReceiptError::Syntax(_))));
}

#[test]
fn a_checkpoint_of_another_log_or_another_key_is_refused() {
    let (signer, other) = (signer(), NoteSigner::generate(name("other.example")).unwrap());
    let checkpoint = signed(&signer, &tree(3), 3);
    assert!(matches!(checkpoint.verify(&other.verifier_key()), Err(CheckpointError::Origin { .. })));
    let namesake = NoteSigner::generate(signer.name().clone()).unwrap();
    assert_eq!(checkpoint.verify(&namesake.verifier_key()), Err(CheckpointError::Note(NoteError::Unsigned)));
    assert!(matches!(checkpoint.unverified().sign(&other), Err(CheckpointError::Origin { .. })));
    let witness = Cosigner::generate(signer.name().clone()).unwrap();
    assert!(matches!(checkpoint.verify(&witness.verifier_key()), Err(CheckpointError::Kind(_))));
}

#[test]
fn as_many_witnesses_sign_as_are_asked_for() {
    let signer = signer();
    let witnesses: Vec<_> = ["w1.example", "w2.example"].map(|text| Cosigner::generate(name(text)).unwrap()).into();
    let keys: Vec<_> = witnesses.iter().map(Cosigner::verifier_key).collect();
    let mut checkpoint = signed(&signer, &tree(3), 3);
    let both = Witnesses::new(keys.clone(), 2).unwrap();
    let refused = checkpoint.verify_witnessed(&signer.verifier_key(), &both).unwrap_err();
    assert_eq!(refused, CheckpointError::Quorum { quorum: 2, found: 0 });
    for (witness, at_seconds) in witnesses.iter().zip([1_700_000_000, 1_700_000_001]) {
        checkpoint.cosign(witness, at_seconds).unwrap();
    }
    let checkpoint: SignedCheckpoint = checkpoint.to_string().parse().unwrap();
    let verified = checkpoint.verify_witnessed(&signer.verifier_key(), &both).unwrap();
    let times: Vec<_> = verified.cosignatures.iter().map(|signature| signature.at_seconds).collect();
    assert_eq!(times, [1_700_000_000, 1_700_000_001]);
    // One who does not know the witnesses passes over their lines.
    assert_eq!(checkpoint.verify(&signer.verifier_key()).unwrap(), verified.checkpoint);

    let mut twice = checkpoint.clone();
    twice.cosign(&witnesses[0], 1_700_000_002).unwrap();
    let refused = twice.verify_witnessed(&signer.verifier_key(), &both).unwrap_err();
    assert_eq!(refused, CheckpointError::Note(NoteError::Repeated(name("w1.example"))));
    assert!(matches!(Witnesses::new(vec![keys[0].clone(); 2], 1), Err(CheckpointError::Witnesses)));
    assert!(matches!(Witnesses::new(keys, 3), Err(CheckpointError::Witnesses)));
    assert!(matches!(Witnesses::new(vec![signer.verifier_key()], 1), Err(CheckpointError::Kind(_))));
    assert!(checkpoint.clone().cosign(&witnesses[0], u64::MAX).is_err());
}

#[test]
fn a_client_follows_a_log_that_grows_and_refuses_one_that_shrinks_or_forks() {
    let (signer, whole) = (signer(), tree(30));
    let mut seen = SeenLog::new(signer.verifier_key());
    assert_eq!(seen.advance(&signed(&signer, &whole, 10), None).unwrap(), Advance::First);
    assert_eq!(seen.advance(&signed(&signer, &whole, 10), None).unwrap(), Advance::Same);
    let larger = signed(&signer, &whole, 25);
    assert!(matches!(seen.advance(&larger, None), Err(SeenError::Unproven { source: None, .. })));
    let proof = whole.consistency_proof(seen.size(), size(25)).unwrap();
    assert_eq!(seen.advance(&larger, Some(&proof)).unwrap(), Advance::Grown { from: size(10) });

    // It remembers over a restart.
    let mut seen: SeenLog = serde_json::from_str(&serde_json::to_string(&seen).unwrap()).unwrap();
    let shrunk = seen.advance(&signed(&signer, &whole, 24), None).unwrap_err();
    assert_eq!(shrunk, SeenError::Shrunk { seen: size(25), offered: size(24) });
    let mut rewritten = MemoryTree::default();
    for _ in 0..30 {
        rewritten.append(b"another history").unwrap();
    }
    let forked = seen.advance(&signed(&signer, &rewritten, 25), None).unwrap_err();
    assert_eq!(forked, SeenError::Forked(size(25)));
    let proof = rewritten.consistency_proof(size(25), size(30)).unwrap();
    let forked = seen.advance(&signed(&signer, &rewritten, 30), Some(&proof)).unwrap_err();
    assert!(matches!(forked, SeenError::Unproven { source: Some(_), .. }));
    let stranger = NoteSigner::generate(signer.name().clone()).unwrap();
    assert!(matches!(seen.advance(&signed(&stranger, &whole, 30), None), Err(SeenError::Checkpoint(_))));
    assert_eq!(seen.size(), size(25));
}

#[test]
fn a_log_that_was_seen_empty_may_grow_without_a_proof() {
    let (signer, whole) = (signer(), tree(5));
    let mut seen = SeenLog::new(signer.verifier_key());
    seen.advance(&signed(&signer, &whole, 0), None).unwrap();
    assert_eq!(seen.advance(&signed(&signer, &whole, 5), None).unwrap(), Advance::Grown { from: size(0) });
}

#[test]
fn malformed_checkpoints_are_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for text in [
        String::new(),
        format!("log.example\n1\n{root}"),
        format!("log.example\n01\n{root}\n"),
        format!("log.example\n+1\n{root}\n"),
        format!("log.example\n-1\n{root}\n"),
        format!("log.example\n9223372036854775808\n{root}\n"),
        format!("log.example\n1\n{}\n", root.trim_end_matches('=')),
        format!("log.example\n1\n{}J=\n", &root[..42]),
        format!("log.example\n0\n{root}\n"),
        format!("\n1\n{root}\n"),
        format!("log example\n1\n{root}\n"),
        format!("log.example\n1\n{root}\n\n"),
        "log.example\n1\n".to_owned(),
    ] {
        assert!(text.parse::<Checkpoint>().is_err(), "{text:?}");
    }
    format!("log.example\n1\n{root}\nan extension\n").parse::<Checkpoint>().unwrap();
}

#[test]
fn large_notes_are_refused_before_they_are_read() {
    let line = "\u{2014} a AAAAAAA=\n";
    SignedNote::from_bytes(format!("text\n\n{}", line.repeat(MAX_SIGNATURES)).as_bytes()).unwrap();
    let many = format!("text\n\n{}", line.repeat(MAX_SIGNATURES + 1));
    assert_eq!(SignedNote::from_bytes(many.as_bytes()), Err(NoteError::Size));
    assert_eq!(SignedNote::from_bytes(&vec![b'\n'; MAX_NOTE_BYTES + 1]), Err(NoteError::Size));
    assert_eq!(SignedNote::sign("a".repeat(MAX_NOTE_BYTES) + "\n", &signer()), Err(NoteError::Size));
    for malformed in
        ["text\n\n", "text\n\u{2014} a AAAAAAA=\n", "text\n\n\u{2014} a AAAAAAA=", "text\n\n- a AAAAAAA=\n"]
    {
        assert!(matches!(malformed.parse::<SignedNote>(), Err(NoteError::Syntax(_))), "{malformed:?}");
    }
}

#[test]
fn a_tile_has_one_path() {
    for path in [
        "tile/00/000",
        "tile/+1/000",
        "tile/64/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/1000",
        "tile/0/x000/001",
        "tile/0/001/001",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/entries/000/",
        "tile/data/000",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(path.parse::<TilePath>().is_err(), "{path}");
    }
}

proptest! {
    #[test]
    fn notes_are_written_as_they_were_read(
        text in "[ -~é\n]{0,60}\n", names in proptest::collection::vec("[!-*,-~ü]{1,20}", 1..5),
        bytes in proptest::collection::vec(any::<u8>(), 4..90),
    ) {
        let encoded = STANDARD.encode(&bytes);
        let lines: String = names.iter().flat_map(|name| ["\u{2014} ", name, " ", &encoded, "\n"]).collect();
        let note = format!("{text}\n{lines}");
        let read = SignedNote::from_bytes(note.as_bytes()).unwrap();
        prop_assert_eq!(read.unverified_text(), &text);
        prop_assert_eq!(read.unverified_signatures().len(), names.len());
        prop_assert_eq!(read.to_string(), note);
    }

    #[test]
    fn arbitrary_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
        if let Ok(note) = SignedNote::from_bytes(&bytes) {
            prop_assert_eq!(note.to_string().into_bytes(), bytes.clone());
        }
        let _ = (Receipt::from_json(&bytes), text.parse::<VerifierKey>(), text.parse::<Checkpoint>());
        let _ = (decode_bundle(&bytes, 3), format!("tile/{text}").parse::<TilePath>());
    }

    #[test]
    fn tile_paths_are_read_as_they_were_written(
        level in 0_u8..64, index in 0_u64..=TreeSize::MAX.get(), width in 1_u16..=256,
    ) {
        for kind in [TileKind::Entries, TileKind::Hashes(level)] {
            let path = TilePath::new(kind, index, width).unwrap();
            prop_assert_eq!(path.to_string().parse::<TilePath>(), Ok(path));
            let _ = path.nodes();
        }
    }

    #[test]
    fn bundles_are_read_as_they_were_written(
        entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
    ) {
        let bundle = encode_bundle(entries.iter().map(Vec::as_slice)).unwrap();
        let width = u16::try_from(entries.len()).unwrap();
        prop_assert_eq!(decode_bundle(&bundle, width).unwrap(), entries);
        prop_assert!(decode_bundle(&bundle, width + 1).is_err());
        if let Some((_, shorter)) = bundle.split_last() {
            prop_assert!(decode_bundle(shorter, width).is_err());
        }
    }
}
