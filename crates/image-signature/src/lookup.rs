//! Finding an image's signatures in the store that holds the image.

use image_store::{Descriptor, ErrorKind, RawManifest, Store};
use jose::signing::VerifyingKey;

use crate::manifest::{ManifestError, payload_descriptors};
use crate::payload::PAYLOAD_MAX;
use crate::verify::{SignedPayload, Signer, signed_payloads, verify};
use crate::{DigestError, PAYLOAD_MEDIA_TYPE, signature_tag};

/// Why the signatures could not be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The image's digest is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The signature's manifest is malformed.
    #[error("the signature's manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// The signature's manifest names a payload by something that is no digest.
    #[error("the signature's manifest names a payload by `{found}`")]
    PayloadDigest {
        /// What it says.
        found: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] image_store::Error),
}

/// What a look at a manifest's signatures gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// Somebody signed, none of the keys.
    ByOthers,
    /// These keys signed.
    By(Vec<Signer>),
    /// Nobody signed.
    None,
}

/// The signature image of the manifest with `manifest_digest`, where there is one.
pub async fn signature_manifest(store: &Store, manifest_digest: &str) -> Result<Option<RawManifest>, LookupError> {
    match store.manifest_by_tag(&signature_tag(manifest_digest)?).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Which of `keys` signed the manifest with `manifest_digest`.
pub async fn find_signers(
    store: &Store,
    manifest_digest: &str,
    keys: &[VerifyingKey],
) -> Result<Signatures, LookupError> {
    let Some((manifest, payloads)) = with_payloads(store, manifest_digest).await? else { return Ok(Signatures::None) };
    let payloads = payloads.iter().map(AsRef::as_ref);
    Ok(verify(&manifest.bytes, payloads, manifest_digest, keys).map_or(Signatures::ByOthers, Signatures::By))
}

/// Every signature of the manifest with `manifest_digest`, by whomever; to be kept apart from the image.
pub async fn find_signed_payloads(store: &Store, manifest_digest: &str) -> Result<Vec<SignedPayload>, LookupError> {
    let Some((manifest, payloads)) = with_payloads(store, manifest_digest).await? else { return Ok(Vec::new()) };
    Ok(signed_payloads(&manifest.bytes, payloads.iter().map(AsRef::as_ref))?)
}

async fn with_payloads(
    store: &Store,
    manifest_digest: &str,
) -> Result<Option<(RawManifest, Vec<Vec<u8>>)>, LookupError> {
    let Some(manifest) = signature_manifest(store, manifest_digest).await? else { return Ok(None) };
    let descriptors = payload_descriptors(&manifest.bytes)?;
    let mut payloads = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        let digest =
            descriptor.digest.parse().map_err(|_| LookupError::PayloadDigest { found: descriptor.digest.clone() })?;
        let blob = Descriptor::new(PAYLOAD_MEDIA_TYPE, digest, descriptor.size);
        payloads.push(store.small_blob(&blob, PAYLOAD_MAX).await?.to_vec());
    }
    Ok(Some((manifest, payloads)))
}
