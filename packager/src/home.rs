//! The vendor home: settings, signing key, admin token, and the service's files below it.

use std::fs;
use std::path::{Path, PathBuf};

use attestation_service::{CustodyError, DatabaseUrl, DatabaseUrlError, Home, ServiceSettings, StoreError};
pub(crate) use command_line::write_new;
use command_line::{Answerer, ExitCode, Failure, FailureContext as _};
use serde::{Deserialize, Serialize};

/// What `sealift.toml` says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) service: ServiceSettings,
}

/// A vendor home.
#[derive(Clone, Debug)]
pub(crate) struct VendorHome {
    directory: PathBuf,
}

impl VendorHome {
    /// The home at `directory`; `~/.sealift` by default.
    pub(crate) fn at(directory: Option<PathBuf>) -> Self {
        let directory = directory.unwrap_or_else(|| {
            std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from).join(".sealift")
        });
        Self { directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn service(&self) -> Home {
        Home::at(&self.directory)
    }

    pub(crate) fn settings_path(&self) -> PathBuf {
        self.directory.join("sealift.toml")
    }

    pub(crate) fn admin_token_path(&self) -> PathBuf {
        self.directory.join("admin.token")
    }

    pub(crate) fn signing_key_path(&self) -> PathBuf {
        self.directory.join("signing.key")
    }

    pub(crate) fn signing_public_key_path(&self) -> PathBuf {
        self.directory.join("signing.pub")
    }

    pub(crate) fn watermark_key_path(&self) -> PathBuf {
        self.directory.join("watermark.key")
    }

    /// Reads the settings.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let path = self.settings_path();
        let text = fs::read_to_string(&path)
            .or_fail(ExitCode::BadInput, || format!("cannot read the settings `{}`", path.display()))
            .map_err(|failure| self.suggest_init(failure))?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            // Not the line itself, which the error would show: a password may stand in it.
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            Failure::bad_input(format!("the settings `{}` are malformed", path.display()))
                .cause(format!("line {line}: {}", error.message()))
        })
    }

    /// Adds the hint for a home that is not there.
    pub(crate) fn suggest_init(&self, failure: Failure) -> Failure {
        if self.settings_path().exists() {
            return failure;
        }
        failure.hint(format!(
            "make a vendor home with `sealift init {}`, or name another by `--home`",
            self.directory.display()
        ))
    }
}

/// The database of a command line. What was given is not shown: a password may stand in it.
pub(crate) fn database(given: Option<&str>) -> Result<Option<DatabaseUrl>, Failure> {
    given
        .map(str::parse)
        .transpose()
        .map_err(|error: DatabaseUrlError| Failure::usage("`--database` cannot be used").caused_by(&error))
}

/// A store that cannot be opened: unavailable where its database does not answer.
pub(crate) fn cannot_open(message: String, error: &StoreError) -> Failure {
    match error {
        StoreError::Database(_) => Failure::unavailable(message).caused_by(error),
        _ => Failure::other(message).caused_by(error),
    }
}

/// A master key that cannot be used: whose answer that is, and whether it is worth trying again.
pub(crate) fn custody_failure(message: String, error: &CustodyError) -> Failure {
    let (code, hint) = match error {
        CustodyError::Unavailable { .. } => (ExitCode::Unavailable, "try again once the store answers"),
        CustodyError::Refused { .. } => {
            (ExitCode::Denied, "set the PIN or token of a user that may encrypt and decrypt with this key")
        }
        CustodyError::NoKey { .. } => (
            ExitCode::BadInput,
            "put the key there, or name another one; what is sealed under it opens by nothing else",
        ),
        CustodyError::Unreachable { .. } => {
            (ExitCode::BadInput, "see `[service.custody]` in the README for what may be set, and where")
        }
        CustodyError::Open => (
            ExitCode::VerificationFailed,
            "the database was sealed under another master key than the one of this name: put that one back",
        ),
        _ => return Failure::bad_input(message).caused_by(error),
    };
    let failure = Failure::new(code, message).caused_by(error).hint(hint);
    match error {
        CustodyError::Unavailable { .. } | CustodyError::Refused { .. } => failure.from_answerer(Answerer::KeyStore),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_the_readme_shows_are_understood() {
        let readme = include_str!("../../README.md");
        let samples = readme.split("```toml\n").skip(1).map(|sample| sample.split_once("```").unwrap().0);
        let sample: String = samples.collect();
        let text = format!("[service]\nlisten = \"127.0.0.1:1\"\nurl = \"https://localhost/\"\n{sample}");
        let settings: Settings = toml::from_str(&text).unwrap();
        let requirements = &settings.service.evidence.requirements;
        assert_eq!(requirements.revocation, launch_evidence::Revocation::Require);
        let genoa = &requirements.minimum_tcb[&launch_evidence::snp::Product::Genoa];
        assert_eq!(settings.service.log.witnesses.len(), 1);
        assert!(settings.service.custody.pkcs11.is_some() && settings.service.custody.openbao.is_some());
        assert_eq!((genoa.snp, genoa.microcode_by_model[&160]), (22, 27));
    }
}
