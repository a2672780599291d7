//! Layers that are added on top of an image: plain tars, sealed as they are added, whatever seals the layers below.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{Descriptor, Digest, Hasher, ImageReference, Selector, Store, StoreOptions, media_type};
use release_protocol::Confinement;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// The layers, as a store that lends the files: a layer of any size goes through the pipeline that all others go through.
pub(crate) struct Appended {
    pub(super) store: Store,
    /// From the lowest to the topmost.
    pub(super) layers: Vec<Descriptor>,
    _directory: TempDir,
}

impl Appended {
    /// Takes in plain tars, whose every entry has to be in the directory that they are confined to. `None` where there are
    /// no files.
    pub(crate) async fn read(files: &[PathBuf], confinement: Option<&Confinement>) -> Result<Option<Self>, Failure> {
        if files.is_empty() {
            return Ok(None);
        }
        let cannot = || "cannot make a temporary directory".to_owned();
        let directory = TempDir::new().or_fail(ExitCode::Other, cannot)?;
        let blobs = directory.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).or_fail(ExitCode::Other, cannot)?;
        for (name, text) in [
            ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", r#"{"schemaVersion":2,"manifests":[]}"#),
        ] {
            std::fs::write(directory.path().join(name), text).or_fail(ExitCode::Other, cannot)?;
        }
        let mut layers = Vec::with_capacity(files.len());
        for file in files {
            let (path, confined) = (file.clone(), confinement.cloned());
            let looked =
                spawn_blocking(move || look(&path, confined.as_ref())).await.or_fail(ExitCode::Other, cannot)?;
            let (digest, size) = looked?;
            let file =
                file.canonicalize().or_fail(ExitCode::BadInput, || format!("cannot find `{}`", file.display()))?;
            let link = blobs.join(digest.hex());
            if !link.exists() {
                symlink(file, link).or_fail(ExitCode::Other, cannot)?;
            }
            layers.push(Descriptor::new(media_type::OCI_LAYER, digest, size));
        }
        let reference = ImageReference::Oci { directory: directory.path().to_owned(), image: Selector::Only };
        let store = Store::open(&reference, &StoreOptions::default())
            .await
            .map_err(|error| store_failure("cannot read the layers to append", &error))?;
        Ok(Some(Self { store, layers, _directory: directory }))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.layers.len()
    }
}

/// Reads a tar twice: its entries' names, then its digest.
fn look(path: &Path, confinement: Option<&Confinement>) -> Result<(Digest, u64), Failure> {
    let name = path.display();
    // Without the reader's own words, which quote what it has read.
    let no_tar =
        |_| Failure::bad_input(format!("`{name}` is no plain tar")).hint("append the layer as an uncompressed tar");
    let mut file = File::open(path).or_fail(ExitCode::BadInput, || format!("cannot read `{name}`"))?;
    let mut archive = tar::Archive::new(&file);
    let mut entries = 0;
    for entry in archive.entries_with_seek().map_err(no_tar)? {
        let entry = entry.map_err(no_tar)?;
        let inside = entry.path().map_err(no_tar)?;
        if let Some(confinement) = confinement.filter(|confinement| !is_held_to(&inside, confinement)) {
            return Err(Failure::bad_input(format!("`{}` in `{name}` is not in {confinement}", inside.display()))
                .hint("put the component below the directory that `--confine` names, where no other partner puts anything"));
        }
        entries += 1;
    }
    if entries == 0 {
        return Err(Failure::bad_input(format!("`{name}` has no entries")));
    }
    file.rewind().or_fail(ExitCode::BadInput, || format!("cannot read `{name}`"))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let bytes = file.read(&mut buffer).or_fail(ExitCode::BadInput, || format!("cannot read `{name}`"))?;
        if bytes == 0 {
            break;
        }
        hasher.update(buffer.get(..bytes).unwrap_or_default());
    }
    let size = hasher.bytes();
    Ok((hasher.finish(), size))
}

/// Whether it is the directory or in it; or one of the directories above, which the shim makes where they are missing.
fn is_held_to(entry: &Path, confinement: &Confinement) -> bool {
    let entry: PathBuf = entry.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    entry.starts_with(confinement.inner()) || confinement.inner().starts_with(&entry)
}
