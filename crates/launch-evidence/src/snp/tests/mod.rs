//! Evidence that is right in everything but one thing, and the check that must say so.
//!
//! [`Case`] is valid evidence of a generated chain, in parts: a test changes a part, then everything is
//! signed for real.

mod certificates;
mod form;
mod report;
mod revocation;

use std::sync::{Arc, OnceLock};

use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::Encode as _;
use der::asn1::Ia5String;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};
use spki::AlgorithmIdentifierOwned;

use super::endorsement::{CSP_ID, HARDWARE_ID, KeyKind};
use super::report::REPORT_LEN;
use super::roots::{TrustRoots, marked, root_common_name};
use super::{Product, SnpVerifier};
use crate::check::CheckName;
use crate::identity::{ChipId, Measurement};
use crate::simulated::authority::{
    CertificateSpec, Issuer, amd, authority_extensions, p384_public_key, pss, rsa_public_key, vcek_extensions,
};
use crate::simulated::platform::{Chip, ChipSecret};
use crate::simulated::{LaunchOptions, SimulatedGuest, TcbLevels};
use crate::verifier::{Expected, HostData, Requirements, VerifiedEvidence, Verifier as _};

/// Which authority's key.
#[derive(Clone, Copy)]
enum Key {
    Root,
    Intermediate,
}

/// RSA-4096 keys take long to make: one of each for the whole process.
fn key(which: Key) -> &'static RsaKeyPair {
    static ROOT: OnceLock<RsaKeyPair> = OnceLock::new();
    static INTERMEDIATE: OnceLock<RsaKeyPair> = OnceLock::new();
    let slot = match which {
        Key::Root => &ROOT,
        Key::Intermediate => &INTERMEDIATE,
    };
    slot.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa4096).unwrap())
}

fn issuer(name: &str, which: Key) -> Issuer {
    use aws_lc_rs::encoding::AsDer as _;
    let pkcs8 = key(which).as_der().unwrap();
    Issuer { name: name.to_owned(), key: RsaKeyPair::from_pkcs8(pkcs8.as_ref()).unwrap() }
}

/// A certificate in parts.
struct Part {
    spec: CertificateSpec,
    /// The issuer's name in it.
    issuer: String,
    /// The key that signs it.
    signer: Key,
    /// What happens to the encoded body before it is signed.
    edit_body: Edit<Vec<u8>>,
    /// The algorithm that stands beside the signature.
    algorithm: AlgorithmIdentifierOwned,
}

impl Part {
    fn der(self) -> Vec<u8> {
        let issuer = issuer(&self.issuer, self.signer);
        let mut body = issuer.body(self.spec).unwrap();
        if let Some(edit) = self.edit_body {
            edit(&mut body);
        }
        issuer.sign(&body, self.algorithm).unwrap()
    }
}

/// Makes what is trusted from the root.
type Trust = Box<dyn FnOnce(&[u8]) -> TrustRoots>;

type Edit<T> = Option<Box<dyn FnOnce(&mut T)>>;

/// Valid evidence in parts.
struct Case {
    product: Product,
    root: Part,
    intermediate: Part,
    leaf: Part,
    /// The report; its signature is made last.
    report: [u8; REPORT_LEN],
    /// What happens to the report after it was signed.
    after_signing: Edit<[u8; REPORT_LEN]>,
    /// What happens to the certificates that go into the evidence: endorsement key, intermediate.
    after_issuing: Edit<Vec<Vec<u8>>>,
    /// What the verifier trusts besides AMD: the root, unless emptied.
    trust: Trust,
    expected: Expected,
    chip: Arc<Chip>,
}

impl Case {
    /// A version 5 report of a Genoa, by its VCEK.
    fn new() -> Self {
        Self::of(Product::Genoa, 5, KeyKind::Vcek)
    }

    fn of(product: Product, report_version: u32, kind: KeyKind) -> Self {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let hour = Span::new().hours(1);
        let part = |subject: String, public_key, extensions, issuer: String, signer, serial: u8| Part {
            spec: CertificateSpec {
                subject,
                serial: vec![serial],
                not_before: now.checked_sub(hour).unwrap(),
                not_after: now.checked_add(hour).unwrap(),
                key: public_key,
                extensions,
            },
            issuer,
            signer,
            edit_body: None,
            algorithm: pss().unwrap(),
        };
        let chip_id = {
            let mut id = [0; ChipId::LEN];
            id[..product.hardware_id_len()].fill(0xC5);
            ChipId(id)
        };
        // Above 127, so that the certificate's numbers take two bytes.
        let fmc = (product == Product::Turin).then_some(3);
        let tcb = TcbLevels { fmc, bootloader: 9, tee: 2, snp: 21, microcode: 200 };
        let vek = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();

        let root_name = root_common_name(product, true);
        let intermediate_name = marked(&kind.issuer_common_name(product), true);
        let mut extensions = vcek_extensions(product, tcb.bytes(product).unwrap(), chip_id.as_bytes()).unwrap();
        if kind == KeyKind::Vlek {
            extensions.retain(|extension| extension.extn_id != HARDWARE_ID);
            extensions.push(amd(CSP_ID, Ia5String::new("CN=provider.example").unwrap().to_der().unwrap()).unwrap());
        }
        let root_key = rsa_public_key(key(Key::Root)).unwrap();
        let intermediate_key = rsa_public_key(key(Key::Intermediate)).unwrap();
        let leaf_key = p384_public_key(vek.public_key().as_ref()).unwrap();
        let root =
            part(root_name.clone(), root_key, authority_extensions(None).unwrap(), root_name.clone(), Key::Root, 1);
        let intermediate = part(
            intermediate_name.clone(),
            intermediate_key,
            authority_extensions(Some(0)).unwrap(),
            root_name,
            Key::Root,
            2,
        );
        let leaf =
            part(marked(kind.common_name(), true), leaf_key, extensions, intermediate_name, Key::Intermediate, 0);

        let chip =
            Arc::new(Chip { product, id: chip_id, tcb, chain: Vec::new(), key: vek, secret: ChipSecret::of(b"vek") });
        let options = LaunchOptions { report_version, ..LaunchOptions::default() };
        let guest = SimulatedGuest::launch(Arc::clone(&chip), Measurement([0xA1; 48]), options).unwrap();
        let mut report = guest.report(&[0x5A; 64]).unwrap();
        if kind == KeyKind::Vlek {
            report[0x48] = 1 << 2;
        }
        let expected =
            Expected { report_data: [0x5A; 64], host_data: HostData::Zero, requirements: Requirements::default(), now };
        Self {
            product,
            root,
            intermediate,
            leaf,
            report,
            after_signing: None,
            after_issuing: None,
            trust: Box::new(|root| TrustRoots::amd().with_simulated(root).unwrap()),
            expected,
            chip,
        }
    }

    /// Signs everything and puts it to the verifier.
    fn verify(self) -> Result<VerifiedEvidence, Vec<CheckName>> {
        let (primary, verifier, expected) = self.build();
        verifier.verify(&primary, &expected).map_err(|rejected| rejected.failures().map(|check| check.name).collect())
    }

    fn build(mut self) -> (Value, SnpVerifier, Expected) {
        // Any guest of the chip signs for it.
        let options = LaunchOptions { report_version: 3, ..LaunchOptions::default() };
        let signer = SimulatedGuest::launch(self.chip, Measurement([0; 48]), options).unwrap();
        signer.sign(&mut self.report).unwrap();
        if let Some(edit) = self.after_signing {
            edit(&mut self.report);
        }
        let mut certificates = vec![self.leaf.der(), self.intermediate.der()];
        if let Some(edit) = self.after_issuing {
            edit(&mut certificates);
        }
        let chain: Vec<String> = certificates.iter().map(|der| STANDARD.encode(der)).collect();
        let primary = json!({"report": STANDARD.encode(self.report), "cert_chain": chain});
        (primary, SnpVerifier::new((self.trust)(&self.root.der())), self.expected)
    }

    /// Writes a number into the report, little-endian.
    fn put<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        self.report[offset..offset + N].copy_from_slice(&bytes);
    }
}

/// Evidence with one change, and the failed checks.
fn failures(edit: impl FnOnce(&mut Case)) -> Vec<CheckName> {
    let mut case = Case::new();
    edit(&mut case);
    case.verify().err().unwrap_or_default()
}

/// Asserts that a change makes exactly one check fail.
#[track_caller]
fn fails_only(name: CheckName, edit: impl FnOnce(&mut Case)) {
    assert_eq!(failures(edit), [name]);
}

#[test]
fn evidence_that_is_right_in_everything_is_verified() {
    for (product, version, kind) in [
        (Product::Milan, 2, KeyKind::Vcek),
        (Product::Milan, 3, KeyKind::Vlek),
        (Product::Genoa, 3, KeyKind::Vcek),
        (Product::Genoa, 5, KeyKind::Vlek),
        (Product::Turin, 3, KeyKind::Vcek),
        (Product::Turin, 5, KeyKind::Vcek),
    ] {
        let evidence = Case::of(product, version, kind).verify().unwrap();
        let claims = evidence.claims().snp().unwrap();
        assert_eq!((claims.product, claims.report_version, claims.signing_key), (product, version, kind));
        assert!(evidence.is_simulated() && claims.simulated, "{product}: it has to say that it is simulated");
        assert_eq!(evidence.measurement(), Measurement([0xA1; 48]));
        assert_eq!(claims.csp_id.is_some(), kind == KeyKind::Vlek);
        assert_eq!(claims.reported_tcb.microcode, 200);
        assert_eq!(claims.reported_tcb.fmc.is_some(), product == Product::Turin);
        assert!(evidence.checks().iter().all(|check| check.verdict != crate::check::Verdict::Failed));
    }
}
