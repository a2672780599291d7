//! Signatures beside the image: written at `sha256-<digest>.sig`, those of others kept.

use command_line::{ExitCode, Failure, FailureContext as _};
use image_signature::{Appended, SignatureArtifact, payload_descriptors};
use image_store::{Descriptor, ErrorKind, ImageReference, Place, RawManifest, Store};
use jose::signing::{SigningKey, VerifyingKey};
use release_protocol::ProductName;

use crate::storage::store_failure;

/// The name that a signature is for: the registry's name of the image with its tag, else one made from the product's.
pub(crate) fn docker_reference(reference: &ImageReference, product: &ProductName) -> String {
    match reference {
        ImageReference::Docker(registry) => match registry.tag() {
            Some(tag) => format!("{}:{tag}", registry.name()),
            None => registry.name(),
        },
        other => match other.tag() {
            Some(tag) => format!("localhost/{product}:{tag}"),
            None => format!("localhost/{product}"),
        },
    }
}

/// Signs the manifest with `digest` in `store`.
pub(super) async fn sign(store: &Store, digest: &str, name: &str, key: &SigningKey) -> Result<(), Failure> {
    let cannot = || format!("cannot sign {digest}");
    let artifact = match existing(store, digest).await? {
        None => image_signature::sign(digest, name, key).or_fail(ExitCode::Other, cannot)?,
        Some(manifest) => {
            match image_signature::append(&manifest.bytes, digest, name, key).or_fail(ExitCode::BadInput, cannot)? {
                Appended::AlreadySigned => return Ok(()),
                Appended::Signed(artifact) => artifact,
            }
        }
    };
    put(store, digest, artifact).await
}

async fn put(store: &Store, digest: &str, artifact: SignatureArtifact) -> Result<(), Failure> {
    let failed = |error: image_store::Error| store_failure(format!("cannot write the signature of {digest}"), &error);
    for payload in artifact.payloads {
        store.put_blob(image_signature::PAYLOAD_MEDIA_TYPE, payload.bytes.into()).await.map_err(failed)?;
    }
    store.put_blob(image_signature::CONFIG_MEDIA_TYPE, artifact.config.bytes.into()).await.map_err(failed)?;
    let place = Place::Tag(tag(digest)?);
    store
        .put_manifest(artifact.manifest.into(), image_signature::MANIFEST_MEDIA_TYPE, place)
        .await
        .map_err(failed)
        .map(drop)
}

/// What a look at a manifest's signatures gave.
#[derive(Debug)]
pub(crate) enum SignatureCheck {
    /// Nobody signed.
    Unsigned,
    /// Somebody signed, none of the keys.
    NoKnownSigner,
    /// These keys signed, by thumbprint.
    Signed(Vec<String>),
}

/// Which of `keys` signed the manifest with `digest`.
pub(crate) async fn check_signatures(
    store: &Store,
    digest: &str,
    keys: &[VerifyingKey],
) -> Result<SignatureCheck, Failure> {
    let Some(manifest) = existing(store, digest).await? else { return Ok(SignatureCheck::Unsigned) };
    let descriptors = payload_descriptors(&manifest.bytes)
        .or_fail(ExitCode::VerificationFailed, || format!("the signature of {digest} is malformed"))?;
    let mut payloads = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        let blob = descriptor
            .digest
            .parse()
            .or_fail(ExitCode::VerificationFailed, || format!("the signature of {digest} is malformed"))?;
        let blob = Descriptor::new(image_signature::PAYLOAD_MEDIA_TYPE, blob, descriptor.size);
        let bytes = store
            .small_blob(&blob, image_signature::payload::PAYLOAD_MAX)
            .await
            .map_err(|error| store_failure(format!("cannot read the signature of {digest}"), &error))?;
        payloads.push(bytes);
    }
    let verified = image_signature::verify(&manifest.bytes, payloads.iter().map(AsRef::as_ref), digest, keys);
    Ok(match verified {
        Ok(signers) => SignatureCheck::Signed(signers.into_iter().map(|signer| signer.thumbprint).collect()),
        Err(_) => SignatureCheck::NoKnownSigner,
    })
}

async fn existing(store: &Store, digest: &str) -> Result<Option<RawManifest>, Failure> {
    match store.manifest_by_tag(&tag(digest)?).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(store_failure(format!("cannot look for signatures of {digest}"), &error)),
    }
}

fn tag(digest: &str) -> Result<String, Failure> {
    image_signature::signature_tag(digest).or_fail(ExitCode::Other, || format!("`{digest}` has no signature tag"))
}
