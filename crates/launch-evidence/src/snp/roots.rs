//! What the verifier trusts: pinned roots, known intermediates, revocation lists. All of it given, none of
//! it from evidence.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
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

/// AMD's intermediates for VLEK certificates (ASVK), which the `sev` crate does not carry.
const AMD_ASVK: [&[u8]; 3] =
    [include_bytes!("asvk/milan.der"), include_bytes!("asvk/genoa.der"), include_bytes!("asvk/turin.der")];

/// The SHA-256 of AMD's intermediates in DER.
#[rustfmt::skip]
const AMD_INTERMEDIATES: [&str; 6] = [
    "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b", // ASK of Milan
    "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5", // ASVK of Milan
    "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521", // ASK of Genoa
    "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372", // ASVK of Genoa
    "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185", // ASK of Turin
    "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c", // ASVK of Turin
];

/// Trust roots, intermediates and revocation lists.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    pub(crate) roots: Vec<Root>,
    pub(crate) intermediates: Vec<Arc<Certificate>>,
    pub(crate) lists: Vec<SignedList>,
    /// Lists that were offered and cannot be used: what rests on them then fails.
    unusable_lists: Vec<UnusableList>,
}

/// A list that cannot be used.
#[derive(Clone, Debug)]
struct UnusableList {
    /// Whose list it was to be; `None` where it may be anybody's.
    product: Option<Product>,
    why: String,
}

/// A root that is trusted because it was given, and for one product.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) certificate: Certificate,
    pub(crate) product: Product,
    /// Whether the names below it say that they are simulated.
    pub(crate) simulated: bool,
    /// Whether it is anybody's, given to look at saved evidence.
    pub(crate) untrusted: bool,
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
    /// and the intermediates that issue VCEK (ASK) and VLEK certificates (ASVK), pinned as well.
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
            trust.roots.push(Root { certificate, product: *product, simulated: false, untrusted: false });
            trust = trust.with_pinned_intermediate(from_pem(intermediate).unwrap_or_default().as_slice());
        }
        AMD_ASVK.into_iter().fold(trust, Self::with_pinned_intermediate)
    }

    fn with_pinned_intermediate(self, der: &[u8]) -> Self {
        let is_pinned = AMD_INTERMEDIATES.contains(&hex::encode(digest(&SHA256, der)).as_str());
        let trust = self.clone();
        if is_pinned { trust.with_intermediate(der).unwrap_or(self) } else { self }
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
        self.roots.push(Root { certificate, product, simulated: true, untrusted: false });
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

    /// When a root of `product` made this revocation list (DER): an older one may lack what was revoked since.
    ///
    /// # Errors
    /// When no root of the product that was given before has signed it.
    pub fn revocation_list_date(&self, product: Product, der: &[u8]) -> Result<Timestamp, TrustRootError> {
        let list = RevocationList::parse(der).map_err(TrustRootError::Malformed)?;
        let mut roots = self.roots.iter().filter(|root| root.product == product);
        if !roots.any(|root| list.is_of(&root.certificate)) {
            return Err(TrustRootError::NotSigned);
        }
        list.issued_at().map_err(|error| TrustRootError::Malformed(error.to_string()))
    }

    /// Adds one certificate of anybody's chain, in DER, to look at saved evidence by: a self-signed root named as AMD
    /// names its own, or an intermediate below one that was given before. It proves nothing about hardware, and what
    /// rests on it is marked as simulated.
    ///
    /// # Errors
    /// When it is neither.
    pub fn with_untrusted(mut self, der: &[u8]) -> Result<Self, TrustRootError> {
        let certificate = Certificate::parse(der).map_err(TrustRootError::Malformed)?;
        if certificate.subject() != certificate.issuer() {
            return self.with_intermediate(der);
        }
        let name = common_name(certificate.subject()).unwrap_or_default();
        let (product, simulated) = Product::ALL
            .into_iter()
            .flat_map(|product| [(product, false), (product, true)])
            .find(|(product, simulated)| name == root_common_name(*product, *simulated))
            .ok_or_else(|| TrustRootError::Malformed(format!("a root named `{name}`, not `ARK-Milan` or the like")))?;
        if let Some(offence) = certificate.authority_offence(1) {
            return Err(TrustRootError::Malformed(offence));
        }
        if !certificate.is_signed_by(&certificate) {
            return Err(TrustRootError::NotSigned);
        }
        self.roots.push(Root { certificate, product, simulated, untrusted: true });
        Ok(self)
    }

    /// Adds a revocation list, in DER, that comes with saved evidence. One that is malformed, or that no root here has
    /// signed, makes the check of revocation fail.
    #[must_use]
    pub fn with_offered_revocation_list(self, der: &[u8]) -> Self {
        let before = self.clone();
        self.with_revocation_list(der).unwrap_or_else(|error| before.with_unusable_list(None, error.to_string()))
    }

    /// Adds the revocation list, in DER, that lies where a product's belongs. One that is malformed, or that no root of
    /// the product has signed, makes the check of revocation fail for that product: what it may have revoked is not known.
    #[must_use]
    pub fn with_revocation_list_of(self, product: Product, der: &[u8]) -> Self {
        let dated = self.revocation_list_date(product, der);
        // What it names is revoked, wherever it lies.
        let with = self.clone().with_revocation_list(der).unwrap_or(self);
        match dated {
            Ok(_) => with,
            Err(error) => with.with_unusable_list(Some(product), error.to_string()),
        }
    }

    fn with_unusable_list(mut self, product: Option<Product>, why: String) -> Self {
        self.unusable_lists.push(UnusableList { product, why });
        self
    }

    /// Why the check of revocation fails for a product whatever its lists say, if it does.
    pub fn unusable_list(&self, product: Product) -> Option<&str> {
        let mut lists = self.unusable_lists.iter();
        lists.find(|list| list.product.is_none_or(|of| of == product)).map(|list| list.why.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_roots_and_six_intermediates_of_amd_are_compiled_in() {
        let trust = TrustRoots::amd();
        let products: Vec<Product> = trust.products().map(|(product, _)| product).collect();
        assert_eq!(products, Product::ALL);
        let mut names: Vec<_> = trust.intermediates.iter().filter_map(|one| common_name(one.subject())).collect();
        names.sort();
        let wanted = ["SEV-Genoa", "SEV-Milan", "SEV-Turin", "SEV-VLEK-Genoa", "SEV-VLEK-Milan", "SEV-VLEK-Turin"];
        assert_eq!(names, wanted);
    }
}
