//! Certificates in AMD's layout, signed by generated keys.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA384};
use der::asn1::{Any, BitString, Ia5String, ObjectIdentifier, OctetString};
use der::oid::AssociatedOid;
use der::{DateTime, Decode as _, Encode, Sequence};
use jiff::Timestamp;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::{Raw, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

use super::SimulatedError;
use crate::snp::Product;
use crate::snp::certificate::{EC_PUBLIC_KEY, PSS_SHA384, RSASSA_PSS, SECP384R1};
use crate::snp::endorsement::{HARDWARE_ID, PRODUCT_NAME, STRUCT_VERSION};
use crate::snp::roots::SIMULATED;

/// An RSA key that signs certificates.
pub(crate) struct Issuer {
    pub(crate) name: String,
    pub(crate) key: RsaKeyPair,
}

/// A certificate before it is signed.
pub(crate) struct CertificateSpec {
    pub(crate) subject: String,
    pub(crate) serial: Vec<u8>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) key: SubjectPublicKeyInfoOwned,
    pub(crate) extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Body {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial: SerialNumber<Raw>,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity<Raw>,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Signed {
    body: Any,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

impl Issuer {
    /// Signs a certificate; the answer is DER.
    pub(crate) fn issue(&self, spec: CertificateSpec) -> Result<Vec<u8>, SimulatedError> {
        self.sign(&self.body(spec)?, pss()?)
    }

    /// The encoded body of a certificate: what its signature covers.
    pub(crate) fn body(&self, spec: CertificateSpec) -> Result<Vec<u8>, SimulatedError> {
        let body = Body {
            version: Version::V3,
            serial: SerialNumber::new(&spec.serial).map_err(SimulatedError::Certificate)?,
            signature: pss()?,
            issuer: name(&self.name).map_err(SimulatedError::Certificate)?,
            validity: validity(spec.not_before, spec.not_after).map_err(SimulatedError::Certificate)?,
            subject: name(&spec.subject).map_err(SimulatedError::Certificate)?,
            key: spec.key,
            extensions: spec.extensions,
        };
        body.to_der().map_err(SimulatedError::Certificate)
    }

    /// Signs the encoded body of a certificate or revocation list.
    pub(crate) fn sign(&self, body: &[u8], algorithm: AlgorithmIdentifierOwned) -> Result<Vec<u8>, SimulatedError> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), body, &mut signature).map_err(|_| SimulatedError::Key)?;
        let signed = || {
            let body = Any::from_der(body)?;
            Signed { body, algorithm, signature: BitString::from_bytes(&signature)? }.to_der()
        };
        signed().map_err(SimulatedError::Certificate)
    }

    pub(crate) fn public_key(&self) -> Result<SubjectPublicKeyInfoOwned, SimulatedError> {
        rsa_public_key(&self.key)
    }
}

/// RSA-PSS with SHA-384 and a salt of 48 bytes.
pub(crate) fn pss() -> Result<AlgorithmIdentifierOwned, SimulatedError> {
    let parameters = Any::from_der(&PSS_SHA384).map_err(SimulatedError::Certificate)?;
    Ok(AlgorithmIdentifierOwned { oid: RSASSA_PSS, parameters: Some(parameters) })
}

pub(crate) fn rsa_public_key(key: &RsaKeyPair) -> Result<SubjectPublicKeyInfoOwned, SimulatedError> {
    let der = key.public_key().as_der().map_err(|_| SimulatedError::Key)?;
    SubjectPublicKeyInfoOwned::from_der(der.as_ref()).map_err(SimulatedError::Certificate)
}

/// A P-384 key from its uncompressed point.
pub(crate) fn p384_public_key(point: &[u8]) -> Result<SubjectPublicKeyInfoOwned, SimulatedError> {
    let info = || {
        let algorithm =
            AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::encode_from(&SECP384R1)?) };
        Ok(SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(point)? })
    };
    info().map_err(SimulatedError::Certificate)
}

/// The extensions of an authority that may have `below` levels of authorities below it, or any number.
pub(crate) fn authority_extensions(below: Option<u8>) -> der::Result<Vec<Extension>> {
    Ok(vec![
        critical(&BasicConstraints { ca: true, path_len_constraint: below })?,
        critical(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?,
    ])
}

/// AMD's extensions of a VCEK: product, the eight bytes of its TCB, chip.
pub(crate) fn vcek_extensions(product: Product, tcb: [u8; 8], chip_id: &[u8; 64]) -> der::Result<Vec<Extension>> {
    // 0 before Turin, 1 from Turin (AMD 57230, structVersion).
    let version = u8::from(product == Product::Turin);
    let mut extensions =
        vec![amd(STRUCT_VERSION, version.to_der()?)?, amd(PRODUCT_NAME, Ia5String::new(product.as_str())?.to_der()?)?];
    for (id, level) in product.tcb_extensions().into_iter().zip(tcb) {
        extensions.push(amd(id, level.to_der()?)?);
    }
    let id = chip_id.iter().take(product.hardware_id_len()).copied().collect();
    extensions.push(amd(HARDWARE_ID, id)?);
    Ok(extensions)
}

/// An extension of AMD's, not critical, whose value is given as it stands.
pub(crate) fn amd(id: ObjectIdentifier, value: Vec<u8>) -> der::Result<Extension> {
    Ok(Extension { extn_id: id, critical: false, extn_value: OctetString::new(value)? })
}

pub(crate) fn critical<T: AssociatedOid + Encode>(value: &T) -> der::Result<Extension> {
    Ok(Extension { extn_id: T::OID, critical: true, extn_value: OctetString::new(value.to_der()?)? })
}

/// A name with this CN; the organisation says what it is, too.
pub(crate) fn name(common_name: &str) -> der::Result<Name> {
    format!("CN={common_name},O={SIMULATED} platform,OU=Not AMD").parse()
}

fn validity(from: Timestamp, to: Timestamp) -> der::Result<Validity<Raw>> {
    Ok(Validity::new(time(from)?, time(to)?))
}

/// A time of X.509: whole seconds, UTC.
pub(crate) fn time(at: Timestamp) -> der::Result<Time> {
    let seconds = u64::try_from(at.as_second()).unwrap_or_default();
    DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)).map(Time::from)
}
