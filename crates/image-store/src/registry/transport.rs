//! The HTTP client: TLS roots, redirects, and whether a loopback registry speaks https.

use std::sync::Once;

use reqwest::{Certificate, Client, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, UsageError};
use crate::options::StoreOptions;
use crate::reference::RegistryReference;

/// Reads the extra root certificates.
pub(super) fn extra_roots(options: &StoreOptions) -> Result<Vec<CertificateDer<'static>>, UsageError> {
    let mut roots = Vec::new();
    for (at, pem) in options.extra_root_certificates.iter().enumerate() {
        let unusable = |()| UsageError::Certificate { number: at + 1 };
        let before = roots.len();
        for root in CertificateDer::pem_slice_iter(pem) {
            roots.push(root.map_err(|_| unusable(()))?);
        }
        if roots.len() == before {
            return Err(unusable(()));
        }
    }
    Ok(roots)
}

/// A client that trusts the system's roots and the extra ones. On a system without roots it trusts the extra ones only.
pub(super) fn client(
    reference: &RegistryReference,
    roots: &[CertificateDer<'static>],
    options: &StoreOptions,
) -> Result<Client, Error> {
    install_provider();
    let certificates = || {
        roots
            .iter()
            .enumerate()
            .map(|(at, root)| Certificate::from_der(root).map_err(|_| UsageError::Certificate { number: at + 1 }))
            .collect::<Result<Vec<_>, _>>()
    };
    let builder = || {
        let builder = Client::builder()
            .user_agent(options.user_agent)
            .connect_timeout(options.idle_timeout)
            .redirect(redirect::Policy::custom(follow))
            // Blobs are hashed as they are stored, whatever other crates make reqwest able to unpack.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd();
        // A proxy does not reach this machine's own loopback, so it is never asked to.
        if reference.is_loopback() { builder.no_proxy() } else { builder }
    };
    let client = match builder().tls_certs_merge(certificates()?).build() {
        Ok(client) => Ok(client),
        Err(error) => {
            tracing::debug!(%error, "no certificates of the system");
            builder().tls_certs_only(certificates()?).build()
        }
    };
    // What is left to fail are the extra roots, which were parsed but may not be usable as trust anchors.
    client.map_err(|_| UsageError::Certificate { number: 1 }.into())
}

/// Whether reqwest's default client can be built here. It panics where the system has no root certificates, and
/// `oci-client` builds one in its constructor.
pub(super) fn system_has_roots() -> bool {
    install_provider();
    Client::builder().build().is_ok()
}

/// The scheme to speak: see [`StoreOptions::plain_http`].
pub(super) async fn scheme(reference: &RegistryReference, client: &Client, options: &StoreOptions) -> &'static str {
    if options.plain_http {
        return "http";
    }
    if !reference.is_loopback() {
        return "https";
    }
    match client.get(format!("https://{}/v2/", reference.host())).timeout(options.idle_timeout).send().await {
        Err(error) if error.is_connect() && !is_bad_certificate(&error) => "http",
        _ => "https",
    }
}

/// Whether a request failed because the server's certificate is not trusted: another try would not help.
pub(super) fn is_bad_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = error.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(rustls::Error::InvalidCertificate(_)) = tls {
            return true;
        }
        next = error.source();
    }
    false
}

/// Redirects lead to storage services. Never from https to http; reqwest drops `Authorization` when the host changes.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_https = attempt.previous().last().is_some_and(|url: &Url| url.scheme() == "https");
    if from_https && attempt.url().scheme() != "https" {
        attempt.error("a redirect from https to http")
    } else if attempt.previous().len() > 5 {
        attempt.error("too many redirects")
    } else {
        attempt.follow()
    }
}

/// reqwest is built without a TLS provider of its own; aws-lc-rs becomes the process's, unless it has one.
fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            tracing::debug!("the process has a TLS provider");
        }
    });
}
