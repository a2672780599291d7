//! Verifying signatures: who of the known keys signed this very manifest.

use std::collections::BTreeMap;

use jose::jws::VerifyingKey;

use crate::digest::{self, DigestError, hex_part};
use crate::manifest::{Descriptor, Manifest, ManifestError};
use crate::payload::{PAYLOAD_MAX, Payload};

/// Why an image does not count as signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The expected digest is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The signature's manifest is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// None of the known keys signed this manifest.
    #[error("none of the known keys signed the manifest {manifest_digest}")]
    NotSigned {
        /// The digest that was to be signed.
        manifest_digest: String,
    },
}

/// A known key that signed the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The key's JWK thumbprint ([`VerifyingKey::thumbprint`]).
    pub thumbprint: String,
    /// The name under which it signed the image. A policy may demand one; the digest binds the
    /// content whatever the name.
    pub docker_reference: String,
}

/// Finds who signed the manifest with digest `manifest_digest`, each key once, in the order of
/// `keys`. `payloads` are the blobs that [`crate::payload_descriptors`] names, in any order.
///
/// # Errors
/// [`VerifyError::NotSigned`] when nobody did: missing, foreign, malformed and wrong signatures
/// are all the same.
///
/// # Security
/// How many signers, and which, is the caller's policy.
pub fn verify<'a>(
    signature_manifest: &[u8],
    payloads: impl IntoIterator<Item = &'a [u8]>,
    manifest_digest: &str,
    keys: &[VerifyingKey],
) -> Result<Vec<Signer>, VerifyError> {
    hex_part(manifest_digest)?;
    let manifest = Manifest::from_json(signature_manifest)?;
    // Found by what they are, not by what they are said to be.
    let payloads: BTreeMap<String, &[u8]> = payloads
        .into_iter()
        .filter(|payload| payload.len() <= PAYLOAD_MAX)
        .map(|payload| (digest::of(payload), payload))
        .collect();
    let claims: Vec<_> = manifest
        .layers
        .iter()
        .filter_map(|layer| Claim::read(layer, &payloads))
        .filter(|claim| claim.payload.manifest_digest == manifest_digest)
        .collect();
    let signers: Vec<_> = keys
        .iter()
        .filter_map(|key| {
            let claim = claims.iter().find(|claim| claim.is_signed_by(key))?;
            Some(Signer { thumbprint: key.thumbprint(), docker_reference: claim.payload.docker_reference.clone() })
        })
        .fold(Vec::new(), |mut signers: Vec<Signer>, signer| {
            if !signers.iter().any(|known| known.thumbprint == signer.thumbprint) {
                signers.push(signer);
            }
            signers
        });
    if signers.is_empty() {
        return Err(VerifyError::NotSigned { manifest_digest: manifest_digest.to_owned() });
    }
    Ok(signers)
}

/// A payload and its signature as they are kept apart from the image; neither is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedPayload {
    /// The simple signing JSON, byte by byte.
    pub payload: Vec<u8>,
    /// ECDSA over it, DER.
    pub signature: Vec<u8>,
}

impl SignedPayload {
    /// Which of `keys` signed the manifest with `manifest_digest` by this.
    pub fn signer(&self, manifest_digest: &str, keys: &[VerifyingKey]) -> Option<Signer> {
        let payload = Payload::from_json(&self.payload).ok()?;
        if payload.manifest_digest != manifest_digest {
            return None;
        }
        let key = keys.iter().find(|key| key.verify_der(&self.payload, &self.signature).is_ok())?;
        Some(Signer { thumbprint: key.thumbprint(), docker_reference: payload.docker_reference })
    }
}

/// The payloads that a signature's manifest names, each with its signature; `payloads` as for [`verify`].
///
/// # Errors
/// When the manifest is malformed.
pub fn signed_payloads<'a>(
    signature_manifest: &[u8],
    payloads: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<SignedPayload>, ManifestError> {
    let manifest = Manifest::from_json(signature_manifest)?;
    let payloads: BTreeMap<String, &[u8]> =
        payloads.into_iter().map(|payload| (digest::of(payload), payload)).collect();
    let claims = manifest.layers.iter().filter_map(|layer| Claim::read(layer, &payloads));
    Ok(claims.map(|claim| SignedPayload { payload: claim.bytes.to_vec(), signature: claim.signature }).collect())
}

/// A payload with the signature beside it, neither checked against any key.
struct Claim<'a> {
    bytes: &'a [u8],
    payload: Payload,
    signature: Vec<u8>,
}

impl<'a> Claim<'a> {
    fn read(layer: &Descriptor, payloads: &BTreeMap<String, &'a [u8]>) -> Option<Self> {
        if !layer.is_payload() {
            return None;
        }
        let bytes = *payloads.get(&layer.digest)?;
        Some(Self { bytes, payload: Payload::from_json(bytes).ok()?, signature: layer.signature()? })
    }

    fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.verify_der(self.bytes, &self.signature).is_ok()
    }
}
