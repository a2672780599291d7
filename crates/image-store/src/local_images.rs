//! Finding images in an `index.json`, wherever it lies: shared by layouts and archives. Everything here blocks.

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Corruption, Error, UsageError};
use crate::limits;
use crate::local::Extent;
use crate::manifest::{Index, ManifestError, RawManifest};
use crate::reference::Selector;

/// A local store of images.
pub(crate) trait LocalImages: Send + Sync + 'static {
    /// The reference of the store, for messages.
    fn name(&self) -> &str;

    /// What is in it.
    fn index(&self) -> Result<Index, Error>;

    /// Where a blob lies; [`Error::NotFound`] when there is none.
    fn extent(&self, digest: &Digest) -> Result<Extent, Error>;

    /// The manifest that a reference selects.
    fn select(&self, selector: &Selector) -> Result<RawManifest, Error> {
        match selector {
            Selector::Digest(digest) => self.manifest(digest),
            Selector::Tag(tag) => self.tagged(tag),
            Selector::Only => {
                let index = self.index()?;
                let mut images: Vec<_> = index.manifests.iter().filter(|entry| !is_companion(entry)).collect();
                if images.is_empty() {
                    images = index.manifests.iter().collect();
                }
                let entry = the_one(&images, self.name())?;
                self.read(entry).map_err(|error| self.dangling(error, entry))
            }
        }
    }

    /// The manifest with a tag.
    fn tagged(&self, tag: &str) -> Result<RawManifest, Error> {
        let index = self.index()?;
        let entries: Vec<_> = index.manifests.iter().filter(|entry| entry.ref_name() == Some(tag)).collect();
        if entries.is_empty() {
            return Err(Error::NotFound { object: format!("tag {tag}"), store: self.name().to_owned() });
        }
        let entry = the_one(&entries, self.name())?;
        self.read(entry).map_err(|error| self.dangling(error, entry))
    }

    /// The manifest with a digest, named in the index or not.
    fn manifest(&self, digest: &Digest) -> Result<RawManifest, Error> {
        let index = self.index()?;
        if let Some(entry) = index.manifests.iter().find(|entry| entry.digest == *digest) {
            return self.read(entry);
        }
        let extent = self.extent(digest)?;
        self.read_extent(&extent, *digest, None)
    }

    /// The manifest that a descriptor of the index points at.
    fn read(&self, entry: &Descriptor) -> Result<RawManifest, Error> {
        let extent = self.extent(&entry.digest)?;
        if extent.bytes() != entry.size {
            let source = Corruption::Size { found: extent.bytes(), wanted: entry.size };
            return Err(Error::corrupt(object(entry.digest), self.name(), source));
        }
        self.read_extent(&extent, entry.digest, Some(&entry.media_type))
    }

    /// Reads a manifest within its limit and checks its digest.
    fn read_extent(&self, extent: &Extent, digest: Digest, announced: Option<&str>) -> Result<RawManifest, Error> {
        let corrupt = |source: Corruption| Error::corrupt(object(digest), self.name(), source);
        if extent.bytes() > limits::MANIFEST_BYTES as u64 {
            let found = usize::try_from(extent.bytes()).unwrap_or(usize::MAX);
            return Err(corrupt(ManifestError::Size { found }.into()));
        }
        let bytes = extent.read_at(0, limits::MANIFEST_BYTES)?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(corrupt(Corruption::Digest { found, wanted: digest }));
        }
        RawManifest::new(bytes, announced).map_err(|error| corrupt(error.into()))
    }

    /// An index that names a manifest which is not there is corrupt, not merely without it.
    fn dangling(&self, error: Error, entry: &Descriptor) -> Error {
        match error {
            Error::NotFound { .. } => Error::corrupt(
                "index.json",
                self.name(),
                Corruption::Archive { problem: format!("it names manifest {}, which is missing", entry.digest) },
            ),
            error => error,
        }
    }
}

/// Whether an entry only accompanies an image: signatures, attestations and SBOMs by cosign's tags.
fn is_companion(entry: &Descriptor) -> bool {
    entry.ref_name().is_some_and(|name| {
        name.strip_prefix("sha256-")
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(hash, kind)| hash.len() == 2 * Digest::LEN && matches!(kind, "sig" | "att" | "sbom"))
    })
}

fn the_one<'a>(entries: &[&'a Descriptor], store: &str) -> Result<&'a Descriptor, Error> {
    match entries {
        [] => Err(Error::NotFound { object: "image".to_owned(), store: store.to_owned() }),
        [first, rest @ ..] if rest.iter().all(|entry| entry.digest == first.digest) => Ok(first),
        several => {
            let tags = several
                .iter()
                .map(|entry| entry.ref_name().map_or_else(|| format!("@{}", entry.digest), str::to_owned))
                .collect();
            Err(UsageError::Ambiguous { store: store.to_owned(), tags }.into())
        }
    }
}

fn object(digest: Digest) -> String {
    format!("manifest {digest}")
}
