//! Opening images: options from the command line, store errors with exit codes and hints.

use command_line::{Answerer, ExitCode, Failure, FailureContext as _};
use image_store::{ErrorKind, ImageReference, Store, StoreOptions};

use crate::cli::RegistryArgs;

/// The store's options as the command line has them.
pub(crate) fn options(args: &RegistryArgs) -> Result<StoreOptions, Failure> {
    let mut extra_root_certificates = Vec::with_capacity(args.registry_ca.len());
    for path in &args.registry_ca {
        let pem = std::fs::read(path)
            .or_fail(ExitCode::BadInput, || format!("cannot read the certificate authority `{}`", path.display()))?;
        extra_root_certificates.push(pem);
    }
    Ok(StoreOptions {
        plain_http: args.plain_http,
        auth_file: args.auth_file.clone(),
        extra_root_certificates,
        ..StoreOptions::default()
    })
}

/// Opens an image for reading.
pub(crate) async fn open(reference: &ImageReference, args: &RegistryArgs) -> Result<Store, Failure> {
    Store::open(reference, &options(args)?)
        .await
        .map_err(|error| store_failure(format!("cannot open `{reference}`"), &error))
}

/// A store's error as a command's.
pub(crate) fn store_failure(message: impl Into<String>, error: &image_store::Error) -> Failure {
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
