//! The face of the crate: one type for every place where images live, and reading from it.

mod referrer;
mod write;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

pub use self::write::{CopyOutcome, Place};
use crate::archive::{Archive, StagedArchive, normalized_name};
use crate::blob::{BlobCheck, BlobStream};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, UsageError};
use crate::layout::Layout;
use crate::local::{self, blocking};
use crate::local_images::LocalImages;
use crate::manifest::{ManifestError, RawManifest};
use crate::options::StoreOptions;
use crate::reference::{ImageReference, Selector, is_ref_name, is_tag};
use crate::registry::{self, Access, Registry};

/// A place where images live, opened for reading ([`Store::open`]) or for both ([`Store::create`]).
///
/// Clones are cheap and work on the same store; several blobs may be read and written at once.
#[derive(Clone, Debug)]
pub struct Store {
    reference: ImageReference,
    name: Arc<str>,
    access: Access,
    backend: Backend,
}

#[derive(Clone, Debug)]
enum Backend {
    Archive(Arc<Archive>),
    Layout(Arc<Layout>),
    Registry(Arc<Registry>),
    Staged(Arc<StagedArchive>),
}

impl Store {
    /// Opens a store for reading.
    ///
    /// A local store must be there. A registry is not asked yet, except on a loopback address, to find out whether it
    /// speaks https.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Corrupt`], [`Error::Io`], and [`Error::Usage`] for options that cannot be used.
    pub async fn open(reference: &ImageReference, options: &StoreOptions) -> Result<Self, Error> {
        let name = reference.to_string();
        let backend = match reference.clone() {
            ImageReference::Docker(reference) => {
                Backend::Registry(Arc::new(Registry::open(&reference, Access::Read, options).await?))
            }
            ImageReference::DockerArchive { file, .. } => {
                Backend::Archive(blocking(move || Archive::open_docker(&file, name).map(Arc::new)).await?)
            }
            ImageReference::Oci { directory, .. } => {
                Backend::Layout(blocking(move || Layout::open(&directory, name).map(Arc::new)).await?)
            }
            ImageReference::OciArchive { file, .. } => {
                Backend::Archive(blocking(move || Archive::open_oci(&file, name).map(Arc::new)).await?)
            }
        };
        Ok(Self::new(reference, Access::Read, backend))
    }

    /// Opens a store for writing and reading, making it where there is none.
    ///
    /// A layout that is there is added to. An `oci-archive:` is written anew: blobs go into a directory beside the file,
    /// and [`Store::commit`] turns that into the file, since tar wants every size up front.
    ///
    /// # Errors
    ///
    /// [`UsageError::ReadOnly`] for `docker-archive:`; else as [`Store::open`].
    pub async fn create(reference: &ImageReference, options: &StoreOptions) -> Result<Self, Error> {
        let name = reference.to_string();
        let backend = match reference.clone() {
            ImageReference::Docker(reference) => {
                Backend::Registry(Arc::new(Registry::open(&reference, Access::Write, options).await?))
            }
            ImageReference::DockerArchive { .. } => {
                let reason = "Docker's archives hold no encrypted layers, write `oci-archive:` in its place";
                return Err(UsageError::ReadOnly { store: name, reason }.into());
            }
            ImageReference::Oci { directory, .. } => {
                Backend::Layout(blocking(move || Layout::create(&directory, name).map(Arc::new)).await?)
            }
            ImageReference::OciArchive { file, .. } => {
                Backend::Staged(blocking(move || StagedArchive::create(&file, name).map(Arc::new)).await?)
            }
        };
        Ok(Self::new(reference, Access::Write, backend))
    }

    fn new(reference: &ImageReference, access: Access, backend: Backend) -> Self {
        Self { reference: reference.clone(), name: reference.to_string().into(), access, backend }
    }

    /// The reference that the store was opened with.
    pub fn reference(&self) -> &ImageReference {
        &self.reference
    }

    /// The manifest or index that the store's reference names by tag or digest. Its digest is checked, and it is the
    /// reference's own where that has one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Corrupt`], [`UsageError::Ambiguous`]; [`Error::Denied`] and [`Error::Unavailable`]
    /// from registries.
    pub async fn resolve(&self) -> Result<RawManifest, Error> {
        let selector = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => Selector::Digest(digest),
            (None, Some(tag)) => Selector::Tag(tag.to_owned()),
            (None, None) => Selector::Only,
        };
        self.select(selector).await
    }

    /// The manifest or index with a digest.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve`].
    pub async fn manifest(&self, digest: &Digest) -> Result<RawManifest, Error> {
        self.select(Selector::Digest(*digest)).await
    }

    /// The manifest or index with a tag, such as cosign's `sha256-<hex>.sig`.
    ///
    /// # Errors
    ///
    /// As [`Store::resolve`]; [`UsageError::Tag`].
    pub async fn manifest_by_tag(&self, tag: &str) -> Result<RawManifest, Error> {
        self.check_tag(tag)?;
        self.select(Selector::Tag(tag.to_owned())).await
    }

    /// A blob as a stream that ends cleanly only when size and digest were right.
    ///
    /// From a registry, a broken connection is taken up again where it broke.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Corrupt`] when the store knows another size; [`Error::Denied`] and
    /// [`Error::Unavailable`] from registries. Later ones come through the stream.
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, Error> {
        match self.held() {
            Held::Locally(images) => {
                let extent = extent(images, descriptor).await?;
                local::stream(extent, descriptor, &self.name)
            }
            Held::ByRegistry(registry) => registry::download(registry, descriptor).await,
        }
    }

    /// A blob whose digest the caller computes, where it hashes the same bytes once more anyway.
    ///
    /// # Security
    ///
    /// The stream checks the size only. Nothing is verified before [`BlobCheck::finish`] said so.
    ///
    /// # Errors
    ///
    /// As [`Store::blob`].
    pub async fn unverified_blob(&self, descriptor: &Descriptor) -> Result<(BlobStream, BlobCheck), Error> {
        let whole = 0..descriptor.size;
        let stream = match self.held() {
            Held::Locally(images) => {
                let extent = extent(images, descriptor).await?;
                local::stream_range(extent, descriptor, whole, &self.name)?
            }
            Held::ByRegistry(registry) => registry::download_range(registry, descriptor, whole).await?,
        };
        Ok((stream, BlobCheck::new(descriptor, &self.name)))
    }

    /// A part of a blob, by byte offsets.
    ///
    /// # Security
    ///
    /// Only the length is checked: the digest is over the whole blob. The caller needs another proof of the bytes.
    ///
    /// # Errors
    ///
    /// As [`Store::blob`]; a range that is empty or ends after the blob is [`UsageError::Range`].
    pub async fn read_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error> {
        if range.start >= range.end || range.end > descriptor.size {
            return Err(UsageError::Range { start: range.start, end: range.end, size: descriptor.size }.into());
        }
        match self.held() {
            Held::Locally(images) => {
                let extent = extent(images, descriptor).await?;
                local::stream_range(extent, descriptor, range, &self.name)
            }
            Held::ByRegistry(registry) => registry::download_range(registry, descriptor, range).await,
        }
    }

    /// A small blob (config, signature) whole in memory, verified.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] with [`ManifestError::TooLarge`] when the descriptor says more than `limit_bytes`; else as
    /// [`Store::blob`].
    pub async fn small_blob(&self, descriptor: &Descriptor, limit_bytes: usize) -> Result<Bytes, Error> {
        let size = usize::try_from(descriptor.size).unwrap_or(usize::MAX);
        if size > limit_bytes {
            let source = ManifestError::TooLarge { found: descriptor.size.into() };
            return Err(Error::corrupt(format!("blob {}", descriptor.digest), &*self.name, source));
        }
        let mut stream = self.blob(descriptor).await?;
        let mut bytes = bytes::BytesMut::with_capacity(size);
        while let Some(chunk) = stream.chunk().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes.freeze())
    }

    /// Whether a blob is there, with the descriptor's size where the store tells sizes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Denied`], [`Error::Unavailable`].
    pub async fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        match self.held() {
            Held::Locally(images) => match extent(images, descriptor).await {
                Ok(extent) => Ok(extent.bytes() == descriptor.size),
                Err(Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            },
            Held::ByRegistry(registry) => registry.has_blob(descriptor).await,
        }
    }

    async fn select(&self, selector: Selector) -> Result<RawManifest, Error> {
        match (self.held(), selector) {
            (Held::Locally(images), Selector::Tag(tag)) => {
                let is_docker = matches!(self.reference, ImageReference::DockerArchive { .. });
                let tag = if is_docker { normalized_name(&tag) } else { tag };
                blocking(move || images.tagged(&tag)).await
            }
            (Held::Locally(images), selector) => blocking(move || images.select(&selector)).await,
            (Held::ByRegistry(registry), Selector::Digest(digest)) => registry.manifest(&digest).await,
            (Held::ByRegistry(registry), Selector::Tag(tag)) => registry.tagged(&tag).await,
            (Held::ByRegistry(registry), Selector::Only) => registry.tagged("latest").await,
        }
    }

    fn held(&self) -> Held<'_> {
        match &self.backend {
            Backend::Archive(archive) => Held::Locally(archive.clone()),
            Backend::Layout(layout) => Held::Locally(layout.clone()),
            Backend::Registry(registry) => Held::ByRegistry(registry),
            Backend::Staged(archive) => Held::Locally(Arc::new(archive.layout().clone())),
        }
    }

    fn check_tag(&self, tag: &str) -> Result<(), UsageError> {
        let is_right = match &self.reference {
            ImageReference::Docker(_) => is_tag(tag),
            _ => is_ref_name(tag),
        };
        if is_right { Ok(()) } else { Err(UsageError::Tag { tag: tag.to_owned() }) }
    }
}

/// What a store reads from.
enum Held<'a> {
    Locally(Arc<dyn LocalImages>),
    ByRegistry(&'a Arc<Registry>),
}

async fn extent(images: Arc<dyn LocalImages>, descriptor: &Descriptor) -> Result<local::Extent, Error> {
    let digest = descriptor.digest;
    blocking(move || images.extent(&digest)).await
}
