//! Writing into a store: blobs, manifests, copies from another store.

use bytes::Bytes;

use super::{Backend, Store};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Corruption, Error, UsageError};
use crate::layout::LayoutSink;
use crate::local::blocking;
use crate::manifest::RawManifest;
use crate::registry::{Access, UploadSink};
use crate::writer::{BlobWriter, Hashing, Sink};

/// Under what name a manifest is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Place {
    /// Named by its digest only; in a layout it stands in `index.json` without a tag.
    Digest,
    /// Part of an index that is written after it; in a layout it does not stand in `index.json`.
    Nested,
    /// Named by a tag, which moves if it was another's.
    Tag(String),
}

/// How [`Store::copy_blob`] got a blob to its destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CopyOutcome {
    /// Its bytes were streamed.
    Copied,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was there.
    Present,
}

impl Store {
    /// Begins a blob whose digest is known only at its end. The store hashes it on the way.
    ///
    /// # Errors
    ///
    /// [`UsageError::ReadOnly`], [`Error::Io`], [`Error::Denied`], [`Error::Unavailable`].
    pub async fn begin_blob(&self) -> Result<BlobWriter, Error> {
        self.begin(Hashing::Store).await
    }

    /// Begins a blob that the caller hashes while making it; only its size is checked here (a registry checks the digest
    /// itself).
    ///
    /// # Errors
    ///
    /// As [`Store::begin_blob`].
    pub async fn begin_hashed_blob(&self) -> Result<BlobWriter, Error> {
        self.begin(Hashing::Caller).await
    }

    /// Writes a blob that is in memory, unless it is there.
    ///
    /// # Errors
    ///
    /// As [`BlobWriter::finish`].
    pub async fn put_blob(&self, media_type: &str, bytes: Bytes) -> Result<Descriptor, Error> {
        self.check_writable()?;
        let (hashed, media_type) = (bytes.clone(), media_type.to_owned());
        let descriptor = blocking(move || Ok(Descriptor::of(media_type, &hashed))).await?;
        if self.has_blob(&descriptor).await? {
            return Ok(descriptor);
        }
        if let Backend::Registry(registry) = &self.backend {
            registry.put_bytes(&descriptor.digest, bytes).await?;
        } else {
            let mut writer = self.begin_hashed_blob().await?;
            writer.write(bytes).await?;
            writer.finish(descriptor.digest, descriptor.size).await?;
        }
        Ok(descriptor)
    }

    /// Gets a blob here from another store by the cheapest way: not at all, by a mount, by a stream.
    ///
    /// # Errors
    ///
    /// Those of reading and of writing.
    pub async fn copy_blob(&self, source: &Self, descriptor: &Descriptor) -> Result<CopyOutcome, Error> {
        if self.has_blob(descriptor).await? {
            return Ok(CopyOutcome::Present);
        }
        self.check_writable()?;
        if let (Backend::Registry(from), Backend::Registry(to)) = (&source.backend, &self.backend)
            && from.reference().host() == to.reference().host()
            && to.mount(from.reference(), &descriptor.digest).await?
        {
            return Ok(CopyOutcome::Mounted);
        }
        let mut stream = source.blob(descriptor).await?;
        let mut writer = self.begin_hashed_blob().await?;
        while let Some(chunk) = stream.chunk().await {
            writer.write(chunk?).await?;
        }
        writer.finish(descriptor.digest, descriptor.size).await?;
        Ok(CopyOutcome::Copied)
    }

    /// Writes a manifest or index. Its blobs must be in place.
    ///
    /// # Errors
    ///
    /// [`UsageError::Incomplete`] when a layout lacks a blob that it names, [`UsageError::Tag`], [`UsageError::ReadOnly`],
    /// [`Error::Corrupt`] when the bytes are no manifest of that type; [`Error::Refused`] and others from registries.
    pub async fn put_manifest(&self, bytes: Bytes, media_type: &str, place: Place) -> Result<Digest, Error> {
        self.check_writable()?;
        if let Place::Tag(tag) = &place {
            self.check_tag(tag)?;
        }
        let raw = self.raw(bytes, media_type).await?;
        let digest = raw.digest;
        match &self.backend {
            Backend::Archive(_) => {}
            Backend::Layout(layout) => {
                let layout = layout.clone();
                blocking(move || layout.put_manifest(&raw, &place)).await?;
            }
            Backend::Registry(registry) => {
                let name = match place {
                    Place::Tag(tag) => tag,
                    Place::Digest | Place::Nested => digest.to_string(),
                };
                registry.put_manifest(&raw, &name).await?;
            }
            Backend::Staged(archive) => {
                let archive = archive.clone();
                blocking(move || archive.layout().put_manifest(&raw, &place)).await?;
            }
        }
        Ok(digest)
    }

    /// Writes the manifest or index that the store's own reference names: under its tag, else under its digest.
    ///
    /// # Errors
    ///
    /// As [`Store::put_manifest`]; [`UsageError::Pinned`] when the reference has a digest and it is another.
    pub async fn put_image(&self, bytes: Bytes, media_type: &str) -> Result<Digest, Error> {
        if let Some(wanted) = self.reference.digest() {
            let found = Digest::of(&bytes);
            if found != wanted {
                return Err(UsageError::Pinned { store: self.name.to_string(), found }.into());
            }
        }
        let place = self.reference.tag().map_or(Place::Digest, |tag| Place::Tag(tag.to_owned()));
        self.put_manifest(bytes, media_type, place).await
    }

    /// Ends writing. Only `oci-archive:` has something left to do, but every writer calls it once, at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub async fn commit(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Staged(archive) => {
                let archive = archive.clone();
                blocking(move || archive.commit()).await
            }
            Backend::Archive(_) | Backend::Layout(_) | Backend::Registry(_) => Ok(()),
        }
    }

    pub(super) async fn raw(&self, bytes: Bytes, media_type: &str) -> Result<RawManifest, Error> {
        let (media_type, store) = (media_type.to_owned(), self.name.clone());
        let raw = move || {
            RawManifest::new(bytes, Some(&media_type))
                .map_err(|error| Error::corrupt("manifest to write", &*store, Corruption::Manifest(error)))
        };
        blocking(raw).await
    }

    async fn begin(&self, hashing: Hashing) -> Result<BlobWriter, Error> {
        self.check_writable()?;
        let sink = match &self.backend {
            Backend::Archive(_) => return Err(self.read_only().into()),
            Backend::Layout(layout) => Sink::Layout(LayoutSink::begin(layout, hashing).await?),
            Backend::Registry(registry) => Sink::Upload(UploadSink::begin(registry, hashing).await?),
            Backend::Staged(archive) => Sink::Layout(LayoutSink::begin(archive.layout(), hashing).await?),
        };
        Ok(BlobWriter::new(sink))
    }

    pub(super) fn check_writable(&self) -> Result<(), UsageError> {
        if self.access == Access::Write { Ok(()) } else { Err(self.read_only()) }
    }

    fn read_only(&self) -> UsageError {
        UsageError::ReadOnly { store: self.name.to_string(), reason: "it was opened for reading" }
    }
}
