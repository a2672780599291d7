//! Image signatures in cosign's simple signing form (ECDSA P-256): made, appended and verified as
//! bytes, and looked up in the store that holds the image. The caller stores them.
//!
//! The signature of an image is an image itself, at the tag [`signature_tag`] of the same
//! repository. Each of its layers is a payload ([`payload`]) that names the signed manifest's
//! digest, with the signature in an annotation. `cosign verify --key`, and skopeo and podman with a
//! `sigstoreSigned` policy, accept it.
//!
//! ```
//! use jose::jws::SigningKey;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = SigningKey::generate()?;
//! let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
//! let artifact = image_signature::sign(digest, "registry.example/app", &key)?;
//!
//! let payloads = artifact.payloads.iter().map(|blob| blob.bytes.as_slice());
//! let keys = [key.verifying_key().clone()];
//! let signers = image_signature::verify(&artifact.manifest, payloads, digest, &keys)?;
//! assert_eq!(signers[0].thumbprint, key.verifying_key().thumbprint());
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod digest;
mod lookup;
mod manifest;
pub mod payload;
mod sign;
mod verify;

pub use self::digest::{DigestError, signature_tag};
pub use self::lookup::{LookupError, Signatures, find_signed_payloads, find_signers, signature_manifest};
pub use self::manifest::{ManifestError, PayloadDescriptor, payload_descriptors};
pub use self::sign::{Appended, Blob, SignError, SignatureArtifact, append, sign};
pub use self::verify::{SignedPayload, Signer, VerifyError, signed_payloads, verify};

/// The media type of a signature's manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of a signature's config.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a signature's layers.
pub const PAYLOAD_MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of a layer that holds the signature: base64 of the DER.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

#[cfg(test)]
mod tests;
