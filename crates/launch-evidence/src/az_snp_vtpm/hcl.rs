//! The report of Azure's paravisor (the host compatibility layer, HCL), as a guest reads it from its vTPM.
//! All numbers are little-endian.
//!
//! Layout: Microsoft, "Azure confidential VM guest attestation design" (attestation report and runtime data).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0x000 | 4 | `HCLA` |
//! | 0x004 | 4 | version: 1 or 2 |
//! | 0x008 | 4 | size of all up to the end of the runtime data |
//! | 0x00C | 4 | request type: 2 |
//! | 0x010 | 4 | status: 0 |
//! | 0x014 | 12 | reserved |
//! | 0x020 | 1184 | SEV-SNP report |
//! | 0x4C0 | 4 | size of this part and the next |
//! | 0x4C4 | 4 | version: 1 |
//! | 0x4C8 | 4 | kind of the report: 2 for SEV-SNP, 4 for TDX |
//! | 0x4CC | 4 | hash over the runtime data: 1 for SHA-256 |
//! | 0x4D0 | 4 | size of the runtime data |
//! | 0x4D4 | | runtime data: JSON; zeros behind it |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::check::CheckName;
use crate::form::{Offence, Reader};
use crate::snp::report::{REPORT_LEN, Report};

/// The largest HCL report, in bytes; real ones have 2600.
pub(crate) const HCL_LEN: usize = 16 * 1024;

const HEADER_LEN: usize = 0x20;
const RUNTIME_HEADER_LEN: usize = 20;
/// The name of the vTPM's attestation key in the runtime data.
const AK: &str = "HCLAkPub";
/// The length of an attestation key's modulus, in bytes.
const MODULUS_LEN: usize = 256;

/// An HCL report as received. Nothing in it may be believed before its checks.
pub(crate) struct Hcl<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) report: Report,
    /// The bytes that the SNP report binds by their hash.
    pub(crate) runtime_data: &'a [u8],
    pub(crate) key: RsaKey,
    /// How Azure configured the machine, as the runtime data says.
    pub(crate) configuration: Value,
}

/// An RSA-2048 public key, both numbers big-endian.
#[derive(Clone, Debug)]
pub(crate) struct RsaKey {
    pub(crate) modulus: Vec<u8>,
    pub(crate) exponent: Vec<u8>,
}

#[derive(Deserialize)]
struct RuntimeData {
    keys: Vec<Key>,
    #[serde(default, rename = "vm-configuration")]
    configuration: Value,
}

#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    kid: String,
    #[serde(default)]
    kty: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

impl<'a> Hcl<'a> {
    /// Parses the frame and the runtime data; every size must agree, and only zeros may follow.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Offence> {
        if bytes.len() > HCL_LEN {
            return Err(form(&format!("at most {HCL_LEN} bytes"), format!("{} bytes", bytes.len())));
        }
        let mut reader = Reader::new(bytes);
        let size = check_header(&mut reader)?;
        let report: [u8; REPORT_LEN] = reader.array().ok_or_else(short)?;
        let runtime_data = runtime_data(&mut reader, size)?;
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(form("nothing but zeros behind the runtime data", "other bytes"));
        }
        let parsed: RuntimeData = serde_json::from_slice(runtime_data)
            .map_err(|error| form("runtime data with keys, as JSON", error.to_string()))?;
        let key = attestation_key(&parsed.keys)?;
        Ok(Self { bytes, report: Report(report), runtime_data, key, configuration: parsed.configuration })
    }
}

/// Checks the header; the size that it states.
fn check_header(reader: &mut Reader<'_>) -> Result<usize, Offence> {
    if reader.take(4) != Some(b"HCLA") {
        return Err(form("the mark `HCLA`", "another"));
    }
    let mut number = || reader.u32_le().ok_or_else(short);
    let (version, size, request, status) = (number()?, number()?, number()?, number()?);
    if !(1..=2).contains(&version) {
        return Err(form("version 1 or 2", version.to_string()));
    }
    if (request, status) != (2, 0) {
        return Err(form("a request of type 2 that went well", format!("type {request}, status {status}")));
    }
    if reader.array() != Some([0_u8; 12]) {
        return Err(form("reserved bytes of zero", "others"));
    }
    usize::try_from(size).map_err(|_| short())
}

fn runtime_data<'a>(reader: &mut Reader<'a>, size: usize) -> Result<&'a [u8], Offence> {
    let mut number = || reader.u32_le().ok_or_else(short);
    let (data_size, version, kind, hash, len) = (number()?, number()?, number()?, number()?, number()?);
    if version != 1 {
        return Err(form("runtime data of version 1", version.to_string()));
    }
    if kind != 2 {
        let found = if kind == 4 { "a TDX report".to_owned() } else { format!("a report of type {kind}") };
        return Err(form("an SEV-SNP report, type 2", found));
    }
    if hash != 1 {
        return Err(form("a hash of SHA-256, type 1", format!("type {hash}")));
    }
    let len = usize::try_from(len).map_err(|_| short())?;
    let whole = len.checked_add(RUNTIME_HEADER_LEN).ok_or_else(short)?;
    if usize::try_from(data_size) != Ok(whole) || Some(size) != whole.checked_add(HEADER_LEN + REPORT_LEN) {
        return Err(form("sizes that agree", format!("{size}, {data_size} and {len}")));
    }
    reader.take(len).ok_or_else(short)
}

fn attestation_key(keys: &[Key]) -> Result<RsaKey, Offence> {
    let mut named = keys.iter().filter(|key| key.kid == AK);
    let (Some(key), None) = (named.next(), named.next()) else {
        return Err(form("one key `HCLAkPub`", format!("{} keys of that name or others", keys.len())));
    };
    let number = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    match (key.kty.as_str(), number(&key.n), number(&key.e)) {
        ("RSA", Some(modulus), Some(exponent)) if modulus.len() == MODULUS_LEN && exponent == [1, 0, 1] => {
            Ok(RsaKey { modulus, exponent })
        }
        _ => Err(form("`HCLAkPub` as an RSA-2048 key with exponent 65537", "another key")),
    }
}

fn form(expected: &str, found: impl Into<String>) -> Offence {
    Offence::new(CheckName::HclForm, expected, found)
}

fn short() -> Offence {
    form("a whole HCL report", "one that ends too early")
}
