//! Evidence of devices beside the CPU: the text `additional_evidence` of the key broker protocol, as Confidential Containers'
//! attesters write it. Read in bounds and held against its challenge; who made a device's report is not verified here.

mod nvidia;
mod spdm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check::{Check, CheckName, Checks};
use crate::form::member_names;
use crate::verifier::EvidenceRejected;

pub use nvidia::{Architecture, DeviceClass};

/// The longest text that is read, in bytes: some 30 devices.
pub const TEXT_MAX: usize = 768 * 1024;
/// The most devices of one guest.
pub const DEVICES_MAX: usize = 32;

/// What to do with a guest that shows devices whose reports nobody here verifies.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnverifiedDevices {
    /// The release policy is told what they say, and that it is not verified.
    LeaveToPolicy,
    /// The evidence as a whole is refused.
    #[default]
    Refuse,
}

/// What one device says of itself. Serialises to an element of the policy's `input.devices`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DeviceClaims {
    /// The name under which the evidence stood: `nvidia`.
    pub tee: &'static str,
    /// What kind of device it is.
    pub class: DeviceClass,
    /// Its line.
    pub architecture: Architecture,
    /// Its name for itself, where the attester gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The driver in the guest, as the device has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// The firmware in its flash, for example `96.00.9f.00.01`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vbios_version: Option<String>,
    /// The measurements by their index, hexadecimal.
    pub measurements: BTreeMap<u8, String>,
    /// SHA-256 of the report as it was sent, hexadecimal.
    pub report_digest: String,
    /// The chain that came with it, from the device's own certificate on.
    pub certificates: Vec<DeviceCertificate>,
    /// Whether signature, chain and measurements were verified: never, as yet.
    pub verified: bool,
}

/// One certificate of a device's chain. Nothing of it is verified.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DeviceCertificate {
    /// RFC 4514.
    pub subject: String,
    /// RFC 4514.
    pub issuer: String,
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
}

/// Devices that were read and are bound to the challenge, and the checks that say so.
#[derive(Clone, Debug, Default)]
pub struct JudgedDevices {
    pub(crate) claims: Vec<DeviceClaims>,
    pub(crate) checks: Vec<Check>,
}

/// Judges `text`, the protocol's `additional_evidence`; empty where the guest shows no device. `nonce` is what every report
/// must answer.
///
/// # Errors
/// [`EvidenceRejected`] where the text is malformed or over its limits, a report answers another challenge, or there is a
/// device and `unverified` refuses such.
///
/// # Security
/// The caller must bind the text itself, as it was sent, to the CPU's evidence. A report's signature and chain are not
/// verified: a guest can make up its devices. What NVIDIA's own verifier compares besides (reference measurements from its
/// service, OCSP) is not asked for.
pub fn judge(
    text: &str,
    nonce: &[u8; spdm::NONCE_LEN],
    unverified: UnverifiedDevices,
) -> Result<JudgedDevices, EvidenceRejected> {
    let mut checks = Checks::default();
    if text.is_empty() {
        return Ok(JudgedDevices::default());
    }
    let devices = match read(text) {
        Ok(devices) => devices,
        Err(found) => {
            checks.note(CheckName::DeviceForm, false, "evidence of devices as it is known here", found);
            return Err(EvidenceRejected { checks: checks.into_list() });
        }
    };
    checks.note(CheckName::DeviceForm, true, "", format!("{} devices", devices.len()));
    let foreign = devices.iter().position(|device| device.nonce != *nonce);
    let found = foreign.map_or_else(|| "every report's".to_owned(), |at| format!("another one in report {at}"));
    checks.note(CheckName::DeviceNonce, foreign.is_none(), "the challenge that was made of the runtime data", found);
    if !devices.is_empty() {
        let first = devices.first().map(|device| device.claims.architecture.name()).unwrap_or_default();
        let why = format!(
            "{} of NVIDIA (the first {first}), whose reports nobody verifies here: no maintained library does, so signature, chain, \
             revocation and reference measurements stay unchecked",
            devices.len()
        );
        match unverified {
            UnverifiedDevices::LeaveToPolicy => {
                checks.skip(CheckName::DeviceEndorsement, format!("{why}; left to the release policy"));
            }
            UnverifiedDevices::Refuse => {
                checks.note(CheckName::DeviceEndorsement, false, "verified devices or none", why);
            }
        }
    }
    if !checks.all_hold() {
        return Err(EvidenceRejected { checks: checks.into_list() });
    }
    let claims = devices.into_iter().map(|device| device.claims).collect();
    Ok(JudgedDevices { claims, checks: checks.into_list() })
}

/// A device's claims and the challenge that its report answers.
struct Device {
    claims: DeviceClaims,
    nonce: [u8; spdm::NONCE_LEN],
}

/// The text's members, each named after a TEE.
#[derive(Deserialize)]
struct Members {
    nvidia: Option<nvidia::List>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The devices, or what the text has in the place of them, for a reader.
fn read(text: &str) -> Result<Vec<Device>, String> {
    if text.len() > TEXT_MAX {
        return Err(format!("{} bytes, more than {TEXT_MAX}", text.len()));
    }
    let members: Members = serde_json::from_str(text)
        .map_err(|error| format!("JSON that is not of that form (line {}, column {})", error.line(), error.column()))?;
    if !members.others.is_empty() {
        return Err(format!("devices of another kind: {}", member_names(&members.others)));
    }
    let list = members.nvidia.map(|list| list.device_evidence_list).unwrap_or_default();
    if list.len() > DEVICES_MAX {
        return Err(format!("{} devices, more than {DEVICES_MAX}", list.len()));
    }
    let read = |(at, sent): (usize, &nvidia::Sent)| nvidia::read(sent).map_err(|found| format!("device {at}: {found}"));
    list.iter().enumerate().map(read).collect()
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(text: &str) {
    let _ = judge(text, &[0; spdm::NONCE_LEN], UnverifiedDevices::LeaveToPolicy);
}
