//! Certificate revocation lists of AMD's roots (RFC 5280, section 5), which name intermediates by serial
//! number.

use der::Decode as _;
use der::asn1::ObjectIdentifier;
use jiff::Timestamp;
use x509_cert::certificate::{Raw, Version};
use x509_cert::crl::CertificateList;

use super::certificate::{Certificate, check_pss, seconds, shown, signed_part};
use super::roots::{Root, TrustRoots};
use super::vetted::Digest;
use crate::check::{CheckName, Checks};
use crate::verifier::Revocation;

/// The largest list, in bytes; real ones have under 2 KiB.
const LIST_LEN: usize = 256 * 1024;

/// The extensions that a complete list may carry: authority key identifier and number.
const KNOWN: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("2.5.29.35"), ObjectIdentifier::new_unwrap("2.5.29.20")];

/// A parsed list, with the bytes that its signature covers as received.
#[derive(Clone, Debug)]
pub(crate) struct RevocationList {
    parsed: CertificateList<Raw>,
    signed: Vec<u8>,
}

impl RevocationList {
    /// Parses DER. Refuses partial lists: every extension, critical or not, must be one that does not narrow
    /// the list.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, String> {
        if der.len() > LIST_LEN {
            return Err(format!("a revocation list above {LIST_LEN} bytes"));
        }
        let parsed = CertificateList::<Raw>::from_der(der).map_err(|error| format!("no revocation list: {error}"))?;
        let signed = signed_part(der).map_err(|error| format!("no revocation list: {error}"))?.to_vec();
        let body = &parsed.tbs_cert_list;
        if body.version != Version::V2 || body.signature != parsed.signature_algorithm {
            return Err("a revocation list that is not of version 2".to_owned());
        }
        check_pss(&parsed.signature_algorithm)?;
        if let Some(unknown) =
            body.crl_extensions.iter().flatten().find(|extension| !KNOWN.contains(&extension.extn_id))
        {
            return Err(format!("a revocation list with the extension {}", unknown.extn_id));
        }
        Ok(Self { parsed, signed })
    }

    /// Whether `root` issued and signed it.
    pub(crate) fn is_of(&self, root: &Certificate) -> bool {
        self.parsed.tbs_cert_list.issuer == *root.subject()
            && root.has_signed(&self.signed, self.parsed.signature.raw_bytes())
    }

    /// When it was made.
    pub(crate) fn issued_at(&self) -> Result<Timestamp, jiff::Error> {
        Timestamp::from_second(seconds(&self.parsed.tbs_cert_list.this_update))
    }

    fn names(&self, certificate: &Certificate) -> bool {
        let revoked = self.parsed.tbs_cert_list.revoked_certificates.iter().flatten();
        revoked.into_iter().any(|entry| entry.serial_number == *certificate.serial())
    }

    fn is_current(&self, now: Timestamp) -> bool {
        let body = &self.parsed.tbs_cert_list;
        let next = body.next_update.as_ref().map(seconds);
        seconds(&body.this_update) <= now.as_second() && next.is_some_and(|next| now.as_second() < next)
    }
}

/// A list whose signature was verified when it was given.
#[derive(Clone, Debug)]
pub(crate) struct SignedList {
    pub(crate) list: RevocationList,
    /// The root whose key made the signature.
    pub(crate) root: Digest,
}

/// Checks `intermediate` against the lists of `root`. A list that names it counts however old; silence
/// counts only while current.
pub(crate) fn check(
    trust: &TrustRoots,
    root: &Root,
    intermediate: &Certificate,
    policy: Revocation,
    now: Timestamp,
    checks: &mut Checks,
) {
    const EXPECTED: &str = "a current revocation list that does not name the intermediate";
    let name = shown(intermediate.subject());
    let own = trust.lists.iter().filter(|signed| signed.root == *root.certificate.fingerprint());
    let own: Vec<&RevocationList> = own.map(|signed| &signed.list).collect();
    if own.iter().any(|list| list.names(intermediate)) {
        checks.note(CheckName::Revocation, false, EXPECTED, format!("{name} revoked"));
    } else if let Some(offence) = trust.unusable_list(root.product) {
        checks.note(CheckName::Revocation, false, EXPECTED, format!("a list that cannot be used: {offence}"));
    } else if own.iter().any(|list| list.is_current(now)) {
        checks.note(CheckName::Revocation, true, EXPECTED, format!("{name} not revoked"));
    } else if !own.is_empty() {
        checks.note(CheckName::Revocation, false, EXPECTED, "only lists that are out of date");
    } else if policy == Revocation::Require {
        checks.note(CheckName::Revocation, false, EXPECTED, "no list of this root");
    } else {
        checks.skip(CheckName::Revocation, "no revocation list of this root is at hand");
    }
}
