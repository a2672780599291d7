//! Layers that are confined to a directory put nothing elsewhere, by whatever kind of entry.

use runtime_shim::unpack::{LayerInput, Limits, UnpackError};

use super::{Is, accepted, archive, plain, refused};

/// The code that all partners have read, and what another partner has.
fn base() -> LayerInput {
    plain(&archive(&[
        ("app", Is::Directory(0o755)),
        ("app/code", Is::File(b"code")),
        ("partners", Is::Directory(0o711)),
        ("partners/b", Is::Directory(0o755)),
        ("partners/b/secret", Is::File(b"secret")),
        ("partners/link", Is::Symlink("/app")),
    ]))
}

fn confined(directory: &str, entries: &[(&str, Is<'_>)]) -> LayerInput {
    LayerInput { confinement: Some(directory.parse().unwrap()), ..plain(&archive(entries)) }
}

#[test]
fn a_confined_layer_fills_its_directory_and_leaves_those_above_as_they_are() {
    let layer = confined(
        "/partners/c",
        &[
            ("./", Is::Directory(0o777)),
            ("partners/", Is::Directory(0o777)),
            ("partners/c/", Is::Directory(0o750)),
            ("partners/c/model", Is::File(b"model")),
            ("partners/c/again", Is::HardLink("partners/c/model")),
            ("partners/c/elsewhere", Is::Symlink("/app/code")),
            ("partners/c/.wh.nothing", Is::File(b"")),
        ],
    );
    let root = accepted(vec![base(), layer]);
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(root.path().join("root").join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("partners"), 0o711, "the directory above is as it was");
    assert_eq!(mode("partners/c"), 0o750);
    assert_eq!(std::fs::read(root.path().join("root/partners/c/again")).unwrap(), b"model");
    assert_eq!(std::fs::read(root.path().join("root/app/code")).unwrap(), b"code");
    // Directories above that nobody has made are made.
    let alone = accepted(vec![confined("/a/b", &[("a/b/file", Is::File(b"x"))])]);
    assert!(alone.path().join("root/a/b/file").exists());
}

#[test]
fn a_confined_layer_reaches_nothing_else() {
    let cases: [(&str, &[(&str, Is<'_>)]); 11] = [
        ("/partners/c", &[("app/code", Is::File(b"other"))]),
        ("/partners/c", &[("app/", Is::Directory(0o777))]),
        ("/partners/c", &[("app/.wh.code", Is::File(b""))]),
        ("/partners/c", &[(".wh.app", Is::File(b""))]),
        ("/partners/c", &[("partners/.wh.b", Is::File(b""))]),
        ("/partners/c", &[("partners/.wh..wh..opq", Is::File(b""))]),
        ("/partners/c", &[("partners/cc", Is::File(b"x"))]),
        ("/partners/c", &[("partners", Is::Symlink("app"))]),
        ("/partners/c", &[("partners/c", Is::Symlink("/app"))]),
        ("/partners/c", &[("partners/c/secret", Is::HardLink("partners/b/secret"))]),
        ("/partners/c", &[("partners/c/code", Is::HardLink("app/code"))]),
    ];
    for (directory, entries) in cases {
        let error = refused(Limits::default(), vec![base(), confined(directory, entries)]);
        assert!(matches!(error, UnpackError::Entry { .. }), "{}: {error:?}", entries[0].0);
    }
}

#[test]
fn no_symbolic_link_leads_a_confined_layer_away() {
    let through_own = [("partners/c/out", Is::Symlink("/app")), ("partners/c/out/code", Is::File(b"other"))];
    let hidden = [("partners/c/out", Is::Symlink("/app")), ("partners/c/out/.wh.code", Is::File(b""))];
    let linked =
        [("partners/c/out", Is::Symlink("/partners/b")), ("partners/c/secret", Is::HardLink("partners/c/out/secret"))];
    for (directory, entries) in [
        ("/partners/c", &through_own[..]),
        ("/partners/c", &linked),
        ("/partners/link/c", &[("partners/link/c/file", Is::File(b"x"))]),
    ] {
        let error = refused(Limits::default(), vec![base(), confined(directory, entries)]);
        assert!(matches!(error, UnpackError::File { .. } | UnpackError::Entry { .. }), "{directory}: {error:?}");
    }
    // What cannot be there is not hidden either.
    let root = accepted(vec![base(), confined("/partners/c", &hidden)]);
    assert_eq!(std::fs::read(root.path().join("root/app/code")).unwrap(), b"code");
}
