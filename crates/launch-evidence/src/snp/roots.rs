//! What the verifier trusts: pinned roots, known intermediates, revocation lists. All of it given, none of
//! it from evidence.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use sev::certs::snp::builtin;

use super::Product;
use super::certificate::{Certificate, common_name};
use super::revocation::{RevocationList, SignedList};

/// The word that stands in every name of a simulated platform's certificates.
pub const SIMULATED: &str = "SIMULATED";

/// The SHA-256 of AMD's root certificates in DER.
const AMD_ROOTS: [(Product, [u8; 32]); 3] = [
    (
        Product::Milan,
        [
            0x69, 0xD0, 0x63, 0xB4, 0x53, 0x44, 0xD2, 0x6A, 0x2E, 0x94, 0xE1, 0xF4, 0x21, 0x0D, 0xE4, 0x9E, 0xF5, 0x55,
            0x30, 0x82, 0x87, 0xD4, 0xC1, 0x74, 0x44, 0x5C, 0x95, 0x63, 0x9A, 0x54, 0x0B, 0xCD,
        ],
    ),
    (
        Product::Genoa,
        [
            0x4C, 0x65, 0x98, 0xD1, 0x9C, 0x18, 0x71, 0x9C, 0x5D, 0xFD, 0x4A, 0x7D, 0x33, 0x5F, 0x67, 0x4E, 0x5B, 0xFE,
            0x1D, 0x8F, 0x80, 0x0C, 0xEA, 0x2C, 0xF2, 0x70, 0xC1, 0x0D, 0x10, 0x3D, 0xB2, 0xF1,
        ],
    ),
    (
        Product::Turin,
        [
            0x1F, 0x08, 0x41, 0x61, 0xA4, 0x4B, 0xB6, 0xD9, 0x37, 0x78, 0xA9, 0x04, 0x87, 0x7D, 0x48, 0x19, 0xCA, 0xFA,
            0x5D, 0x05, 0xEF, 0x41, 0x93, 0xB2, 0xDE, 0xD9, 0xDD, 0x9C, 0x73, 0xDD, 0x3F, 0x6A,
        ],
    ),
];

/// Trust roots, intermediates and revocation lists.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    pub(crate) roots: Vec<Root>,
    pub(crate) intermediates: Vec<Arc<Certificate>>,
    pub(crate) lists: Vec<SignedList>,
}

/// A root that is trusted because it was given, and for one product.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) certificate: Certificate,
    pub(crate) product: Product,
    pub(crate) simulated: bool,
}

/// Why something is not to be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustRootError {
    /// No certificate or list of the kind that AMD issues.
    #[error("not usable: {0}")]
    Malformed(String),
    /// A root that is not signed by itself, or an intermediate or list that no root given before has signed.
    #[error("not signed by a root that is trusted")]
    NotSigned,
    /// A root whose names do not say that it is simulated, for a known product.
    #[error("the root's common name has to be `ARK-Milan SIMULATED` or the like of another product")]
    NotSimulated,
}

impl TrustRoots {
    /// AMD's roots (ARK) of Milan, Genoa and Turin as the `sev` crate carries them, pinned by SHA-256 here,
    /// and the intermediates (ASK) that issue VCEK certificates. Intermediates for VLEK certificates come
    /// with evidence or through [`TrustRoots::with_intermediate`].
    pub fn amd() -> Self {
        let built_in = [
            (builtin::milan::ARK, builtin::milan::ASK),
            (builtin::genoa::ARK, builtin::genoa::ASK),
            (builtin::turin::ARK, builtin::turin::ASK),
        ];
        let mut trust = Self::default();
        for (root, intermediate) in built_in {
            let Some(der) = from_pem(root) else { continue };
            let fingerprint = digest(&SHA256, &der);
            let Some((product, _)) = AMD_ROOTS.iter().find(|(_, pinned)| fingerprint.as_ref() == pinned) else {
                continue;
            };
            let Ok(certificate) = Certificate::parse(&der) else { continue };
            trust.roots.push(Root { certificate, product: *product, simulated: false });
            let intermediate = from_pem(intermediate).and_then(|der| Certificate::parse(&der).ok());
            trust.intermediates.extend(intermediate.map(Arc::new));
        }
        trust
    }

    /// Adds the root of a simulated platform, in DER. Evidence below it is marked simulated everywhere.
    ///
    /// # Errors
    /// When it is no self-signed authority whose names say that it is simulated.
    pub fn with_simulated(mut self, ark: &[u8]) -> Result<Self, TrustRootError> {
        let certificate = Certificate::parse(ark).map_err(TrustRootError::Malformed)?;
        let name = common_name(certificate.subject()).unwrap_or_default();
        let product = Product::ALL
            .into_iter()
            .find(|product| name == root_common_name(*product, true))
            .ok_or(TrustRootError::NotSimulated)?;
        if let Some(offence) = certificate.authority_offence(1) {
            return Err(TrustRootError::Malformed(offence));
        }
        if certificate.subject() != certificate.issuer() || !certificate.is_signed_by(&certificate) {
            return Err(TrustRootError::NotSigned);
        }
        self.roots.push(Root { certificate, product, simulated: true });
        Ok(self)
    }

    /// Adds an intermediate (ASK or ASVK), in DER, for evidence that comes without it.
    ///
    /// # Errors
    /// When no root that was given before has signed it.
    pub fn with_intermediate(mut self, der: &[u8]) -> Result<Self, TrustRootError> {
        let certificate = Certificate::parse(der).map_err(TrustRootError::Malformed)?;
        if !self.roots.iter().any(|root| certificate.is_signed_by(&root.certificate)) {
            return Err(TrustRootError::NotSigned);
        }
        self.intermediates.push(Arc::new(certificate));
        Ok(self)
    }

    /// Adds a revocation list, in DER. Its dates are judged at each verification.
    ///
    /// # Errors
    /// When no root that was given before has signed it.
    pub fn with_revocation_list(mut self, der: &[u8]) -> Result<Self, TrustRootError> {
        let list = RevocationList::parse(der).map_err(TrustRootError::Malformed)?;
        let root = self.roots.iter().find(|root| list.is_of(&root.certificate)).ok_or(TrustRootError::NotSigned)?;
        let root = *root.certificate.fingerprint();
        self.lists.push(SignedList { list, root });
        Ok(self)
    }

    /// The products of the roots given, with whether each is simulated.
    pub fn products(&self) -> impl Iterator<Item = (Product, bool)> {
        self.roots.iter().map(|root| (root.product, root.simulated))
    }
}

/// The common name of a root.
pub(crate) fn root_common_name(product: Product, simulated: bool) -> String {
    marked(&format!("ARK-{product}"), simulated)
}

/// A common name as real or simulated certificates carry it.
pub(crate) fn marked(name: &str, simulated: bool) -> String {
    if simulated { format!("{name} {SIMULATED}") } else { name.to_owned() }
}

fn from_pem(pem: &[u8]) -> Option<Vec<u8>> {
    der::pem::decode_vec(pem).ok().map(|(_, der)| der)
}
