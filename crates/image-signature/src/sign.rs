//! Making signatures: a new signature image, or one more signature in one that is there.

use jose::KeyError;
use jose::jws::SigningKey;

use crate::digest;
use crate::manifest::{Manifest, ManifestError};
use crate::payload::{Payload, PayloadError};

/// Why an image was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The signing operation failed.
    #[error("the image could not be signed")]
    Key(#[from] KeyError),
    /// The signature image that is there is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The digest is none, or the payload could not be written.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// A blob to store, by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:…`
    pub digest: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// A signature image to store: payloads first, then the config, and the manifest at the tag
/// [`crate::signature_tag`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureArtifact {
    /// The config blob.
    pub config: Blob,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The payloads that are new in the manifest.
    pub payloads: Vec<Blob>,
}

/// What [`append`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// This key's signature of the same payload is there: nothing is to be stored.
    AlreadySigned,
    /// The signature image with one more signature.
    Signed(SignatureArtifact),
}

/// Signs a manifest. `docker_reference` is the image's name, `registry.example/app:1`.
///
/// cosign writes it without the tag and does not look at it. The default of skopeo's and podman's
/// `sigstoreSigned` policies (`matchRepoDigestOrExact`) accepts only one with a tag, for the image
/// by digest and by that tag; `matchRepository` accepts both.
pub fn sign(manifest_digest: &str, docker_reference: &str, key: &SigningKey) -> Result<SignatureArtifact, SignError> {
    let payload = Payload::new(manifest_digest, docker_reference)?.to_json()?;
    add(Manifest::empty(), payload, key)
}

/// Signs a manifest that has signatures already; all of them are kept.
pub fn append(
    signature_manifest: &[u8],
    manifest_digest: &str,
    docker_reference: &str,
    key: &SigningKey,
) -> Result<Appended, SignError> {
    let manifest = Manifest::from_json(signature_manifest)?;
    let payload = Payload::new(manifest_digest, docker_reference)?.to_json()?;
    let payload_digest = digest::of(&payload);
    let public = key.verifying_key();
    let mut same_payload = manifest.layers.iter().filter(|layer| layer.is_payload() && layer.digest == payload_digest);
    let signed = same_payload
        .any(|layer| layer.signature().is_some_and(|signature| public.verify_der(&payload, &signature).is_ok()));
    if signed {
        return Ok(Appended::AlreadySigned);
    }
    add(manifest, payload, key).map(Appended::Signed)
}

fn add(mut manifest: Manifest, payload: Vec<u8>, key: &SigningKey) -> Result<SignatureArtifact, SignError> {
    manifest.push(&payload, &key.sign_der(&payload)?);
    let (manifest, config) = manifest.finish()?;
    Ok(SignatureArtifact { config: Blob::new(config), manifest, payloads: vec![Blob::new(payload)] })
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest::of(&bytes), bytes }
    }
}
