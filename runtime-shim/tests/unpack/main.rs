//! The unpacker against archives that are wrong in one thing each: the error's variant, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod confined;
mod layers;

use std::io::{Cursor, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use image_store::Digest;
use ocicrypt::cipher::{self, AES_256_CTR_HMAC_SHA256};
use ocicrypt::layer::{LayerAnnotations, SealedLayer};
use proptest::prelude::*;
use runtime_shim::unpack::{
    Blob, LayerCompression, LayerInput, Limits, OpenBlob, Privilege, RootFilesystem, Sealing, UnpackError, What,
};
use tar::{Builder, EntryType, Header};

/// What one entry of a test archive is.
enum Is<'a> {
    File(&'a [u8]),
    Directory(u32),
    Symlink(&'a str),
    HardLink(&'a str),
}

fn archive(entries: &[(&str, Is<'_>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, is) in entries {
        let mut header = Header::new_gnu();
        header.set_mtime(1_700_000_000);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        let mut data: &[u8] = &[];
        match is {
            Is::File(content) => {
                header.set_size(content.len() as u64);
                data = content;
            }
            Is::Directory(mode) => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(*mode);
            }
            Is::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name_literal(target).unwrap();
            }
            Is::HardLink(target) => {
                header.set_entry_type(EntryType::Link);
                header.set_link_name_literal(target).unwrap();
            }
        }
        // Names that the builder would refuse to write.
        let bytes = header.as_mut_bytes();
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A blob whose reader says that it is right.
fn blob(bytes: Vec<u8>) -> OpenBlob {
    Box::new(|| Ok(Blob { reader: Box::new(Cursor::new(bytes)), check: None }))
}

fn plain(tar: &[u8]) -> LayerInput {
    LayerInput {
        open: blob(tar.to_vec()),
        sealing: Sealing::Plain,
        compression: LayerCompression::None,
        diff_id: Digest::of(tar),
        confinement: None,
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Encrypts `layer`, lets `spoil` change ciphertext and annotations, and prepares it for unpacking.
fn sealed(layer: &[u8], promised: Digest, diff_id: Digest, spoil: impl FnOnce(&mut Vec<u8>)) -> LayerInput {
    let kek = cipher::KeyEncryptionKey::generate().unwrap();
    let kid = "kbs:///product/image-key/1".parse().unwrap();
    let mut encryptor = cipher::by_name(AES_256_CTR_HMAC_SHA256).unwrap().encryptor().unwrap();
    let mut bytes = layer.to_vec();
    encryptor.apply(&mut bytes).unwrap();
    let (public, private) = encryptor.finish(cipher::Digest::from_bytes(*promised.hash()));
    let annotations = LayerAnnotations::new(public, &private).with_kek(&kid, &kek).unwrap().build().unwrap();
    let sealed = SealedLayer::parse(&annotations).unwrap();
    spoil(&mut bytes);
    LayerInput {
        open: blob(bytes),
        sealing: Sealing::Sealed(Box::new(sealed.decryptor(sealed.open_with_kek(&kek).unwrap()).unwrap())),
        compression: LayerCompression::Gzip,
        diff_id,
        confinement: None,
    }
}

/// Applies layers; the root file system is at `directory/root` when all of them verified.
fn unpack(directory: &Path, limits: Limits, layers: Vec<LayerInput>) -> Result<(), UnpackError> {
    let mut root = RootFilesystem::create(&directory.join("root"), limits, Privilege::current())?;
    root.apply(layers, &|_| {}).map_err(|error| error.error)?;
    root.finish().map(drop)
}

/// Unpacks, and asserts that a failure leaves an empty directory.
fn refused(limits: Limits, layers: Vec<LayerInput>) -> UnpackError {
    let directory = tempfile::tempdir().unwrap();
    let error = unpack(directory.path(), limits, layers).unwrap_err();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
    error
}

fn accepted(layers: Vec<LayerInput>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    unpack(directory.path(), Limits::default(), layers).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "only the root file system is there");
    directory
}

#[test]
fn a_sealed_layer_is_unpacked_when_everything_is_right() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let layer = gzip(&tar);
    let directory = accepted(vec![sealed(&layer, Digest::of(&layer), Digest::of(&tar), |_| {})]);
    assert_eq!(std::fs::read(directory.path().join("root/hello")).unwrap(), b"world");
}

#[test]
fn a_promised_digest_of_the_tar_is_accepted_as_skopeo_writes_it() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    accepted(vec![sealed(&gzip(&tar), Digest::of(&tar), Digest::of(&tar), |_| {})]);
}

#[test]
fn every_flipped_ciphertext_byte_is_refused() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let layer = gzip(&tar);
    for at in 0..layer.len() {
        let input = sealed(&layer, Digest::of(&layer), Digest::of(&tar), |bytes| bytes[at] ^= 1);
        let error = refused(Limits::default(), vec![input]);
        assert!(matches!(error, UnpackError::Check(What::Authentication)), "byte {at}: {error:?}");
    }
}

#[test]
fn a_truncated_ciphertext_is_refused() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let layer = gzip(&tar);
    let input = sealed(&layer, Digest::of(&layer), Digest::of(&tar), |bytes| bytes.truncate(bytes.len() - 1));
    assert!(matches!(refused(Limits::default(), vec![input]), UnpackError::Check(What::Authentication)));
}

#[test]
fn a_plain_digest_that_was_not_promised_is_refused() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let layer = gzip(&tar);
    let input = sealed(&layer, Digest::of(b"another"), Digest::of(&tar), |_| {});
    assert!(matches!(refused(Limits::default(), vec![input]), UnpackError::Check(What::PlainDigest)));
}

#[test]
fn a_diff_id_of_another_tar_is_refused() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let layer = gzip(&tar);
    let input = sealed(&layer, Digest::of(&layer), Digest::of(b"another"), |_| {});
    assert!(matches!(refused(Limits::default(), vec![input]), UnpackError::Check(What::DiffId)));
}

#[test]
fn bytes_behind_the_compressed_stream_are_refused() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    for garbage in [b"garbage".as_slice(), &[0]] {
        let layer = [gzip(&tar).as_slice(), garbage].concat();
        let input = sealed(&layer, Digest::of(&layer), Digest::of(&tar), |_| {});
        let error = refused(Limits::default(), vec![input]);
        assert!(matches!(error, UnpackError::Check(What::Compression)), "{error:?}");
    }
}

#[test]
fn several_gzip_members_and_zstd_frames_are_one_stream() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let (first, second) = tar.split_at(700);
    let layers = [
        (LayerCompression::Gzip, [gzip(first), gzip(second)].concat()),
        (LayerCompression::Zstd, [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 1).unwrap()].concat()),
    ];
    for (compression, bytes) in layers {
        accepted(vec![LayerInput { compression, open: blob(bytes), ..plain(&tar) }]);
    }
}

#[test]
fn a_decompression_bomb_ends_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    let layer = gzip(&zeros);
    let limits = Limits { expansion_from_bytes: 1 << 20, expansion: 50, ..Limits::default() };
    let input = || sealed(&layer, Digest::of(&layer), Digest::of(&zeros), |_| {});
    assert!(matches!(refused(limits, vec![input()]), UnpackError::Limit { .. }));
    let limits = Limits { plain_bytes: 1 << 20, ..Limits::default() };
    assert!(matches!(refused(limits, vec![input()]), UnpackError::Limit { .. }));
}

#[test]
fn too_many_entries_and_too_deep_paths_are_refused() {
    let tar = archive(&[("a", Is::File(b"")), ("b", Is::File(b"")), ("c", Is::File(b""))]);
    let error = refused(Limits { entries: 2, ..Limits::default() }, vec![plain(&tar)]);
    assert!(matches!(error, UnpackError::Limit { what: "entries", .. }));
    let tar = archive(&[("a/a/a/a/a/a", Is::File(b""))]);
    assert!(matches!(refused(Limits { depth: 5, ..Limits::default() }, vec![plain(&tar)]), UnpackError::Entry { .. }));
}

#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../escape", "a/../../escape", "a/..", ".."] {
        let error = refused(Limits::default(), vec![plain(&archive(&[(name, Is::File(b"x"))]))]);
        assert!(matches!(error, UnpackError::Entry { .. }), "{name}: {error:?}");
    }
}

#[test]
fn an_absolute_name_stays_inside() {
    let directory = accepted(vec![plain(&archive(&[("/etc/hostname", Is::File(b"inside"))]))]);
    assert_eq!(std::fs::read(directory.path().join("root/etc/hostname")).unwrap(), b"inside");
}

#[test]
fn a_symlink_to_the_outside_leads_to_the_inside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().display().to_string();
    let tar = archive(&[
        ("absolute", Is::Symlink(&target)),
        ("climbing", Is::Symlink("../../../../../../../../tmp")),
        ("loop", Is::Symlink("loop")),
    ]);
    let through = |name: &str| plain(&archive(&[(name, Is::File(b"planted"))]));
    let directory =
        accepted(vec![plain(&archive(&[("tmp", Is::Directory(0o755))])), plain(&tar), through("climbing/planted")]);
    assert_eq!(std::fs::read(directory.path().join("root/tmp/planted")).unwrap(), b"planted");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    for name in ["absolute/planted", "loop/planted"] {
        let error = refused(Limits::default(), vec![plain(&tar), through(name)]);
        assert!(matches!(error, UnpackError::File { .. }), "{name}: {error:?}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_file_replaces_a_symlink_and_never_writes_through_it() {
    let victim = archive(&[("victim", Is::File(b"old")), ("link", Is::Symlink("victim"))]);
    let directory = accepted(vec![plain(&victim), plain(&archive(&[("link", Is::File(b"new"))]))]);
    assert_eq!(std::fs::read(directory.path().join("root/victim")).unwrap(), b"old");
    assert_eq!(std::fs::read(directory.path().join("root/link")).unwrap(), b"new");
}

#[test]
fn hard_links_reach_lower_layers_and_nothing_else() {
    let lower = archive(&[("dir", Is::Directory(0o755)), ("dir/file", Is::File(b"one"))]);
    let upper = archive(&[("second", Is::HardLink("dir/file"))]);
    let directory = accepted(vec![plain(&lower), plain(&upper)]);
    assert_eq!(std::fs::metadata(directory.path().join("root/second")).unwrap().nlink(), 2);
    for target in ["../../../../etc/passwd", "missing", "/", "dir/missing"] {
        let error = refused(Limits::default(), vec![plain(&lower), plain(&archive(&[("link", Is::HardLink(target))]))]);
        assert!(matches!(error, UnpackError::Entry { .. }), "{target}: {error:?}");
    }
}

#[test]
fn whiteouts_hide_lower_layers_and_never_their_own() {
    let lower = archive(&[
        ("d", Is::Directory(0o755)),
        ("d/lower", Is::File(b"")),
        ("d/sub", Is::Directory(0o755)),
        ("d/sub/lower", Is::File(b"")),
        ("gone", Is::File(b"")),
    ]);
    // The opaque mark comes after what its own layer wrote, and one whiteout is a hard link, as some tools write them.
    let upper = archive(&[
        ("d/sub/upper", Is::File(b"")),
        ("d/upper", Is::File(b"")),
        ("d/.wh..wh..opq", Is::File(b"")),
        (".wh.gone", Is::HardLink("d/.wh..wh..opq")),
        (".wh.never-there", Is::File(b"")),
        ("absent/.wh.x", Is::File(b"")),
    ]);
    let directory = accepted(vec![plain(&lower), plain(&upper)]);
    let root = directory.path().join("root");
    let names = |path: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&root), ["d"]);
    assert_eq!(names(&root.join("d")), ["sub", "upper"]);
    assert_eq!(names(&root.join("d/sub")), ["upper"]);
}

#[test]
fn closed_directories_are_filled_and_closed_again() {
    let lower = archive(&[("closed", Is::Directory(0o555)), ("closed/a", Is::File(b""))]);
    let upper = archive(&[("closed/b", Is::File(b""))]);
    let directory = accepted(vec![plain(&lower), plain(&upper)]);
    let closed = directory.path().join("root/closed");
    assert_eq!(std::fs::metadata(&closed).unwrap().permissions().mode() & 0o7777, 0o555);
    assert_eq!(std::fs::metadata(&closed).unwrap().mtime(), 1_700_000_000, "a child does not change its time");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_target_that_exists_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("root")).unwrap();
    let error = unpack(directory.path(), Limits::default(), Vec::new()).unwrap_err();
    assert!(matches!(error, UnpackError::Exists(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic_or_leave_anything_behind(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let directory = tempfile::tempdir().unwrap();
        let unpacked = unpack(directory.path(), Limits::default(), vec![plain(&bytes)]);
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        prop_assert_eq!(left, usize::from(unpacked.is_ok()));
    }

    #[test]
    fn no_name_escapes(name in "[a./]{1,40}", link in "[a./]{1,40}") {
        let directory = tempfile::tempdir().unwrap();
        let tar = archive(&[("a", Is::Symlink(&link)), (&name, Is::File(b"x"))]);
        // Refused or inside: beside the root file system nothing appears.
        let _ = unpack(directory.path(), Limits::default(), vec![plain(&tar)]);
        prop_assert!(std::fs::read_dir(directory.path()).unwrap().count() <= 1);
    }
}
