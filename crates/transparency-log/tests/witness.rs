//! Cosignatures as they are asked for and given (C2SP tlog-witness, tlog-cosignature), against vectors made elsewhere.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use transparency_log::{
    Checkpoint, CheckpointError, Cosigner, MemoryTree, NoteError, NoteSigner, Receipt, ReceiptError, SignedCheckpoint,
    TreeSize, VerifierKey, WitnessAnswerError, Witnesses, add_checkpoint_request, witness_size,
};

/// The witness of the vectors below: the first key of RFC 8032, section 7.1.
const WITNESS: &str = "witness.example.com/w1+7e6f4aaa+BNdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
const LOG: &str = "example.com/behind-the-sofa+37bc54d7+AT1AF8PoQ4lakrcKp00bfrycmCzPLsSWjMDNVfEq9GYM";

/// The specification's checkpoint, signed and cosigned by OpenSSL with keys of RFC 8032, section 7.1.
const COSIGNED: &str = "\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u{2014} example.com/behind-the-sofa N7xU1+abfjKmQX7u2YhTdYaOXrug9rsbMBefB1zqpTMCh7Qbu95DTTW6yAHrIQI/NYE44uaYFncmQ4kfoZLG679blQk=
\u{2014} witness.example.com/w1 fm9KqgAAAABkGFDL+TPmh4BYuAjsYRoqMJCWb/gWJaeRF/kmm5tlCr9sJ57DLErur7K0yDXc2ArN+TIuotuB/HbuL3AJsp3bv/aNCQ==
";

/// The example of C2SP tlog-cosignature. Its keys are not published; what is known is its time.
const EXAMPLE: &str = "\
example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
";

fn key(text: &str) -> VerifierKey {
    text.parse().unwrap()
}

fn one_witness() -> Witnesses {
    Witnesses::new(vec![key(WITNESS)], 1).unwrap()
}

fn size(leaves: u64) -> TreeSize {
    TreeSize::try_from(leaves).unwrap()
}

struct Log {
    signer: NoteSigner,
    tree: MemoryTree,
}

impl Log {
    fn of(leaves: u64) -> Self {
        let signer = NoteSigner::generate("log.example".parse().unwrap()).unwrap();
        let mut tree = MemoryTree::default();
        for leaf in 0..leaves {
            tree.append(&leaf.to_be_bytes()).unwrap();
        }
        Self { signer, tree }
    }

    fn checkpoint(&self) -> SignedCheckpoint {
        let name = self.signer.name().clone();
        Checkpoint::new(name, self.tree.size(), self.tree.root().unwrap()).unwrap().sign(&self.signer).unwrap()
    }
}

/// What a witness answers: its line alone.
fn answer_of(witness: &Cosigner, checkpoint: &SignedCheckpoint, at_seconds: u64) -> String {
    let mut cosigned = checkpoint.clone();
    cosigned.cosign(witness, at_seconds).unwrap();
    cosigned.to_string().strip_prefix(&checkpoint.to_string()).unwrap().to_owned()
}

fn witness() -> Cosigner {
    Cosigner::generate("witness.example/w1".parse().unwrap()).unwrap()
}

#[test]
fn a_cosignature_made_by_another_program_is_believed() {
    let checkpoint: SignedCheckpoint = COSIGNED.parse().unwrap();
    let verified = checkpoint.verify_witnessed(&key(LOG), &one_witness()).unwrap();
    assert_eq!(verified.checkpoint.size, size(20_852_163));
    let [cosignature] = verified.cosignatures.as_slice() else { panic!("{:?}", verified.cosignatures) };
    assert_eq!((cosignature.witness.as_str(), cosignature.at_seconds), ("witness.example.com/w1", 1_679_315_147));
}

#[test]
fn any_altered_byte_of_a_cosignature_is_refused() {
    let line = COSIGNED.trim_end().rsplit(' ').next().unwrap();
    let good = STANDARD.decode(line).unwrap();
    assert_eq!(good.len(), 4 + 8 + 64);
    for place in 0..good.len() {
        let mut altered = good.clone();
        altered[place] ^= 1;
        let note = COSIGNED.replace(line, &STANDARD.encode(altered));
        let refused =
            note.parse::<SignedCheckpoint>().unwrap().verify_witnessed(&key(LOG), &one_witness()).unwrap_err();
        // With another id it is a line of a key that nobody knows.
        let is_id = matches!(refused, CheckpointError::Quorum { quorum: 1, found: 0 });
        let is_signature = matches!(refused, CheckpointError::Note(NoteError::Signature(_)));
        assert!(if place < 4 { is_id } else { is_signature }, "byte {place}: {refused:?}");
    }
}

#[test]
fn a_cosignature_of_another_checkpoint_is_refused() {
    let moved = COSIGNED.replace("20852163", "20852164");
    let refused = moved.parse::<SignedCheckpoint>().unwrap().verify_witnessed(&key(LOG), &one_witness()).unwrap_err();
    assert!(matches!(refused, CheckpointError::Note(NoteError::Signature(_))), "{refused:?}");
}

#[test]
fn the_example_of_the_specification_has_its_time_before_the_signature() {
    let checkpoint: SignedCheckpoint = EXAMPLE.parse().unwrap();
    assert_eq!(checkpoint.to_string(), EXAMPLE);
    let line = STANDARD.decode(EXAMPLE.trim_end().rsplit(' ').next().unwrap()).unwrap();
    assert_eq!(u64::from_be_bytes(line[4..12].try_into().unwrap()), 1_679_315_147);
}

#[test]
fn a_request_has_the_old_size_the_proof_and_the_checkpoint() {
    let log = Log::of(7);
    let checkpoint = log.checkpoint();
    let proof = log.tree.consistency_proof(size(3), size(7)).unwrap();
    let request = add_checkpoint_request(size(3), &proof, &checkpoint);
    let (head, note) = request.split_once("\n\n").unwrap();
    let lines: Vec<&str> = head.split('\n').collect();
    assert_eq!((lines[0], lines.len(), note), ("old 3", 1 + proof.hashes().len(), checkpoint.to_string().as_str()));
    for (line, hash) in lines[1..].iter().zip(proof.hashes()) {
        assert_eq!(STANDARD.decode(line).unwrap(), hash.as_bytes());
    }
    let nothing = log.tree.consistency_proof(TreeSize::EMPTY, size(7)).unwrap();
    assert_eq!(add_checkpoint_request(TreeSize::EMPTY, &nothing, &checkpoint), format!("old 0\n\n{checkpoint}"));
}

#[test]
fn the_size_of_a_witness_is_one_line() {
    assert_eq!(witness_size(b"20852014\n").unwrap(), size(20_852_014));
    assert_eq!(witness_size(b"0\n").unwrap(), TreeSize::EMPTY);
    for malformed in ["", "7", "07\n", "-1\n", "7\n\n", "7 \n", "18446744073709551616\n"] {
        assert!(witness_size(malformed.as_bytes()).is_err(), "{malformed:?}");
    }
}

#[test]
fn a_cosignature_is_taken_from_an_answer_and_lines_of_strangers_are_left_out() {
    let (log, witness) = (Log::of(5), witness());
    let mut checkpoint = log.checkpoint();
    let stranger = Cosigner::generate("stranger.example".parse().unwrap()).unwrap();
    let answer = answer_of(&stranger, &checkpoint, 7) + &answer_of(&witness, &checkpoint, 8);
    let added = checkpoint.add_cosignature(answer.as_bytes(), &witness.verifier_key()).unwrap();
    assert_eq!(added.at_seconds, 8);
    assert!(!checkpoint.to_string().contains("stranger"));
    let witnesses = Witnesses::new(vec![witness.verifier_key()], 1).unwrap();
    checkpoint.verify_witnessed(&log.signer.verifier_key(), &witnesses).unwrap();
}

#[test]
fn an_answer_that_proves_nothing_leaves_the_checkpoint_as_it_was() {
    let (log, witness) = (Log::of(5), witness());
    let mut checkpoint = log.checkpoint();
    let before = checkpoint.clone();
    let own = witness.verifier_key();
    let older = Log {
        tree: {
            let mut tree = MemoryTree::default();
            tree.append(b"x").unwrap();
            tree
        },
        ..log
    };
    let of_another_tree = answer_of(&witness, &older.checkpoint(), 8);
    let other_key = Cosigner::generate(own.name().clone()).unwrap();
    let by_another_key = answer_of(&other_key, &checkpoint, 8);
    let without_time = answer_of(&witness, &checkpoint, 0);
    for (answer, is_expected) in [
        (
            of_another_tree,
            (|error| matches!(error, WitnessAnswerError::Note(NoteError::Signature(_)))) as fn(&_) -> bool,
        ),
        (by_another_key, |error| matches!(error, WitnessAnswerError::Absent)),
        (without_time, |error| matches!(error, WitnessAnswerError::Note(NoteError::Time))),
        (String::new(), |error| matches!(error, WitnessAnswerError::Syntax(_))),
        ("\n".to_owned(), |error| matches!(error, WitnessAnswerError::Note(NoteError::Syntax(_)))),
        ("\u{2014} w AAAA\n".repeat(65), |error| matches!(error, WitnessAnswerError::Syntax(_))),
    ] {
        let error = checkpoint.add_cosignature(answer.as_bytes(), &own).unwrap_err();
        assert!(is_expected(&error), "{answer:?}: {error:?}");
        assert_eq!(checkpoint, before);
    }
}

#[test]
fn a_receipt_says_who_witnessed_it_and_is_refused_without_those_that_are_asked_for() {
    let (log, witness) = (Log::of(5), witness());
    let index = 3.try_into().unwrap();
    let proof = log.tree.inclusion_proof(index, log.tree.size()).unwrap();
    let entry = 3_u64.to_be_bytes().to_vec();
    let mut receipt = Receipt { entry, index, proof, checkpoint: log.checkpoint() };
    let (key, asked) = (log.signer.verifier_key(), Witnesses::new(vec![witness.verifier_key()], 1).unwrap());
    let refused = receipt.verify_witnessed(&key, &asked).unwrap_err();
    assert!(matches!(refused, ReceiptError::Checkpoint(CheckpointError::Quorum { quorum: 1, found: 0 })));
    receipt.checkpoint.cosign(&witness, 9).unwrap();
    assert_eq!(receipt.verify_witnessed(&key, &asked).unwrap().cosignatures[0].at_seconds, 9);
    assert!(receipt.verify(&key).unwrap().cosignatures.is_empty(), "nobody was asked for");
}

proptest! {
    #[test]
    fn arbitrary_answers_are_no_panic_and_no_cosignature(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(\u{2014} [a-z.]{1,9} [A-Za-z0-9+/]{0,99}={0,2}\n){0,3}",
    ) {
        let mut checkpoint: SignedCheckpoint = COSIGNED.parse().unwrap();
        for answer in [bytes.as_slice(), text.as_bytes()] {
            prop_assert!(checkpoint.add_cosignature(answer, &key(WITNESS)).is_err());
        }
        let _ = witness_size(&bytes);
    }
}
