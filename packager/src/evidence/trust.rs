//! Whose roots are trusted when saved evidence is judged: AMD's, or anybody's, which the output then says.

use launch_evidence::{AzSnpVtpmVerifier, SnpVerifier, TdxVerifier, TrustRoots, Verifier};

use super::input::pem_or_der;

/// The verifiers of all TEEs.
pub(crate) struct Trust {
    verifiers: Vec<Box<dyn Verifier>>,
    /// Whether the roots were given.
    pub(crate) untrusted: bool,
}

impl Trust {
    /// Trusts the certificates in `roots` (files' contents), or AMD's where there are none. `Err` says which is
    /// unusable.
    pub(crate) fn new(roots: &[Vec<u8>], list: Option<&[u8]>) -> Result<Self, String> {
        let mut trust = if roots.is_empty() { TrustRoots::amd() } else { given(roots)? };
        if let Some(list) = list {
            let der = pem_or_der(list, "X509 CRL").into_iter().next().unwrap_or_default();
            trust = trust.with_offered_revocation_list(&der);
        }
        let verifiers: Vec<Box<dyn Verifier>> = vec![
            Box::new(SnpVerifier::new(trust.clone())),
            Box::new(AzSnpVtpmVerifier::new(trust)),
            Box::new(TdxVerifier::new()),
        ];
        Ok(Self { verifiers, untrusted: !roots.is_empty() })
    }

    /// The verifier that knows this form; what none knows, the first refuses by name.
    pub(crate) fn verifier(&self, primary: &serde_json::Value) -> Option<&dyn Verifier> {
        let own = self.verifiers.iter().find(|verifier| verifier.recognises(primary));
        own.or(self.verifiers.first()).map(AsRef::as_ref)
    }
}

fn given(files: &[Vec<u8>]) -> Result<TrustRoots, String> {
    let certificates: Vec<Vec<u8>> = files.iter().flat_map(|file| pem_or_der(file, "CERTIFICATE")).collect();
    let mut trust = TrustRoots::default();
    // An intermediate may stand before its root: those that no root has signed yet are tried again after all others.
    let mut waiting = Vec::new();
    for der in &certificates {
        match trust.clone().with_untrusted(der) {
            Ok(with) => trust = with,
            Err(launch_evidence::TrustRootError::NotSigned) => waiting.push(der),
            Err(error) => return Err(format!("a root is not usable: {error}")),
        }
    }
    for der in waiting {
        trust = trust.with_untrusted(der).map_err(|error| format!("a root is not usable: {error}"))?;
    }
    Ok(trust)
}
