//! Which endorsement a report needs when its evidence brings none: where it lies in a directory, and what AMD's key
//! distribution service calls it. Fetching is not done here.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Product;
use super::certificate::Certificate;
use super::endorsement;
use super::evidence::Evidence;
use super::report::{Report, Tcb};
use super::roots::TrustRoots;
use crate::identity::ChipId;

/// The `SIGNING_KEY` of a report that a VCEK signed.
const VCEK: u32 = 0;

/// A VCEK's certificate, by what it is for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct WantedEndorsement {
    /// The processor generation.
    pub product: Product,
    /// The processor.
    pub chip_id: ChipId,
    /// `REPORTED_TCB` as the report has it.
    pub reported_tcb: [u8; 8],
}

impl WantedEndorsement {
    /// The certificates of which one is wanted: none where `primary` is no SNP evidence, brings an endorsement key's
    /// certificate, was signed by a provider's key (which nobody hands out by chip), or masks its chip. A report of
    /// version 2 does not say its product, so that each product that has such firmware is a candidate.
    pub fn candidates(primary: &Value) -> Vec<Self> {
        let Ok(evidence) = Evidence::parse(primary) else { return Vec::new() };
        let is_endorsement = |der: &Vec<u8>| Certificate::parse(der).is_ok_and(|one| one.is_endorsement_key());
        if evidence.certificates.iter().any(is_endorsement) { Vec::new() } else { Self::of(&evidence.report) }
    }

    fn of(report: &Report) -> Vec<Self> {
        let chip_id = report.chip_id();
        let key_info = report.key_info();
        if chip_id.0 == [0; ChipId::LEN] || key_info.signing_key() != VCEK || key_info.mask_chip_key() {
            return Vec::new();
        }
        let products = match (report.cpuid(), report.product()) {
            (_, Some(product)) => vec![product],
            (None, None) => vec![Product::Milan, Product::Genoa],
            (Some(_), None) => Vec::new(),
        };
        let reported_tcb = report.tcb_bytes(Tcb::Reported);
        products.into_iter().map(|product| Self { product, chip_id, reported_tcb }).collect()
    }

    /// Where it lies in a directory of endorsements: `<product>/<chip id>/<tcb>.der`, the chip id in 128 hexadecimal
    /// digits and the TCB in 16, both in the order of the report's bytes.
    pub fn relative_path(&self) -> PathBuf {
        let file = format!("{}.der", hex::encode(self.reported_tcb));
        [self.product.as_str(), &self.chip_id.to_string(), &file].iter().collect()
    }

    /// What AMD's key distribution service calls it, below its base address (AMD 57230, VCEK certificate retrieval).
    pub fn distribution_path(&self) -> String {
        let Self { product, chip_id, reported_tcb } = self;
        let [first, second, third, fourth, .., seventh, microcode] = *reported_tcb;
        let hardware_id = hex::encode(chip_id.0.get(..product.hardware_id_len()).unwrap_or_default());
        let levels = match product {
            Product::Milan | Product::Genoa => format!("blSPL={first}&teeSPL={second}&snpSPL={seventh}"),
            Product::Turin => format!("fmcSPL={first}&blSPL={second}&teeSPL={third}&snpSPL={fourth}"),
        };
        format!("vcek/v1/{product}/{hardware_id}?{levels}&ucodeSPL={microcode}")
    }
}

/// Where AMD's key distribution service has the revocation list of a product's root, below its base address.
pub fn revocation_list_path(product: Product) -> String {
    format!("vcek/v1/{product}/crl")
}

/// Adds certificates in DER to evidence that came without them. What is no JSON object stays as it is.
#[must_use]
pub fn with_certificates(mut primary: Value, certificates: &[Vec<u8>]) -> Value {
    if let Value::Object(members) = &mut primary {
        let chain = members.entry("cert_chain").or_insert_with(|| Value::Array(Vec::new()));
        if chain.is_null() {
            *chain = Value::Array(Vec::new());
        }
        if let Value::Array(chain) = chain {
            chain.extend(certificates.iter().map(|der| Value::String(STANDARD.encode(der))));
        }
    }
    primary
}

impl TrustRoots {
    /// Whether `der` is the certificate that is wanted, below an intermediate that these roots have signed, known here or
    /// brought by `primary`: worth keeping. The whole judgement is the verifier's.
    pub fn endorse(&self, der: &[u8], wanted: &WantedEndorsement, primary: &Value) -> bool {
        let Ok(offered) = Certificate::parse(der) else { return false };
        let brought = Evidence::parse(primary).map(|evidence| evidence.certificates).unwrap_or_default();
        let brought = brought.iter().filter_map(|der| Certificate::parse(der).ok());
        let is_of_a_root = |one: &Certificate| self.roots.iter().any(|root| one.is_signed_by(&root.certificate));
        offered.is_endorsement_key()
            && endorsement::hardware_id(&offered, wanted.product).is_ok_and(|id| id == wanted.chip_id)
            && endorsement::tcb(&offered, wanted.product).is_ok_and(|tcb| tcb == wanted.reported_tcb)
            && (self.intermediates.iter().any(|issuer| offered.is_signed_by(issuer))
                || brought.into_iter().any(|issuer| offered.is_signed_by(&issuer) && is_of_a_root(&issuer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(product: Product) -> WantedEndorsement {
        let mut chip_id = [0; ChipId::LEN];
        chip_id[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        WantedEndorsement { product, chip_id: ChipId(chip_id), reported_tcb: [1, 2, 3, 4, 0, 0, 7, 255] }
    }

    #[test]
    fn milan_is_asked_for_by_the_whole_chip_id_and_four_levels() {
        let chip = wanted(Product::Milan).chip_id;
        let path = wanted(Product::Milan).distribution_path();
        assert_eq!(path, format!("vcek/v1/Milan/{chip}?blSPL=1&teeSPL=2&snpSPL=7&ucodeSPL=255"));
    }

    #[test]
    fn turin_is_asked_for_by_eight_bytes_and_five_levels() {
        let path = wanted(Product::Turin).distribution_path();
        assert_eq!(path, "vcek/v1/Turin/0102030405060708?fmcSPL=1&blSPL=2&teeSPL=3&snpSPL=4&ucodeSPL=255");
    }

    #[test]
    fn a_file_is_named_by_product_chip_and_tcb() {
        let path = wanted(Product::Genoa).relative_path();
        let chip = wanted(Product::Genoa).chip_id;
        assert_eq!(path, PathBuf::from(format!("Genoa/{chip}/01020304000007ff.der")));
    }
}
