//! Opening images: registry switches, store errors with exit codes and hints.

use std::path::PathBuf;

use image_store::{ErrorKind, ImageReference, Store, StoreOptions};

use crate::{Answerer, ExitCode, Failure, FailureContext as _};

/// How to reach registries.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RegistryArgs {
    /// Speak plain HTTP to registries that are not on this machine, too.
    #[arg(long)]
    pub plain_http: bool,
    /// Registry credentials; Docker's and Podman's auth files by default.
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// A further certificate authority for registries, PEM.
    #[arg(long, value_name = "FILE")]
    pub registry_ca: Vec<PathBuf>,
}

impl RegistryArgs {
    /// The store's options that these switches mean.
    pub fn store_options(&self) -> Result<StoreOptions, Failure> {
        let mut extra_root_certificates = Vec::with_capacity(self.registry_ca.len());
        for path in &self.registry_ca {
            let pem = std::fs::read(path).or_fail(ExitCode::BadInput, || {
                format!("cannot read the certificate authority `{}`", path.display())
            })?;
            extra_root_certificates.push(pem);
        }
        Ok(StoreOptions {
            plain_http: self.plain_http,
            auth_file: self.auth_file.clone(),
            extra_root_certificates,
            ..StoreOptions::default()
        })
    }

    /// Opens an image for reading.
    pub async fn open(&self, reference: &ImageReference) -> Result<Store, Failure> {
        Store::open(reference, &self.store_options()?)
            .await
            .map_err(|error| store_failure(format!("cannot open `{reference}`"), &error))
    }
}

/// A store's error as a command's.
pub fn store_failure(message: impl Into<String>, error: &image_store::Error) -> Failure {
    let (code, hint) = match error.kind() {
        ErrorKind::NotFound => (ExitCode::BadInput, Some("check the name and the tag of the image")),
        ErrorKind::Denied => (ExitCode::Denied, Some("log in with `skopeo login`, `podman login` or `docker login`")),
        ErrorKind::Unavailable => (ExitCode::Unavailable, Some("try again; the registry did not answer as it should")),
        ErrorKind::Corrupt => (ExitCode::VerificationFailed, None),
        ErrorKind::Usage => (ExitCode::Usage, None),
        _ => (ExitCode::Other, None),
    };
    let mut failure = Failure::new(code, message).caused_by(error);
    if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable) {
        failure = failure.from_answerer(Answerer::Registry);
    }
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
