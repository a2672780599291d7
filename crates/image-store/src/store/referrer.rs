//! Manifests that say something about another one: signatures' and bills of materials' kin.
//!
//! A registry lists them itself, or their writer keeps the list at a tag made of the subject's digest, as in every local store
//! ([distribution-spec v1.1], referrers).
//!
//! [distribution-spec v1.1]: <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md>

use bytes::Bytes;

use super::{Backend, Place, Store};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, UsageError};
use crate::local::blocking;
use crate::manifest::{Document, Index, Manifest, ManifestError};
use crate::media_type;
use crate::registry::SubjectNoted;

impl Store {
    /// Writes a manifest that has a subject, and makes it findable by that. Its blobs must be in place; its subject need not.
    ///
    /// # Errors
    ///
    /// [`UsageError::NoSubject`]; those of [`Store::put_manifest`].
    pub async fn put_referrer(&self, manifest: &Manifest) -> Result<Digest, Error> {
        let Some(subject) = manifest.subject.as_ref().map(|subject| subject.digest) else {
            return Err(UsageError::NoSubject.into());
        };
        let bytes = manifest.to_bytes().map_err(|error| Error::corrupt("manifest to write", &*self.name, error))?;
        let mut entry = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        entry.artifact_type.clone_from(&manifest.artifact_type);
        entry.annotations.clone_from(&manifest.annotations);
        if self.put_noted(bytes).await? == SubjectNoted::Yes {
            return Ok(entry.digest);
        }
        let mut index = self.listed(&subject).await?.unwrap_or_else(|| Index::new(Vec::new()));
        let digest = entry.digest;
        if index.manifests.iter().all(|listed| listed.digest != digest) {
            index.manifests.push(entry);
            let bytes = index.to_bytes().map_err(|error| Error::corrupt("list to write", &*self.name, error))?;
            self.put_manifest(bytes, media_type::OCI_INDEX, Place::Tag(tag(&subject))).await?;
        }
        Ok(digest)
    }

    /// What refers to the manifest with a digest. Whoever may write to the store may have put it there.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Denied`], [`Error::Unavailable`].
    pub async fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let kept = match &self.backend {
            Backend::Registry(registry) => registry.referrers(digest).await?,
            Backend::Archive(_) | Backend::Layout(_) | Backend::Staged(_) => None,
        };
        let listed = match kept {
            None => self.listed(digest).await?,
            Some(bytes) => {
                let (object, store) = (format!("referrers of {digest}"), self.name.clone());
                let parse = move || Index::parse(&bytes).map_err(|error| Error::corrupt(object, &*store, error));
                Some(blocking(parse).await?)
            }
        };
        Ok(listed.map(|index| index.manifests).unwrap_or_default())
    }

    /// Writes a manifest by its digest; says whether the store lists it for its subject.
    async fn put_noted(&self, bytes: Bytes) -> Result<SubjectNoted, Error> {
        if let Backend::Registry(registry) = &self.backend {
            self.check_writable()?;
            let raw = self.raw(bytes, media_type::OCI_MANIFEST).await?;
            return registry.put_manifest(&raw, &raw.digest.to_string()).await;
        }
        self.put_manifest(bytes, media_type::OCI_MANIFEST, Place::Nested).await?;
        Ok(SubjectNoted::No)
    }

    /// The list at the subject's tag.
    async fn listed(&self, subject: &Digest) -> Result<Option<Index>, Error> {
        let raw = match self.manifest_by_tag(&tag(subject)).await {
            Ok(raw) => raw,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match raw.parse() {
            Ok(Document::Index(index)) => Ok(Some(index)),
            // Somebody's image that is called so is no list, and is not overwritten by one.
            Ok(Document::Manifest(_)) => {
                Err(Error::corrupt(format!("referrers of {subject}"), &*self.name, ManifestError::Kind))
            }
            Err(error) => Err(Error::corrupt(format!("referrers of {subject}"), &*self.name, error)),
        }
    }
}

fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}
