//! The JSON forms of evidence, parsed once into bytes. Sizes and counts are bounded before anything is decoded.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use super::report::{REPORT_LEN, Report};
use crate::check::CheckName;
use crate::form::{Offence, kind, member_names};

/// The most certificates that evidence may bring.
const CERTIFICATES: usize = 8;
/// The largest certificate, in bytes; real ones have under 2 KiB.
const CERTIFICATE_LEN: usize = 8 * 1024;
/// The longest base64 text of a report that is looked at: an honest one has 1580 characters.
const REPORT_TEXT: usize = 4 * REPORT_LEN;

/// Evidence as bytes.
pub(crate) struct Evidence {
    pub(crate) report: Report,
    /// Certificates in DER, in any order.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// Which form it came in, for a reader.
    pub(crate) form: &'static str,
}

impl Evidence {
    /// Parses our raw form, `{"report", "cert_chain", "simulated"?}`, or Confidential Containers' form,
    /// `{"attestation_report", "cert_chain"}`. The `simulated` member is a courtesy to readers: the root
    /// decides.
    pub(crate) fn parse(primary: &Value) -> Result<Self, Offence> {
        let Value::Object(members) = primary else {
            return Err(Offence::form("a JSON object", kind(primary)));
        };
        let certificates = certificates(members.get("cert_chain"))?;
        match (members.get("report"), members.get("attestation_report")) {
            (Some(report), None) => Ok(Self { report: raw_report(report)?, certificates, form: "a raw report" }),
            (None, Some(report)) => {
                Ok(Self { report: structured_report(report)?, certificates, form: "a report as a JSON structure" })
            }
            (Some(_), Some(_)) => Err(Offence::form("one report", "both `report` and `attestation_report`")),
            (None, None) => Err(Offence::form("`report` or `attestation_report`", member_names(members))),
        }
    }
}

fn raw_report(value: &Value) -> Result<Report, Offence> {
    let Value::String(text) = value else {
        return Err(Offence::form("`report` as base64", kind(value)));
    };
    if text.len() > REPORT_TEXT {
        return Err(length(format!("{} characters of base64", text.len())));
    }
    let bytes = STANDARD.decode(text).map_err(|error| Offence::form("`report` as base64", error.to_string()))?;
    let found = bytes.len();
    let bytes: [u8; REPORT_LEN] = bytes.try_into().map_err(|_| length(format!("{found} bytes")))?;
    Ok(Report(bytes))
}

fn length(found: String) -> Offence {
    Offence { check: CheckName::Length, expected: format!("{REPORT_LEN} bytes"), found }
}

/// The report behind Confidential Containers' JSON: the `sev` crate's serialisation of its structure.
/// Reserved bytes that the structure leaves out become zero; were they anything else in the signed report,
/// its signature does not verify.
fn structured_report(value: &Value) -> Result<Report, Offence> {
    const EXPECTED: &str = "`attestation_report` as the sev crate writes it";
    let Value::Object(members) = value else {
        return Err(Offence::form(EXPECTED, kind(value)));
    };
    // Serde's arrays stop at their length, so what is left to bound is the number of members.
    if members.len() > 64 {
        return Err(Offence::form(EXPECTED, format!("{} members", members.len())));
    }
    let report: AttestationReport = serde::Deserialize::deserialize(value)
        .map_err(|error: serde_json::Error| Offence::form(EXPECTED, error.to_string()))?;
    let bytes = report.to_bytes().map_err(|error| Offence::form(EXPECTED, error.to_string()))?;
    Ok(Report(bytes))
}

/// Certificates as base64 of DER (ours), or as `{"cert_type", "data"}` with bytes as numbers or base64
/// (Confidential Containers).
fn certificates(value: Option<&Value>) -> Result<Vec<Vec<u8>>, Offence> {
    const EXPECTED: &str = "`cert_chain` as a list of certificates";
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Offence::form(EXPECTED, kind(other))),
    };
    if list.len() > CERTIFICATES {
        return Err(Offence::form(&format!("at most {CERTIFICATES} certificates"), list.len().to_string()));
    }
    let mut certificates = Vec::with_capacity(list.len());
    for entry in list {
        let (data, wanted) = match entry {
            Value::Object(members) => {
                (members.get("data").unwrap_or(&Value::Null), is_certificate(members.get("cert_type")))
            }
            other => (other, true),
        };
        if wanted {
            certificates.push(certificate(data).ok_or_else(|| Offence::form(EXPECTED, kind(data)))?);
        }
    }
    Ok(certificates)
}

/// Whether an entry of a certificate table is a certificate that can be of use: revocation lists, unknown
/// GUIDs (written as an object) and the closing entry are not, and are passed over.
fn is_certificate(cert_type: Option<&Value>) -> bool {
    matches!(cert_type, Some(Value::String(name)) if name != "CRL" && name != "Empty")
}

fn certificate(data: &Value) -> Option<Vec<u8>> {
    let bytes = match data {
        Value::String(text) if text.len() <= 2 * CERTIFICATE_LEN => {
            STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?
        }
        Value::Array(numbers) if numbers.len() <= CERTIFICATE_LEN => {
            numbers.iter().map(|number| u8::try_from(number.as_u64()?).ok()).collect::<Option<Vec<u8>>>()?
        }
        _ => return None,
    };
    (!bytes.is_empty() && bytes.len() <= CERTIFICATE_LEN).then_some(bytes)
}
