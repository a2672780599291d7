//! Reading the licence file. What it says is believed only as far as the service that it names confirms it.

use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};
use jose::signing::VerifyingKey;
use release_protocol::{License, LicenseFile};

/// Reads the licence in the file.
pub(crate) fn read(path: &Path) -> Result<LicenseFile, Failure> {
    let text = std::fs::read_to_string(path)
        .or_fail(ExitCode::BadInput, || format!("cannot read the licence `{}`", path.display()))
        .map_err(|failure| failure.hint("the vendor issues licences with `sealift license issue`"))?;
    text.parse()
        .or_fail(ExitCode::BadInput, || format!("`{}` is no licence", path.display()))
        .map_err(|failure| failure.hint("ask the vendor for the licence file once more; it must not be edited"))
}

/// The vendor's signing keys that the licence carries.
pub(crate) fn signers(license: &License) -> Result<Vec<VerifyingKey>, Failure> {
    license
        .signers
        .iter()
        .map(|pem| {
            VerifyingKey::from_spki_pem(pem)
                .or_fail(ExitCode::BadInput, || "the licence carries a signing key that is none".to_owned())
        })
        .collect()
}
