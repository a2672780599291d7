//! The endorsement chain: VCEK ← ASK ← ARK, or VLEK ← ASVK ← ARK.
//!
//! The root is one that the verifier was given; what evidence brings is looked at for the two certificates
//! below it only.

use std::sync::Arc;

use super::Product;
use super::certificate::{Certificate, PublicKey, common_name, shown};
use super::endorsement::{self, KeyKind};
use super::evidence::Evidence;
use super::report::{Report, Tcb};
use super::revocation;
use super::roots::{Root, SIMULATED, TrustRoots, marked};
use super::vetted::Vetted;
use crate::check::{CheckName, Checks};
use crate::verifier::{Expected, Requirements};

/// What the chain says of the report's signer. Empty where a check has failed before it could be said.
#[derive(Debug, Default)]
pub(crate) struct Endorsement {
    /// The uncompressed point of the endorsement key.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) kind: Option<KeyKind>,
    /// Whether the root is simulated.
    pub(crate) simulated: Option<bool>,
    pub(crate) csp_id: Option<String>,
}

/// The chain as its names link it. Nothing of it is verified.
pub(crate) struct Chain<'t> {
    leaf: Arc<Certificate>,
    kind: Option<KeyKind>,
    intermediate: Option<Arc<Certificate>>,
    root: Option<&'t Root>,
}

impl<'t> Chain<'t> {
    /// Parses the certificates and links them by name; where several bear the same name, by the signature.
    pub(crate) fn find(
        evidence: &Evidence,
        trust: &'t TrustRoots,
        vetted: &Vetted,
        checks: &mut Checks,
    ) -> Option<Self> {
        const FORM: &str = "one endorsement key certificate and its intermediate";
        let (leaf, authorities) = match sort(&evidence.certificates, vetted) {
            Ok(sorted) => sorted,
            Err(found) => {
                checks.note(CheckName::CertificateForm, false, FORM, found);
                for name in AFTER_FORM {
                    checks.skip(name, "there is no endorsement key certificate");
                }
                return None;
            }
        };
        checks.note(CheckName::CertificateForm, true, FORM, FORM);
        let intermediate = issuer_of(&leaf, authorities.iter().chain(&trust.intermediates), AsRef::as_ref);
        let root = intermediate.and_then(|certificate| issuer_of(certificate, &trust.roots, |root| &root.certificate));
        let kind = kind_of(&leaf);
        let intermediate = intermediate.map(Arc::clone);
        Some(Self { leaf, kind, intermediate, root })
    }

    /// The product of the root that the names lead to.
    pub(crate) fn product(&self) -> Option<Product> {
        self.root.map(|root| root.product)
    }

    /// Checks all that rests on certificates.
    pub(crate) fn check(
        &self,
        report: &Report,
        trust: &TrustRoots,
        vetted: &Vetted,
        expected: &Expected,
        checks: &mut Checks,
    ) -> Endorsement {
        let Self { leaf, kind, root, .. } = self;
        let (kind, root) = (*kind, *root);
        let intermediate = self.intermediate.as_deref();
        check_names(leaf, kind, intermediate, root, checks);
        check_root(intermediate, root, checks);
        check_flags_and_dates(leaf, intermediate, root, expected, checks);
        match (root, intermediate) {
            (Some(root), Some(intermediate)) => {
                let policy = expected.requirements.revocation;
                revocation::check(trust, root, intermediate, policy, expected.now, checks);
            }
            _ => checks.skip(CheckName::Revocation, "the chain does not reach a root"),
        }
        check_report(report, leaf, kind, self.product(), &expected.requirements, checks);
        // Public-key operations last.
        check_links(leaf, self.intermediate.as_ref(), root, vetted, checks);

        let key = match leaf.key() {
            PublicKey::P384(point) => Some(point.clone()),
            PublicKey::Rsa(_) => None,
        };
        let csp_id = endorsement::csp_id(leaf).filter(|_| kind == Some(KeyKind::Vlek));
        let simulated = root.map(|root| root.simulated || root.untrusted);
        Endorsement { key, kind, simulated, csp_id }
    }
}

/// The checks that need a parsed endorsement key certificate.
const AFTER_FORM: [CheckName; 10] = [
    CheckName::CertificateNames,
    CheckName::TrustRoot,
    CheckName::CertificateAuthority,
    CheckName::CertificateDates,
    CheckName::Revocation,
    CheckName::SigningKey,
    CheckName::Product,
    CheckName::TcbExtensions,
    CheckName::HardwareId,
    CheckName::ChainSignature,
];

/// Parses all certificates: the one with a P-384 key is the endorsement key's, the others are authorities.
fn sort(certificates: &[Vec<u8>], vetted: &Vetted) -> Result<(Arc<Certificate>, Vec<Arc<Certificate>>), String> {
    let mut leaf: Option<Arc<Certificate>> = None;
    let mut authorities = Vec::new();
    for der in certificates {
        let certificate = vetted.parse(der)?;
        match certificate.key() {
            PublicKey::Rsa(_) => authorities.push(certificate),
            PublicKey::P384(_) if leaf.as_ref().is_some_and(|leaf| leaf.der() != certificate.der()) => {
                return Err("two endorsement key certificates".to_owned());
            }
            PublicKey::P384(_) => leaf = Some(certificate),
        }
    }
    leaf.map(|leaf| (leaf, authorities)).ok_or_else(|| format!("none among {} certificates", certificates.len()))
}

/// The candidate that issued `certificate` by name; among several of that name, the one whose key signed it.
/// A single one is not asked for its signature here: that is a check of its own.
fn issuer_of<'a, T>(
    certificate: &Certificate,
    candidates: impl IntoIterator<Item = &'a T>,
    of: impl Fn(&T) -> &Certificate,
) -> Option<&'a T> {
    let mut named: Vec<&T> = Vec::new();
    for candidate in candidates {
        let one = of(candidate);
        if one.subject() == certificate.issuer() && !named.iter().any(|other| of(other).der() == one.der()) {
            named.push(candidate);
        }
    }
    match named[..] {
        [] => None,
        [only] => Some(only),
        [first, ..] => named.into_iter().find(|candidate| certificate.is_signed_by(of(candidate))).or(Some(first)),
    }
}

/// Which kind of endorsement key the certificate is of, by its name.
pub(crate) fn kind_of(leaf: &Certificate) -> Option<KeyKind> {
    let name = common_name(leaf.subject())?;
    [KeyKind::Vcek, KeyKind::Vlek].into_iter().find(|kind| is_marked(&name, kind.common_name()))
}

fn is_marked(name: &str, kind: &str) -> bool {
    name == marked(kind, false) || name == marked(kind, true)
}

fn check_names(
    leaf: &Certificate,
    kind: Option<KeyKind>,
    intermediate: Option<&Certificate>,
    root: Option<&Root>,
    checks: &mut Checks,
) {
    const EXPECTED: &str = "names that link an endorsement key to the root of its product";
    let found = match (kind, intermediate, root) {
        (None, ..) => Err(format!("the endorsement key's certificate named {}", shown(leaf.subject()))),
        (_, None, _) => Err(format!("no intermediate named {} at hand", shown(leaf.issuer()))),
        (Some(kind), Some(intermediate), Some(root)) => {
            let wanted = [
                (leaf, marked(kind.common_name(), root.simulated)),
                (intermediate, marked(&kind.issuer_common_name(root.product), root.simulated)),
            ];
            match wanted.iter().find(|(certificate, name)| common_name(certificate.subject()).as_ref() != Some(name)) {
                Some((certificate, name)) => Err(format!("{} in place of `{name}`", shown(certificate.subject()))),
                None => Ok(format!("{} below {}", shown(leaf.subject()), shown(intermediate.subject()))),
            }
        }
        // Named and linked as far as it goes; that no root is at its end is the next check's to say.
        (Some(_), Some(intermediate), None) => {
            Ok(format!("{} below {}", shown(leaf.subject()), shown(intermediate.subject())))
        }
    };
    checks.judge(CheckName::CertificateNames, EXPECTED, found);
}

fn check_root(intermediate: Option<&Certificate>, root: Option<&Root>, checks: &mut Checks) {
    const EXPECTED: &str = "a root that is pinned here";
    match (intermediate, root) {
        (None, _) => checks.skip(CheckName::TrustRoot, "the chain does not reach a root"),
        (Some(_), Some(root)) => {
            let (expected, found) = match root {
                Root { untrusted: true, .. } => ("a root that was given, UNTRUSTED", ", UNTRUSTED: it proves nothing"),
                Root { simulated: true, .. } => (EXPECTED, ", which is simulated"),
                _ => (EXPECTED, ""),
            };
            checks.note(CheckName::TrustRoot, true, expected, format!("{}{found}", shown(root.certificate.subject())));
        }
        (Some(intermediate), None) => {
            let name = shown(intermediate.issuer());
            let hint =
                if name.contains(SIMULATED) { ", a simulated platform's root, which is not accepted here" } else { "" };
            checks.note(CheckName::TrustRoot, false, EXPECTED, format!("{name}{hint}"));
        }
    }
}

fn check_links(
    leaf: &Arc<Certificate>,
    intermediate: Option<&Arc<Certificate>>,
    root: Option<&Root>,
    vetted: &Vetted,
    checks: &mut Checks,
) {
    const EXPECTED: &str = "RSA-PSS SHA-384 signatures from the root down";
    let (Some(intermediate), Some(root)) = (intermediate, root) else {
        return checks.skip(CheckName::ChainSignature, "the chain does not reach a root");
    };
    let found = if !vetted.is_signed_by(intermediate, &root.certificate) {
        Err(format!("{} not signed by {}", shown(intermediate.subject()), shown(root.certificate.subject())))
    } else if !vetted.is_signed_by(leaf, intermediate) {
        Err(format!("{} not signed by {}", shown(leaf.subject()), shown(intermediate.subject())))
    } else {
        vetted.keep(intermediate, &root.certificate);
        vetted.keep(leaf, intermediate);
        Ok(EXPECTED.to_owned())
    };
    checks.judge(CheckName::ChainSignature, EXPECTED, found);
}

fn check_flags_and_dates(
    leaf: &Certificate,
    intermediate: Option<&Certificate>,
    root: Option<&Root>,
    expected: &Expected,
    checks: &mut Checks,
) {
    // The root is pinned, or was judged when it was given: only its dates change.
    let offence = leaf.leaf_offence().or_else(|| intermediate.and_then(|certificate| certificate.authority_offence(0)));
    let flags = "authorities that may sign certificates, and an end that is none";
    checks.note(CheckName::CertificateAuthority, offence.is_none(), flags, offence.unwrap_or_else(|| flags.to_owned()));

    let offence = [Some(leaf), intermediate, root.map(|root| &root.certificate)]
        .into_iter()
        .flatten()
        .find_map(|certificate| certificate.date_offence(expected.now));
    let dates = format!("certificates valid at {}", expected.now);
    checks.note(CheckName::CertificateDates, offence.is_none(), dates.clone(), offence.unwrap_or(dates));
}

/// Checks that the report is about what the endorsement key's certificate is about.
fn check_report(
    report: &Report,
    leaf: &Certificate,
    kind: Option<KeyKind>,
    chain: Option<Product>,
    requirements: &Requirements,
    checks: &mut Checks,
) {
    check_signing_key(report, kind, checks);
    check_product(report, leaf, chain, checks);
    let Some(product) = chain.or(report.product()) else {
        checks.skip(CheckName::TcbExtensions, "the product is not known");
        checks.skip(CheckName::HardwareId, "the product is not known");
        return;
    };

    let reported = report.tcb_bytes(Tcb::Reported);
    let found = endorsement::tcb(leaf, product).and_then(|endorsed| {
        if endorsed == reported {
            Ok(hex::encode(endorsed))
        } else {
            Err(format!("{} in the certificate", hex::encode(endorsed)))
        }
    });
    checks.judge(CheckName::TcbExtensions, format!("the reported TCB, {}", hex::encode(reported)), found);

    if kind == Some(KeyKind::Vlek) {
        let found = match endorsement::csp_id(leaf) {
            _ if requirements.require_chip_binding => Err("a VLEK, which is bound to no chip".to_owned()),
            _ if endorsement::has_hardware_id(leaf) => Err("a hardware id in a VLEK's certificate".to_owned()),
            None => Err("neither a chip nor a provider in a VLEK's certificate".to_owned()),
            Some(provider) => Ok(format!("the provider `{provider}`")),
        };
        checks.judge(CheckName::HardwareId, "a provider in place of a chip", found);
    } else {
        let chip = report.chip_id();
        let found = endorsement::hardware_id(leaf, product)
            .and_then(|id| if id == chip { Ok(id.to_string()) } else { Err(format!("{id} in the certificate")) });
        checks.judge(CheckName::HardwareId, format!("the report's chip id, {chip}"), found);
    }
}

fn check_signing_key(report: &Report, kind: Option<KeyKind>, checks: &mut Checks) {
    let Some(kind) = kind else {
        return checks.skip(CheckName::SigningKey, "the kind of the endorsement key is not known");
    };
    let key_info = report.key_info();
    let found = if key_info.mask_chip_key() {
        Err("a chip key that is masked, so that nothing is signed".to_owned())
    } else if key_info.signing_key() != kind.signing_key() {
        Err(format!("signing key {}", key_info.signing_key()))
    } else {
        Ok(format!("signing key {}", key_info.signing_key()))
    };
    let expected = format!("signing key {}, as {} is", kind.signing_key(), kind.common_name());
    checks.judge(CheckName::SigningKey, expected, found);
}

fn check_product(report: &Report, leaf: &Certificate, chain: Option<Product>, checks: &mut Checks) {
    let Some(chain) = chain else {
        return checks.skip(CheckName::Product, "the chain does not reach a root");
    };
    let name = endorsement::product_name(leaf);
    // `Milan`, or with the stepping, `Milan-B0`.
    let agrees = name
        .as_deref()
        .and_then(|name| name.strip_prefix(chain.as_str()))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let found = match (report.cpuid(), report.product()) {
        _ if !agrees => {
            Err(format!("a certificate for {}", name.map_or("no product".to_owned(), |name| format!("`{name}`"))))
        }
        (None, _) => Ok(format!("{chain} by the certificate; version 2 has no CPUID")),
        (Some(_), Some(product)) if product == chain => Ok(chain.to_string()),
        (Some([family, model, _]), _) => Err(format!("CPUID family {family:#04x} model {model:#04x}")),
    };
    checks.judge(CheckName::Product, format!("{chain}, as the chain is"), found);
}
