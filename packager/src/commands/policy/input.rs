//! One input of a policy, put together from files as the service would from a request. Nothing in them is verified.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use attestation_service::api::Reference;
use command_line::{ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use jose::signing::VerifyingKey;
use release_protocol::{License, LicenseFile, ProductName, Workload};
use serde_json::{Value, json};

use super::evidence::StatedEvidence;
use crate::cli::PolicyTestArgs;

/// The largest file that is read, in bytes.
pub(super) const FILE_MAX: u64 = 4 << 20;

/// Makes the input; members that no file gives are absent.
pub(super) fn compose(args: &PolicyTestArgs, evidence: &Path, now: Timestamp) -> Result<Value, Failure> {
    let StatedEvidence { tee, platform, checks } = StatedEvidence::read(&read(evidence, "evidence")?)?;
    let license = args.license.as_deref().map(license).transpose()?;
    let references = args.references.as_deref().map(references).transpose()?.unwrap_or_default();
    let (references, retired): (Vec<_>, Vec<_>) = references.into_iter().partition(|reference| reference.counts(now));
    let mut input = json!({
        "now": now.as_second(), "tee": tee, "platform": platform, "devices": [], "checks": checks,
        "references": references, "retired_references": retired, "product_signers": [], "image": "", "sbom": null, "renewal": false,
    });
    if let Some(product) = product(args.product.as_ref(), license.as_ref()) {
        input["product"] = json!(product);
    }
    if let Some(license) = &license {
        input["product_signers"] = json!(signers(license)?);
        input["license"] = json!(license);
    }
    if let Some(path) = &args.workload {
        let workload: Workload = serde_json::from_slice(&read(path, "workload")?)
            .or_fail(ExitCode::BadInput, || format!("`{}` is no workload", path.display()))?;
        input["workload"] = json!(workload);
    }
    Ok(input)
}

/// Reads a file of which there is no need to be large.
pub(super) fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let failed = || format!("cannot read the {what} `{}`", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).or_fail(ExitCode::BadInput, failed)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).or_fail(ExitCode::BadInput, failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::bad_input(failed()).cause(format!("it has more than {FILE_MAX} bytes")));
    }
    Ok(bytes)
}

fn license(path: &Path) -> Result<License, Failure> {
    let bytes = read(path, "licence")?;
    let failed = || format!("`{}` is no licence", path.display());
    if let Ok(claims) = serde_json::from_slice(&bytes) {
        return Ok(claims);
    }
    let text = String::from_utf8(bytes).or_fail(ExitCode::BadInput, failed)?;
    Ok(text.parse::<LicenseFile>().or_fail(ExitCode::BadInput, failed)?.unverified().clone())
}

fn references(path: &Path) -> Result<Vec<Reference>, Failure> {
    serde_json::from_slice(&read(path, "reference values")?).or_fail(ExitCode::BadInput, || {
        format!(
            "`{}` is no list of reference values as `sealift --output json reference list` prints it",
            path.display()
        )
    })
}

fn product(named: Option<&ProductName>, license: Option<&License>) -> Option<ProductName> {
    match (named, license.map(|license| license.products.as_slice())) {
        (Some(named), _) => Some(named.clone()),
        (None, Some([only])) => Some(only.clone()),
        (None, _) => None,
    }
}

/// The product's signers, as far as the licence names them.
fn signers(license: &License) -> Result<Vec<String>, Failure> {
    let thumbprint = |pem: &String| {
        let key = VerifyingKey::from_spki_pem(pem);
        Ok(key.or_fail(ExitCode::BadInput, || "a signer in the licence cannot be used".to_owned())?.thumbprint())
    };
    license.signers.iter().map(thumbprint).collect()
}
