//! X.509 as AMD issues it: RSA-4096 authorities that sign with PSS over SHA-384, and P-384 endorsement keys.

use der::asn1::ObjectIdentifier;
use der::{Decode as _, Encode as _, Reader as _, SliceReader};
use jiff::Timestamp;
use rsa::PublicKey as RsaPublicKey;
use rsa::pss::{Signature, VerifyingKey};
use rsa::signature::Verifier as _;
use rsa::traits::PublicKeyParts as _;
use sha2::Sha384;
use spki::AlgorithmIdentifierOwned;
use spki::der::referenced::OwnedToRef as _;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use super::vetted::{Digest, fingerprint};

/// `id-RSASSA-PSS`, RFC 8017 appendix C.
pub(crate) const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// `RSASSA-PSS-params` of SHA-384, MGF1 with SHA-384, salt of 48 bytes; the trailer field left to its default.
pub(crate) const PSS_SHA384: [u8; 54] = [
    0x30, 0x34, 0xA0, 0x0F, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
    0xA1, 0x1C, 0x30, 0x1A, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x08, 0x30, 0x0D, 0x06, 0x09,
    0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xA2, 0x03, 0x02, 0x01, 0x30,
];
/// The trailer field written out, as AMD's authorities have it.
const PSS_TRAILER: [u8; 5] = [0xA3, 0x03, 0x02, 0x01, 0x01];
/// The length of PSS salts, in bytes.
const PSS_SALT: usize = 48;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(crate) const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(crate) const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// An uncompressed point of P-384: one byte and two coordinates.
const POINT_LEN: usize = 97;
/// The size of AMD's authority keys, in bits.
const RSA_BITS: u32 = 4096;

/// A parsed certificate, with the bytes that its signature covers as received.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    parsed: CertificateInner<Raw>,
    der: Vec<u8>,
    signed: Vec<u8>,
    key: PublicKey,
    fingerprint: Digest,
}

/// The two kinds of keys in AMD's chains.
#[derive(Clone, Debug)]
pub(crate) enum PublicKey {
    /// An authority's.
    Rsa(Box<RsaPublicKey>),
    /// An endorsement key's: the uncompressed point.
    P384(Vec<u8>),
}

impl Certificate {
    /// Parses DER; trailing bytes, other algorithms and repeated extensions are refused.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, String> {
        let parsed = CertificateInner::<Raw>::from_der(der).map_err(|error| format!("no certificate: {error}"))?;
        let signed = signed_part(der).map_err(|error| format!("no certificate: {error}"))?.to_vec();
        let body = parsed.tbs_certificate();
        if body.version() != Version::V3 {
            return Err("a certificate that is not of version 3".to_owned());
        }
        if body.signature() != parsed.signature_algorithm() {
            return Err("two different signature algorithms in one certificate".to_owned());
        }
        check_pss(parsed.signature_algorithm())?;
        let extensions = body.extensions().map(Vec::as_slice).unwrap_or_default();
        let mut seen: Vec<ObjectIdentifier> = extensions.iter().map(|extension| extension.extn_id).collect();
        seen.sort_unstable();
        if seen.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err("an extension that is there twice".to_owned());
        }
        let key = PublicKey::parse(&parsed)?;
        Ok(Self { parsed, fingerprint: fingerprint(der), der: der.to_vec(), signed, key })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether its key is of the kind that signs reports.
    pub(crate) fn is_endorsement_key(&self) -> bool {
        matches!(self.key, PublicKey::P384(_))
    }

    pub(crate) fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    pub(crate) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &SerialNumber<Raw> {
        self.parsed.tbs_certificate().serial_number()
    }

    pub(crate) fn extensions(&self) -> &[Extension] {
        self.parsed.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the key of `issuer` made this certificate's signature. Says nothing of names, dates or CA flags.
    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        issuer.has_signed(&self.signed, self.parsed.signature().raw_bytes())
    }

    /// Whether this certificate's key made `signature` over `message`, RSA-PSS with SHA-384.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let PublicKey::Rsa(key) = &self.key else { return false };
        let Ok(signature) = Signature::try_from(signature) else { return false };
        VerifyingKey::<Sha384>::new_with_salt_len(RsaPublicKey::clone(key), PSS_SALT)
            .verify(message, &signature)
            .is_ok()
    }

    /// Why it is no authority: CA flag, path length, key usage, critical extensions that nobody here knows.
    pub(crate) fn authority_offence(&self, below: u8) -> Option<String> {
        let name = shown(self.subject());
        let Some((true, constraints)) = self.extension::<BasicConstraints>() else {
            return Some(format!("{name} without critical basic constraints"));
        };
        if !constraints.ca {
            return Some(format!("{name} is no certificate authority"));
        }
        if constraints.path_len_constraint.is_some_and(|length| length < below) {
            return Some(format!("{name} may not have authorities below it"));
        }
        match self.extension::<KeyUsage>() {
            Some((true, usage)) if usage.key_cert_sign() => {}
            _ => return Some(format!("{name} without the critical key usage of signing certificates")),
        }
        self.unknown_critical(&[der_oid::<BasicConstraints>(), der_oid::<KeyUsage>()])
    }

    /// Why it is no end of a chain: it is an authority, or has critical extensions that nobody here knows.
    pub(crate) fn leaf_offence(&self) -> Option<String> {
        let id = der_oid::<BasicConstraints>();
        if self.extensions().iter().any(|extension| extension.extn_id == id)
            && self.extension::<BasicConstraints>().is_none_or(|(_, constraints)| constraints.ca)
        {
            return Some(format!("{} is a certificate authority", shown(self.subject())));
        }
        self.unknown_critical(&[id])
    }

    /// Why it is not valid at `now`.
    pub(crate) fn date_offence(&self, now: Timestamp) -> Option<String> {
        let validity = self.parsed.tbs_certificate().validity();
        let name = shown(self.subject());
        if seconds(&validity.not_before) > now.as_second() {
            return Some(format!("{name} valid from {}", validity.not_before));
        }
        (seconds(&validity.not_after) < now.as_second()).then(|| format!("{name} expired on {}", validity.not_after))
    }

    fn unknown_critical(&self, known: &[ObjectIdentifier]) -> Option<String> {
        let unknown =
            self.extensions().iter().find(|extension| extension.critical && !known.contains(&extension.extn_id))?;
        Some(format!("{} with the unknown critical extension {}", shown(self.subject()), unknown.extn_id))
    }

    fn extension<T>(&self) -> Option<(bool, T)>
    where
        T: for<'a> der::Decode<'a, Error = der::Error> + der::oid::AssociatedOid,
    {
        self.parsed.tbs_certificate().get_extension::<T>().ok()?
    }
}

impl PublicKey {
    fn parse(certificate: &CertificateInner<Raw>) -> Result<Self, String> {
        let info = certificate.tbs_certificate().subject_public_key_info();
        if info.algorithm.oid == RSA_ENCRYPTION {
            let key = RsaPublicKey::try_from(info.owned_to_ref())
                .map_err(|error| format!("an RSA key that is none: {error}"))?;
            if key.n().bit_width() != RSA_BITS {
                return Err("an RSA key that is not of 4096 bits".to_owned());
            }
            return Ok(Self::Rsa(Box::new(key)));
        }
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        if info.algorithm.oid == EC_PUBLIC_KEY && curve == Some(SECP384R1) {
            let point = info.subject_public_key.as_bytes().unwrap_or_default();
            if point.len() == POINT_LEN && point.first() == Some(&4) {
                return Ok(Self::P384(point.to_vec()));
            }
        }
        Err("a key that is neither RSA-4096 nor P-384".to_owned())
    }
}

/// Refuses signature algorithms other than the one of AMD's chains.
pub(crate) fn check_pss(algorithm: &AlgorithmIdentifierOwned) -> Result<(), String> {
    let parameters = algorithm.parameters.as_ref().and_then(|any| any.to_der().ok()).unwrap_or_default();
    let mut with_trailer = PSS_SHA384.to_vec();
    with_trailer.extend_from_slice(&PSS_TRAILER);
    if let Some(length) = with_trailer.get_mut(1) {
        *length = 0x39;
    }
    if algorithm.oid == RSASSA_PSS && (parameters == PSS_SHA384 || parameters == with_trailer) {
        return Ok(());
    }
    Err("a signature that is not RSA-PSS with SHA-384 and a salt of 48 bytes".to_owned())
}

/// The first element of a signed structure, as its bytes stand: what the signature covers.
pub(crate) fn signed_part(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    der::Header::decode(&mut reader)?;
    reader.tlv_bytes()
}

pub(crate) fn seconds(time: &Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// The common name, where there is exactly one form of it.
pub(crate) fn common_name(name: &Name) -> Option<String> {
    name.common_name().ok().flatten().map(|text| text.value().into_owned())
}

/// A name for a reader: foreign text, bounded and with control characters escaped.
pub(crate) fn shown(name: &Name) -> String {
    let text: String = common_name(name).unwrap_or_else(|| "a name without CN".to_owned()).chars().take(64).collect();
    format!("`{}`", text.escape_debug())
}

fn der_oid<T: der::oid::AssociatedOid>() -> ObjectIdentifier {
    T::OID
}
