//! Several layers at once: whatever comes first, the image is as if they had come one after the other.

use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::*;

/// Reads all of a blob, then says so.
struct Announcing {
    bytes: Cursor<Vec<u8>>,
    at_end: Sender<()>,
}

impl Read for Announcing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        if read == 0 {
            // Whoever waited may have gone on.
            let _ = self.at_end.send(());
        }
        Ok(read)
    }
}

/// The same input, which tells `at_end` that all of it was read.
fn announcing(layer: LayerInput, at_end: Sender<()>) -> LayerInput {
    let open = layer.open;
    let announced: OpenBlob = Box::new(move || {
        let mut bytes = Vec::new();
        open()?.reader.read_to_end(&mut bytes)?;
        Ok(Blob { reader: Box::new(Announcing { bytes: Cursor::new(bytes), at_end }), check: None })
    });
    LayerInput { open: announced, ..layer }
}

/// The same input, of which nothing comes before `others` have said so many times that they were read.
fn after(layer: LayerInput, others: Receiver<()>, times: usize) -> LayerInput {
    let open = layer.open;
    let waiting: OpenBlob = Box::new(move || {
        for _ in 0..times {
            others.recv().unwrap();
        }
        open()
    });
    LayerInput { open: waiting, ..layer }
}

/// Layers of which the first is read last.
fn first_comes_last(layers: Vec<LayerInput>) -> Vec<LayerInput> {
    let (sender, receiver) = channel();
    let others = layers.len() - 1;
    let mut layers = layers.into_iter();
    let first = after(layers.next().unwrap(), receiver, others);
    std::iter::once(first).chain(layers.map(|layer| announcing(layer, sender.clone()))).collect()
}

#[test]
fn layers_lie_upon_each_other_in_their_order_whichever_was_read_first() {
    let layer = |content: &[u8]| plain(&archive(&[("file", Is::File(content)), ("link", Is::Symlink("file"))]));
    let directory = accepted(first_comes_last(vec![layer(b"lower"), layer(b"middle"), layer(b"upper")]));
    assert_eq!(std::fs::read(directory.path().join("root/file")).unwrap(), b"upper");
}

#[test]
fn a_whiteout_that_was_read_before_what_it_hides_hides_it() {
    let lower = archive(&[("d", Is::Directory(0o755)), ("d/gone", Is::File(b"")), ("gone", Is::File(b""))]);
    let upper = archive(&[("d/.wh..wh..opq", Is::File(b"")), ("d/new", Is::File(b"")), (".wh.gone", Is::File(b""))]);
    let directory = accepted(first_comes_last(vec![plain(&lower), plain(&upper)]));
    let root = directory.path().join("root");
    assert!(!root.join("gone").exists() && !root.join("d/gone").exists() && root.join("d/new").exists());
}

#[test]
fn a_hard_link_that_was_read_before_its_target_reaches_it() {
    let lower = archive(&[("target", Is::File(b"content"))]);
    let upper = archive(&[("link", Is::HardLink("target"))]);
    let directory = accepted(first_comes_last(vec![plain(&lower), plain(&upper)]));
    assert_eq!(std::fs::read(directory.path().join("root/link")).unwrap(), b"content");
}

/// Gives half of its bytes, and the rest only once the receiver got word.
struct Halved {
    first: Cursor<Vec<u8>>,
    rest: Cursor<Vec<u8>>,
    word: Option<Receiver<usize>>,
}

impl Read for Halved {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.first.read(buffer)? {
            0 => {
                if let Some(word) = self.word.take() {
                    word.recv().unwrap();
                }
                self.rest.read(buffer)
            }
            read => Ok(read),
        }
    }
}

#[test]
fn a_wrong_last_layer_ends_the_first_one_while_it_is_written_and_is_the_one_to_blame() {
    let content = vec![7; 3 << 20];
    let lower = archive(&[("first", Is::File(b"written")), ("large", Is::File(&content))]);
    let (first, rest) = lower.split_at(2 << 20);
    let (sender, word) = channel();
    let halved = Halved { first: Cursor::new(first.to_vec()), rest: Cursor::new(rest.to_vec()), word: Some(word) };
    let halved: OpenBlob = Box::new(move || Ok(Blob { reader: Box::new(halved), check: None }));
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let layer = gzip(&tar);
    let wrong = sealed(&layer, Digest::of(&layer), Digest::of(&tar), |bytes| bytes[20] ^= 1);
    let layers = vec![LayerInput { open: halved, ..plain(&lower) }, plain(&tar), wrong];

    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("root");
    let mut root = RootFilesystem::create(&target, Limits::default(), Privilege::current()).unwrap();
    let failed = Arc::new(Mutex::new(Vec::new()));
    let seen = failed.clone();
    let on_failure = move |layer| {
        seen.lock().unwrap().push(layer);
        // The first layer may have been ended, and its reader be gone, before this is told.
        let _ = sender.send(layer);
    };
    let error = root.apply(layers, &on_failure).unwrap_err();
    assert!(matches!(error.error, UnpackError::Check(What::Authentication)), "{error:?}");
    assert_eq!((error.layer, failed.lock().unwrap().as_slice()), (2, [2].as_slice()), "it was told once");
    drop(root);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn every_layer_is_checked_when_nothing_is_written() {
    let tar = archive(&[("hello", Is::File(b"world"))]);
    let layer = gzip(&tar);
    let right = || sealed(&layer, Digest::of(&layer), Digest::of(&tar), |_| {});
    let verify = |layers| runtime_shim::unpack::verify(layers, Limits::default(), &|_| {});
    assert_eq!(verify(vec![right(), plain(&tar)]).unwrap(), [tar.len() as u64; 2]);
    let flipped = sealed(&layer, Digest::of(&layer), Digest::of(&tar), |bytes| bytes[20] ^= 1);
    let other_promise = sealed(&layer, Digest::of(b"another"), Digest::of(&tar), |_| {});
    let other_tar = LayerInput { diff_id: Digest::of(b"another"), ..plain(&tar) };
    for (wrong, what) in
        [(flipped, What::Authentication), (other_promise, What::PlainDigest), (other_tar, What::DiffId)]
    {
        let error = verify(vec![right(), wrong]).unwrap_err();
        assert!(error.layer == 1 && matches!(error.error, UnpackError::Check(found) if found == what), "{error:?}");
    }
    let bomb = gzip(&vec![0; 8 << 20]);
    let bomb = sealed(&bomb, Digest::of(&bomb), Digest::of(b""), |_| {});
    let limits = Limits { plain_bytes: 1 << 20, ..Limits::default() };
    let error = runtime_shim::unpack::verify(vec![bomb], limits, &|_| {}).unwrap_err();
    assert!(matches!(error.error, UnpackError::Limit { .. }), "{error:?}");
}

#[test]
fn the_bytes_of_all_layers_together_are_limited() {
    let content = vec![0; 1 << 20];
    let layer = || plain(&archive(&[("file", Is::File(&content))]));
    let limits = Limits { plain_bytes: 5 << 19, ..Limits::default() };
    assert!(unpack(tempfile::tempdir().unwrap().path(), limits, vec![layer(), layer()]).is_ok());
    let error = refused(limits, vec![layer(), layer(), layer()]);
    assert!(matches!(error, UnpackError::Limit { what: "unpacked bytes", .. }), "{error:?}");
}

#[test]
fn a_name_that_comes_to_mean_another_directory_is_resolved_again() {
    let tar = archive(&[
        ("d", Is::Directory(0o755)),
        ("e", Is::Directory(0o755)),
        ("d/before", Is::File(b"")),
        ("d", Is::Symlink("e")),
        ("d/after", Is::File(b"")),
    ]);
    let directory = accepted(vec![plain(&tar)]);
    assert!(directory.path().join("root/e/after").exists() && !directory.path().join("root/e/before").exists());

    let lower = archive(&[("d", Is::Directory(0o755)), ("l", Is::Symlink("d"))]);
    let upper = archive(&[("l/before", Is::File(b"")), (".wh.l", Is::File(b"")), ("l/after", Is::File(b""))]);
    let root = accepted(vec![plain(&lower), plain(&upper)]);
    let root = root.path().join("root");
    assert!(root.join("d/before").exists() && !root.join("d/after").exists());
    assert!(root.join("l/after").exists() && !root.join("l").is_symlink());
}

#[test]
fn something_of_each_kind_replaces_something_of_each_other_kind() {
    let kinds = || [Is::File(b"x"), Is::Directory(0o755), Is::Symlink("nowhere"), Is::HardLink("other")];
    for old in kinds() {
        let lower = archive(&[("other", Is::File(b"")), ("name", old)]);
        for new in kinds() {
            let wanted = match new {
                Is::Directory(_) => "directory",
                Is::Symlink(_) => "symlink",
                _ => "file",
            };
            let directory = accepted(vec![plain(&lower), plain(&archive(&[("name", new)]))]);
            let found = directory.path().join("root/name").symlink_metadata().unwrap().file_type();
            let found = if found.is_dir() {
                "directory"
            } else if found.is_symlink() {
                "symlink"
            } else {
                "file"
            };
            assert_eq!(found, wanted);
        }
    }
}
