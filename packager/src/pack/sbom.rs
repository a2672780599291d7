//! Bills of materials beside a sealed image: a manifest for each platform that refers to the platform's own and is signed like
//! it (distribution-spec 1.1, referrers). They are not sealed: whoever runs the image may read what it is made of.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use attestation_service::api::Sbom;
use bytes::Bytes;
use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_signature::Signatures;
use image_store::{Descriptor, Digest, Document, Manifest, Store, media_type};
use jose::signing::{SigningKey, VerifyingKey};
use serde::Deserialize;

use super::signature::{check_signatures, sign};
use super::{CONFIG_MAX, parse};

/// The largest document that is attached, in bytes.
const SBOM_MAX: usize = 32 * 1024 * 1024;
/// What there is of a document that has no other content.
const EMPTY: &[u8] = b"{}";

const SPDX: &str = "application/spdx+json";
const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

/// A bill of materials in one of the two forms that tools read.
#[derive(Clone)]
pub(crate) struct SbomDocument {
    media_type: &'static str,
    bytes: Bytes,
}

/// The members that tell the forms apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    spdx_version: Option<String>,
    bom_format: Option<String>,
}

/// One that was found beside an image.
#[derive(serde::Serialize)]
pub(crate) struct FoundSbom {
    #[serde(flatten)]
    pub(crate) sbom: Sbom,
    /// Thumbprints of the keys that signed it; empty where none of the keys asked for did.
    pub(crate) signers: Vec<String>,
}

impl SbomDocument {
    /// Reads a file, SPDX or CycloneDX in JSON.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = || format!("cannot read the bill of materials `{}`", path.display());
        let mut bytes = Vec::new();
        let file = File::open(path).or_fail(ExitCode::BadInput, failed)?;
        file.take(SBOM_MAX as u64 + 1).read_to_end(&mut bytes).or_fail(ExitCode::BadInput, failed)?;
        if bytes.len() > SBOM_MAX {
            return Err(Failure::bad_input(failed()).cause(format!("it has more than {SBOM_MAX} bytes")));
        }
        Self::of(bytes.into()).ok_or_else(|| {
            Failure::bad_input(format!("`{}` is no bill of materials that is known here", path.display()))
                .hint("give SPDX or CycloneDX in JSON, as syft, trivy or cdxgen write it")
        })
    }

    fn of(bytes: Bytes) -> Option<Self> {
        let outline: Outline = serde_json::from_slice(&bytes).ok()?;
        let media_type = match (outline.spdx_version.as_deref(), outline.bom_format.as_deref()) {
            (Some(version), None) if version.starts_with("SPDX-") => SPDX,
            (None, Some("CycloneDX")) => CYCLONEDX,
            _ => return None,
        };
        Some(Self { media_type, bytes })
    }

    /// The signed one beside the first of these manifests that has one.
    pub(crate) async fn beside(
        store: &Store,
        manifests: &BTreeSet<String>,
        keys: &[VerifyingKey],
    ) -> Result<Option<Self>, Failure> {
        for manifest in manifests {
            for found in find(store, manifest, keys).await? {
                if !found.signers.is_empty() {
                    let (_, descriptor) = document(store, &found.sbom.manifest).await?;
                    let bytes = store.small_blob(&descriptor, SBOM_MAX).await;
                    let bytes = bytes.map_err(|error| store_failure("cannot read the bill of materials", &error))?;
                    return Ok(Self::of(bytes));
                }
            }
        }
        Ok(None)
    }

    /// The manifest that attaches it to `subject`.
    pub(crate) fn attached_to(&self, subject: Descriptor) -> Manifest {
        let config = Descriptor::of(media_type::OCI_EMPTY, EMPTY);
        let mut manifest = Manifest::new(config, vec![Descriptor::of(self.media_type, &self.bytes)]);
        manifest.artifact_type = Some(self.media_type.to_owned());
        manifest.subject = Some(subject);
        manifest
    }

    /// What the service is told of an attachment.
    pub(crate) fn registration(&self, attachment: &Manifest) -> Result<Sbom, Failure> {
        let bytes = attachment.to_bytes().or_fail(ExitCode::Other, || "cannot write the manifest".to_owned())?;
        Ok(Sbom {
            media_type: self.media_type.to_owned(),
            digest: Digest::of(&self.bytes).to_string(),
            manifest: Digest::of(&bytes).to_string(),
        })
    }

    /// Writes it and its attachments, each signed.
    pub(crate) async fn write(
        &self,
        store: &Store,
        attachments: &[Manifest],
        name: &str,
        signer: &SigningKey,
    ) -> Result<(), Failure> {
        let failed = |error: image_store::Error| store_failure("cannot attach the bill of materials", &error);
        store.put_blob(self.media_type, self.bytes.clone()).await.map_err(failed)?;
        store.put_blob(media_type::OCI_EMPTY, Bytes::from_static(EMPTY)).await.map_err(failed)?;
        for attachment in attachments {
            let digest = store.put_referrer(attachment).await.map_err(failed)?;
            sign(store, &digest.to_string(), name, signer).await?;
        }
        Ok(())
    }
}

/// The bills of materials beside the manifest with `digest`, and which of `keys` signed each.
pub(crate) async fn find(store: &Store, digest: &str, keys: &[VerifyingKey]) -> Result<Vec<FoundSbom>, Failure> {
    let parsed: Digest = digest.parse().or_fail(ExitCode::BadInput, || format!("`{digest}` is no digest"))?;
    let referrers = store.referrers(&parsed).await;
    let referrers = referrers.map_err(|error| store_failure(format!("cannot read what refers to {digest}"), &error))?;
    let mut found = Vec::new();
    for referrer in referrers.iter().filter(|referrer| is_kind(referrer.artifact_type.as_deref())).take(FOUND_MAX) {
        let manifest = referrer.digest.to_string();
        let signers: Vec<_> = match check_signatures(store, &manifest, keys).await? {
            Signatures::By(signers) => signers.into_iter().map(|signer| signer.thumbprint).collect(),
            Signatures::None | Signatures::ByOthers => Vec::new(),
        };
        let (subject, document) = match document(store, &manifest).await {
            Ok(read) => read,
            // Anybody's who may write to the registry: it must not spoil those that are signed.
            Err(_) if signers.is_empty() => continue,
            Err(failure) => return Err(failure),
        };
        // A signed one of another image, listed here by whoever may write to the registry.
        if subject != Some(parsed) {
            continue;
        }
        let sbom = Sbom { media_type: document.media_type, digest: document.digest.to_string(), manifest };
        found.push(FoundSbom { sbom, signers });
    }
    Ok(found)
}

/// What an attachment refers to, and its document.
async fn document(store: &Store, manifest: &str) -> Result<(Option<Digest>, Descriptor), Failure> {
    let malformed = || Failure::bad_input(format!("{manifest} attaches no bill of materials"));
    let digest: Digest = manifest.parse().or_fail(ExitCode::BadInput, || format!("`{manifest}` is no digest"))?;
    let raw = store.manifest(&digest).await;
    let raw = raw.map_err(|error| store_failure(format!("cannot read the manifest {manifest}"), &error))?;
    if raw.bytes.len() > CONFIG_MAX {
        return Err(malformed());
    }
    let Document::Manifest(read) = parse(&raw)? else { return Err(malformed()) };
    match <[Descriptor; 1]>::try_from(read.layers) {
        Ok([document]) if is_kind(Some(&document.media_type)) => {
            Ok((read.subject.map(|subject| subject.digest), document))
        }
        _ => Err(malformed()),
    }
}

fn is_kind(media_type: Option<&str>) -> bool {
    matches!(media_type, Some(SPDX | CYCLONEDX))
}

/// The most that are looked at beside one manifest.
const FOUND_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_told_apart_and_nothing_else_is_taken() {
        let kind = |text: &'static str| SbomDocument::of(Bytes::from_static(text.as_bytes())).map(|it| it.media_type);
        assert_eq!(kind(r#"{"spdxVersion": "SPDX-2.3", "packages": []}"#), Some(SPDX));
        assert_eq!(kind(r#"{"bomFormat": "CycloneDX", "specVersion": "1.6"}"#), Some(CYCLONEDX));
        for other in [
            "",
            "{}",
            "[]",
            "SPDXVersion: SPDX-2.3",
            r#"{"spdxVersion": "2.3"}"#,
            r#"{"bomFormat": "SPDX"}"#,
            r#"{"spdxVersion": "SPDX-2.3", "bomFormat": "CycloneDX"}"#,
            r#"{"spdxVersion": "SPDX-2.3"} trailing"#,
        ] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
