//! The peer `aics-tlog`, which shares no code with this crate, reads what is written here: signed checkpoints, cosignatures,
//! proofs and a tree of tiles. It refuses the same after an alteration.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

#[path = "support/python.rs"]
mod python;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use transparency_log::{
    Checkpoint, Cosigner, Hash, HashSource as _, KeyName, MemoryTree, NoteSigner, SignedCheckpoint, TileKind, TreeSize,
    encode_bundle, tile_paths,
};

/// The log reader, in a version whose command line is known. It asks for Python 3.12 and runs on Debian's 3.11 too.
const PEER: &str = "aics-tlog==0.2.1";

/// A log of `entry 0`, `entry 1`, … with a key, and files for the peer to read.
struct Log {
    python: PathBuf,
    directory: TempDir,
    signer: NoteSigner,
    tree: MemoryTree,
}

impl Log {
    fn new(leaves: u64) -> Self {
        let signer = NoteSigner::generate(name("log.example/audit")).expect("a key");
        let mut tree = MemoryTree::default();
        for number in 0..leaves {
            tree.append(&entry(number)).expect("a leaf");
        }
        Self { python: python::with_peer(PEER), directory: tempfile::tempdir().expect("a directory"), signer, tree }
    }

    fn checkpoint(&self, leaves: u64) -> SignedCheckpoint {
        Checkpoint::new(self.signer.name().clone(), size(leaves), self.root(leaves))
            .and_then(|checkpoint| checkpoint.sign(&self.signer))
            .expect("a checkpoint")
    }

    fn root(&self, leaves: u64) -> Hash {
        transparency_log::root(&self.tree, size(leaves)).expect("a root")
    }

    /// Writes all tiles of the log as it was at `leaves`.
    fn write_tiles(&self, leaves: u64) -> PathBuf {
        for path in tile_paths(size(leaves)) {
            let bytes = if let TileKind::Hashes(_) = path.kind() {
                let nodes = path.nodes().expect("nodes").into_iter();
                nodes.flat_map(|node| *self.tree.hash(node).expect("a hash").as_bytes()).collect()
            } else {
                let entries: Vec<_> = (path.start()..).take(usize::from(path.width())).map(entry).collect();
                encode_bundle(entries.iter().map(Vec::as_slice)).expect("a bundle")
            };
            self.file(&format!("tiles/{path}"), &bytes);
        }
        self.directory.path().join("tiles")
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    }

    /// Whether the peer agrees; it says so by its exit code and by one JSON object.
    fn ask(&self, arguments: &[&str]) -> bool {
        let told = Command::new(&self.python).args(["-m", "aics_tlog"]).args(arguments).output().expect("the peer");
        let answer: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?}: the peer gave no JSON ({error}): {}", String::from_utf8_lossy(&told.stderr))
        });
        assert_eq!(answer["ok"], serde_json::Value::Bool(told.status.success()), "{arguments:?}: {answer}");
        told.status.success()
    }
}

fn name(text: &str) -> KeyName {
    text.parse().expect("a name")
}

fn size(leaves: u64) -> TreeSize {
    leaves.try_into().expect("a size")
}

fn entry(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

fn lines(hashes: &[Hash]) -> String {
    hashes.iter().flat_map(|hash| [hash.to_string(), "\n".to_owned()]).collect()
}

/// The first of the hashes with one bit of it turned over.
fn altered(hashes: &[Hash]) -> String {
    let mut hashes = hashes.to_vec();
    let first = hashes.first_mut().expect("a hash");
    let mut bytes = *first.as_bytes();
    bytes[31] ^= 1;
    *first = Hash::new(bytes);
    lines(&hashes)
}

#[test]
fn the_peer_believes_our_checkpoints_and_no_altered_one() {
    let log = Log::new(5);
    let key = log.signer.verifier_key().to_string();
    let good = log.checkpoint(5).to_string();
    let asked = |note: &str| {
        let file = log.file("checkpoint", note);
        log.ask(&["verify-checkpoint", "--note", &file, "--log-key", &key, "--origin", "log.example/audit"])
    };
    assert!(asked(&good));
    assert!(!asked(&good.replace("\n5\n", "\n6\n")));
    assert!(!asked(&good.replace(&log.root(5).to_string(), &log.root(4).to_string())));
    let other = Log::new(5).checkpoint(5).to_string();
    assert!(!asked(&other), "another key of the same name");
}

#[test]
fn the_peer_counts_our_cosignatures() {
    let log = Log::new(3);
    let witness = Cosigner::generate(name("witness.example/w1")).expect("a key");
    let (key, witness_key) = (log.signer.verifier_key().to_string(), witness.verifier_key().to_string());
    let mut checkpoint = log.checkpoint(3);
    let asked = |checkpoint: &SignedCheckpoint| {
        let file = log.file("checkpoint", checkpoint.to_string());
        let quorum = ["--witness-key", &witness_key, "--quorum", "1"];
        log.ask(&[&["verify-checkpoint", "--note", &file, "--log-key", &key], quorum.as_slice()].concat())
    };
    assert!(!asked(&checkpoint), "nobody has signed yet");
    checkpoint.cosign(&witness, 1_790_000_000).expect("a cosignature");
    assert!(asked(&checkpoint));
}

#[test]
fn the_peer_verifies_our_proofs_and_no_altered_one() {
    let log = Log::new(300);
    let root = log.root(300).to_string();
    let inclusion = log.tree.inclusion_proof(123.try_into().expect("an index"), size(300)).expect("a proof");
    let included = |entry: Vec<u8>, index: &str, proof: &str| {
        let (leaf, proof) = (log.file("leaf", entry), log.file("inclusion", proof));
        log.ask(&[
            "verify-inclusion",
            "--leaf",
            &leaf,
            "--index",
            index,
            "--size",
            "300",
            "--root",
            &root,
            "--proof",
            &proof,
        ])
    };
    assert!(included(entry(123), "123", &lines(inclusion.hashes())));
    assert!(!included(entry(124), "123", &lines(inclusion.hashes())));
    assert!(!included(entry(123), "122", &lines(inclusion.hashes())));
    assert!(!included(entry(123), "123", &altered(inclusion.hashes())));

    let consistency = log.tree.consistency_proof(size(77), size(300)).expect("a proof");
    let consistent = |old_root: Hash, proof: &str| {
        let (old_root, proof) = (old_root.to_string(), log.file("consistency", proof));
        let sizes = ["verify-consistency", "--old-size", "77", "--new-size", "300"];
        log.ask(&[&sizes, ["--old-root", &old_root, "--new-root", &root, "--proof", &proof].as_slice()].concat())
    };
    assert!(consistent(log.root(77), &lines(consistency.hashes())));
    assert!(!consistent(log.root(78), &lines(consistency.hashes())));
    assert!(!consistent(log.root(77), &altered(consistency.hashes())));
}

#[test]
fn the_peer_reads_our_tiles_and_refuses_altered_ones() {
    let log = Log::new(600);
    let key = log.signer.verifier_key().to_string();
    let tiles = log.write_tiles(600);
    let folder = tiles.display().to_string();
    log.file("tiles/checkpoint", log.checkpoint(600).to_string());
    let old = log.file("old", log.checkpoint(300).to_string());
    let out = log.directory.path().join("entry").display().to_string();
    let included =
        || log.ask(&["verify-inclusion", "--tiles", &folder, "--log-key", &key, "--index", "599", "--entry-out", &out]);
    let consistent =
        |old: &str| log.ask(&["verify-consistency", "--tiles", &folder, "--log-key", &key, "--old-checkpoint", old]);
    assert!(included());
    assert_eq!(fs::read(&out).expect("the entry"), entry(599));
    assert!(consistent(&old));
    let another_history = Checkpoint::new(log.signer.name().clone(), size(300), log.root(299))
        .and_then(|checkpoint| checkpoint.sign(&log.signer))
        .expect("a checkpoint");
    assert!(!consistent(&log.file("forked", another_history.to_string())));

    for altered in ["tile/entries/002.p/88", "tile/0/002.p/88"] {
        let path = tiles.join(altered);
        let good = fs::read(&path).expect("a tile");
        let mut bytes = good.clone();
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(&path, bytes).expect("a file");
        assert!(!included(), "{altered}");
        fs::write(&path, good).expect("a file");
    }
    assert!(included());
}
