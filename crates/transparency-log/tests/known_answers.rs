//! Answers that others have published: the eight-leaf tree that implementations of Certificate Transparency test with (the
//! test data of `transparency-dev/merkle` and of Trillian before it), and the examples in the C2SP texts.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use transparency_log::{
    Checkpoint, Hash, KeyError, KeyKind, LeafIndex, MemoryTree, NoteError, SignedNote, TilePath, TreeSize, VerifierKey,
    tile_paths,
};

const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn size(leaves: u64) -> TreeSize {
    leaves.try_into().unwrap()
}

fn index(leaf: u64) -> LeafIndex {
    leaf.try_into().unwrap()
}

fn eight() -> MemoryTree {
    let mut tree = MemoryTree::default();
    for leaf in LEAVES {
        tree.append(&hex::decode(leaf).unwrap()).unwrap();
    }
    tree
}

fn texts(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| hex::encode(hash.as_bytes())).collect()
}

#[test]
fn the_roots_of_the_well_known_tree_come_out() {
    let tree = eight();
    for (leaves, expected) in (0_u64..).zip(ROOTS) {
        let root = transparency_log::root(&tree, size(leaves)).unwrap();
        assert_eq!(hex::encode(root.as_bytes()), expected, "{leaves} leaves");
    }
}

#[test]
fn the_proofs_of_the_well_known_tree_come_out() {
    let tree = eight();
    assert!(tree.inclusion_proof(index(0), size(1)).unwrap().hashes().is_empty());
    assert_eq!(
        texts(tree.inclusion_proof(index(0), size(8)).unwrap().hashes()),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    assert_eq!(
        texts(tree.inclusion_proof(index(5), size(8)).unwrap().hashes()),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert!(tree.consistency_proof(size(1), size(1)).unwrap().hashes().is_empty());
    assert_eq!(
        texts(tree.consistency_proof(size(6), size(8)).unwrap().hashes()),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(
        texts(tree.consistency_proof(size(2), size(5)).unwrap().hashes()),
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ]
    );
}

/// The example of C2SP signed-note.
const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
                    Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

#[test]
fn the_note_of_the_specification_is_believed_and_an_altered_one_is_not() {
    let key: VerifierKey = KEY.parse().unwrap();
    assert_eq!(key.to_string(), KEY);
    assert_eq!(key.kind(), KeyKind::Ed25519);
    let note: SignedNote = NOTE.parse().unwrap();
    assert_eq!(note.to_string(), NOTE);
    assert_eq!(note.verify(std::slice::from_ref(&key)).unwrap().len(), 1);

    let altered: SignedNote = NOTE.replace("example m", "sample m").parse().unwrap();
    assert_eq!(altered.verify(std::slice::from_ref(&key)), Err(NoteError::Signature(key.name().clone())));
    let renamed: SignedNote = NOTE.replace("example.com/foo", "example.com/bar").parse().unwrap();
    assert_eq!(renamed.verify(&[key]), Err(NoteError::Unsigned));
}

#[test]
fn the_checkpoint_of_the_specification_is_read_and_written() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let checkpoint: Checkpoint = text.parse().unwrap();
    assert_eq!(checkpoint.size.get(), 20_852_163);
    assert_eq!(checkpoint.origin.as_str(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.to_string(), text);
}

#[test]
fn verifier_keys_that_are_not_what_they_say_are_refused() {
    let parse = |text: &str| text.parse::<VerifierKey>().unwrap_err();
    assert_eq!(parse(&KEY.replace("530d903a", "530d903b")), KeyError::Id);
    assert_eq!(parse(&KEY.replace("530d903a", "530D903A")), KeyError::Id);
    assert_eq!(parse(&KEY.replace("+Ae", "+Ce")), KeyError::Kind(9));
    assert_eq!(parse(&KEY.replace("example.com/foo", "example com")), KeyError::Name);
    assert_eq!(parse("example.com/foo+530d903a"), KeyError::Syntax);
    let key = |first: u8, last: u8| {
        let mut public = [if last & 0x7f == 0x7f { 0xff } else { 0 }; 32];
        (public[0], public[31]) = (first, last);
        VerifierKey::new("log.example".parse().unwrap(), KeyKind::Ed25519, public)
    };
    for (first, last) in [(0, 0), (1, 0), (1, 0x80), (0xec, 0x7f), (0xed, 0x7f), (0xee, 0xff)] {
        assert_eq!(key(first, last), Err(KeyError::Weak), "{first:02x}…{last:02x}");
    }
    key(0xeb, 0x7f).unwrap();
}

#[test]
fn the_tiles_of_the_specifications_examples_come_out() {
    let path: TilePath = "tile/0/x001/x234/067".parse().unwrap();
    assert_eq!(path.index(), 1_234_067);
    let paths: Vec<_> = tile_paths(size(70_000)).map(|path| path.to_string()).collect();
    let of = |prefix: &str| paths.iter().filter(|path| path.starts_with(prefix)).count();
    assert_eq!((of("tile/0/"), of("tile/1/"), of("tile/2/"), of("tile/entries/")), (274, 2, 1, 274));
    for partial in ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/273.p/112"] {
        assert!(paths.iter().any(|path| path == partial), "{partial}");
    }
    let paths: Vec<_> = tile_paths(size(256)).map(|path| path.to_string()).collect();
    assert_eq!(paths, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(tile_paths(size(0)).count(), 0);
}
