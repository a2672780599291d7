//! A sealed image on its way to the place where people find it: platforms first, then signatures, the name last.

use std::collections::BTreeMap;

use attestation_service::api::SealedManifest;
use bytes::Bytes;
use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{Descriptor, Digest, Index, Manifest, Place, Platform, Store, media_type};
use jose::signing::SigningKey;
use release_protocol::ProductName;

use super::{PRODUCT_ANNOTATION, SbomDocument, VERSION_ANNOTATION, signature};

/// Where a sealed image goes, and as what.
pub(crate) struct Publication<'a> {
    pub(crate) destination: &'a Store,
    pub(crate) product: ProductName,
    pub(crate) version: Option<String>,
    /// Who signs it; nobody where partners are still to add to it.
    pub(crate) signer: Option<SigningKey>,
    /// The name that the signature is for.
    pub(crate) docker_reference: String,
    /// What is attached to every platform's manifest.
    pub(crate) sbom: Option<SbomDocument>,
}

/// All manifests of a sealed image, written but for the one that has its name.
pub(crate) struct Assembled {
    pub(crate) digest: Digest,
    pub(crate) manifests: Vec<SealedManifest>,
    media_type: &'static str,
    bytes: Bytes,
    /// Manifests that attach the bill of materials.
    attachments: Vec<Manifest>,
}

/// The manifests of a sealed image, as they come.
pub(crate) struct Assembly<'a> {
    publication: &'a Publication<'a>,
    index: Option<Index>,
    entries: Vec<Descriptor>,
    manifests: Vec<SealedManifest>,
    attachments: Vec<Manifest>,
    last: Bytes,
}

impl<'a> Publication<'a> {
    /// Begins an image that has an index, or is a single manifest.
    pub(crate) fn begin(&'a self, index: Option<Index>) -> Assembly<'a> {
        Assembly {
            publication: self,
            index,
            entries: Vec::new(),
            manifests: Vec::new(),
            attachments: Vec::new(),
            last: Bytes::new(),
        }
    }

    /// Signs every manifest, if there is a signer, and gives the image its name.
    pub(crate) async fn publish(&self, image: &Assembled) -> Result<(), Failure> {
        let mut digests: Vec<String> = image.manifests.iter().map(|manifest| manifest.digest.clone()).collect();
        if !digests.contains(&image.digest.to_string()) {
            digests.push(image.digest.to_string());
        }
        let destination = self.destination;
        if let Some(signer) = &self.signer {
            for digest in &digests {
                signature::sign(destination, digest, &self.docker_reference, signer).await?;
            }
            if let Some(sbom) = &self.sbom {
                sbom.write(destination, &image.attachments, &self.docker_reference, signer).await?;
            }
        }
        destination
            .put_image(image.bytes.clone(), image.media_type)
            .await
            .map_err(|error| store_failure(format!("cannot write `{}`", destination.reference()), &error))?;
        destination
            .commit()
            .await
            .map_err(|error| store_failure(format!("cannot finish `{}`", destination.reference()), &error))
    }

    fn annotate(&self, annotations: &mut BTreeMap<String, String>) {
        annotations.insert(PRODUCT_ANNOTATION.to_owned(), self.product.to_string());
        if let Some(version) = &self.version {
            annotations.insert(VERSION_ANNOTATION.to_owned(), version.clone());
        }
    }
}

impl Assembly<'_> {
    /// Takes in one platform's manifest, whose blobs are in place.
    pub(crate) async fn add(
        &mut self,
        mut manifest: Manifest,
        entry: Option<Platform>,
        platform: String,
    ) -> Result<(), Failure> {
        manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
        self.publication.annotate(&mut manifest.annotations);
        let bytes = manifest.to_bytes().or_fail(ExitCode::Other, || "cannot write the manifest".to_owned())?;
        let mut sealed = SealedManifest { digest: Digest::of(&bytes).to_string(), platform, sbom: None };
        if let Some(sbom) = &self.publication.sbom {
            let attachment = sbom.attached_to(Descriptor::of(media_type::OCI_MANIFEST, &bytes));
            sealed.sbom = Some(sbom.registration(&attachment)?);
            self.attachments.push(attachment);
        }
        self.manifests.push(sealed);
        if self.index.is_some() {
            self.publication
                .destination
                .put_manifest(bytes.clone(), media_type::OCI_MANIFEST, Place::Digest)
                .await
                .map_err(|error| store_failure("cannot write a platform's manifest", &error))?;
            let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
            descriptor.platform = entry;
            self.entries.push(descriptor);
        }
        self.last = bytes;
        Ok(())
    }

    /// The whole image. Nothing of it is signed or named yet.
    pub(crate) fn finish(self) -> Result<Assembled, Failure> {
        let (bytes, media_type) = match self.index {
            None => (self.last, media_type::OCI_MANIFEST),
            Some(mut index) => {
                index.manifests = self.entries;
                index.media_type = Some(media_type::OCI_INDEX.to_owned());
                self.publication.annotate(&mut index.annotations);
                let bytes = index.to_bytes().or_fail(ExitCode::Other, || "cannot write the index".to_owned())?;
                (bytes, media_type::OCI_INDEX)
            }
        };
        let (manifests, attachments) = (self.manifests, self.attachments);
        Ok(Assembled { digest: Digest::of(&bytes), manifests, media_type, bytes, attachments })
    }
}
