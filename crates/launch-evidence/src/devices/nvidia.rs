//! NVIDIA's GPUs and switches: the JSON of a device with its report and certificates, and what a report carries in its
//! opaque data (NVIDIA's `nvtrust`, attestation report).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::spdm::Measurements;
use super::{Device, DeviceCertificate, DeviceClaims};
use crate::form::{Reader, base64, certificates_der};

/// The longest report, in bytes; those of Hopper have about 4 KiB.
const REPORT_MAX: usize = 64 * 1024;
/// The longest chain, in bytes of PEM, and in certificates; there are five.
const CHAIN_MAX: usize = 64 * 1024;
const CERTIFICATES_MAX: usize = 8;
/// The longest text that a device says of itself, in bytes.
const TEXT_MAX: usize = 64;

/// A line of devices.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// B100, B200, GB200.
    #[serde(alias = "BLACKWELL", alias = "Blackwell")]
    Blackwell,
    /// H100, H200.
    #[serde(alias = "HOPPER", alias = "Hopper")]
    Hopper,
    /// The NVLink switch of HGX boards.
    #[serde(alias = "LS10")]
    Ls10,
}

impl Architecture {
    /// For a reader.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blackwell => "Blackwell",
            Self::Hopper => "Hopper",
            Self::Ls10 => "LS10",
        }
    }

    fn class(self) -> DeviceClass {
        match self {
            Self::Blackwell | Self::Hopper => DeviceClass::Gpu,
            Self::Ls10 => DeviceClass::Switch,
        }
    }
}

/// What a device is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    /// It computes.
    Gpu,
    /// It connects GPUs.
    Switch,
}

/// The member `nvidia`.
#[derive(Deserialize)]
pub(super) struct List {
    pub(super) device_evidence_list: Vec<Sent>,
}

/// One device as it was sent.
#[derive(Deserialize)]
pub(super) struct Sent {
    arch: Architecture,
    uuid: Option<String>,
    /// The report in base64; older attesters wrote hexadecimal.
    evidence: String,
    /// Base64 of the chain's PEM.
    certificate: String,
}

/// Kinds of opaque data: what the policy may want to compare.
const DRIVER_VERSION: u16 = 3;
const VBIOS_VERSION: u16 = 6;
/// The length of a firmware version, in bytes.
const VBIOS_LEN: usize = 8;

/// The device, or what is there in the place of one.
pub(super) fn read(sent: &Sent) -> Result<Device, String> {
    let report = report(&sent.evidence).ok_or("its report is neither base64 nor hexadecimal, or too long")?;
    let measurements = Measurements::parse(&report).ok_or("its report is no transcript of SPDM 1.1 measurements")?;
    let opaque = opaque(measurements.opaque).ok_or("its report's opaque data are cut short or name something twice")?;
    let find = |kind| opaque.iter().find(|(found, _)| *found == kind).map(|(_, data)| *data);
    let uuid = sent.uuid.as_deref().filter(|uuid| *uuid != "unknown").map(|uuid| text(uuid.as_bytes()));
    let claims = DeviceClaims {
        tee: "nvidia",
        class: sent.arch.class(),
        architecture: sent.arch,
        uuid: uuid.map(|uuid| uuid.ok_or("its uuid is no short text")).transpose()?,
        driver_version: find(DRIVER_VERSION)
            .map(|data| text(data).ok_or("its driver version is no short text"))
            .transpose()?,
        vbios_version: find(VBIOS_VERSION)
            .map(|data| version(data).ok_or("its firmware version has no known form"))
            .transpose()?,
        measurements: measurements.values.iter().map(|(index, value)| (*index, hex::encode(value))).collect(),
        report_digest: hex::encode(Sha256::digest(&report)),
        certificates: certificates(&sent.certificate)?,
        verified: false,
    };
    Ok(Device { claims, nonce: measurements.nonce })
}

fn report(text: &str) -> Option<Vec<u8>> {
    if text.len() > 2 * REPORT_MAX {
        return None;
    }
    hex::decode(text).ok().or_else(|| base64(&Value::String(text.to_owned()), REPORT_MAX))
}

/// Pairs of type and data, each behind two little-endian numbers of two bytes.
fn opaque(bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut reader = Reader::new(bytes);
    let mut found: Vec<(u16, &[u8])> = Vec::new();
    while !reader.rest().is_empty() {
        let kind = reader.u16_le()?;
        let length = reader.u16_le()?;
        let data = reader.take(length.into())?;
        if found.iter().any(|(other, _)| *other == kind) {
            return None;
        }
        found.push((kind, data));
    }
    Some(found)
}

/// Printable ASCII, without the zeros behind it.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    let is_plain = !text.is_empty() && text.len() <= TEXT_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_plain.then(|| text.to_owned())
}

/// Eight bytes: the first four are the version from its end, the fifth is its last part.
fn version(bytes: &[u8]) -> Option<String> {
    let (first, rest) = bytes.split_at_checked(4)?;
    let [last, ..] = rest else { return None };
    let parts = first.iter().rev().chain([last]).map(|byte| format!("{byte:02x}"));
    (bytes.len() == VBIOS_LEN).then(|| parts.collect::<Vec<_>>().join("."))
}

fn certificates(text: &str) -> Result<Vec<DeviceCertificate>, String> {
    let pem =
        base64(&Value::String(text.to_owned()), CHAIN_MAX).ok_or("its certificates are no base64, or too long")?;
    let chain = certificates_der(&pem).ok_or("its certificates are no PEM")?;
    if chain.len() > CERTIFICATES_MAX {
        return Err(format!("its chain has {} certificates, more than {CERTIFICATES_MAX}", chain.len()));
    }
    let read = |der: &Vec<u8>| {
        let certificate = Certificate::from_der(der).map_err(|_| "one of its certificates is none")?;
        let body = certificate.tbs_certificate();
        Ok(DeviceCertificate {
            subject: body.subject().to_string(),
            issuer: body.issuer().to_string(),
            fingerprint: hex::encode(Sha256::digest(der)),
        })
    };
    chain.iter().map(read).collect()
}
