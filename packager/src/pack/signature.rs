//! Signatures beside the image: written at `sha256-<digest>.sig`, those of others kept.

use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_signature::{Appended, LookupError, SignatureArtifact, Signatures, find_signers, signature_manifest};
use image_store::{ImageReference, Place, Store};
use jose::signing::{SigningKey, VerifyingKey};
use release_protocol::ProductName;

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
pub(crate) async fn sign(store: &Store, digest: &str, name: &str, key: &SigningKey) -> Result<(), Failure> {
    let cannot = || format!("cannot sign {digest}");
    let existing = signature_manifest(store, digest).await.map_err(|error| lookup_failure(digest, &error))?;
    let artifact = match existing {
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

/// Which of `keys` signed the manifest with `digest`.
pub(crate) async fn check_signatures(
    store: &Store,
    digest: &str,
    keys: &[VerifyingKey],
) -> Result<Signatures, Failure> {
    find_signers(store, digest, keys).await.map_err(|error| lookup_failure(digest, &error))
}

/// Demands that one of `keys` signed the manifest with `digest`; gives the thumbprints of those that did.
pub(crate) async fn require_signature(
    store: &Store,
    digest: &str,
    keys: &[VerifyingKey],
) -> Result<Vec<String>, Failure> {
    match check_signatures(store, digest, keys).await? {
        Signatures::By(signers) => Ok(signers.into_iter().map(|signer| signer.thumbprint).collect()),
        Signatures::None => Err(Failure::verification(format!("{digest} is not signed"))
            .hint("an image that `sealift pack` wrote is signed; this one was put together by somebody else")),
        Signatures::ByOthers => Err(Failure::verification(format!("{digest} is signed by none of the given keys"))
            .hint("name the vendor's public key by `--key`")),
    }
}

fn lookup_failure(digest: &str, error: &LookupError) -> Failure {
    let message = format!("cannot read the signatures of {digest}");
    match error {
        LookupError::Store(error) => store_failure(message, error),
        other => Failure::verification(message).caused_by(other),
    }
}

fn tag(digest: &str) -> Result<String, Failure> {
    image_signature::signature_tag(digest).or_fail(ExitCode::Other, || format!("`{digest}` has no signature tag"))
}
