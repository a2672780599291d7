//! The JSON forms of evidence, parsed once into bytes. Sizes and counts are bounded before anything is decoded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use super::certificate::Certificate;
use super::chain::kind_of;
use super::endorsement::KeyKind;
use super::report::{REPORT_LEN, Report};
use super::table::{self, TABLE_LEN};
use crate::check::CheckName;
use crate::form::{Offence, base64, byte_list, certificates_der, kind, member_names};

/// The most certificates that evidence may bring.
pub(crate) const CERTIFICATES: usize = 8;
/// The largest certificate, in bytes; real ones have under 2 KiB.
pub(crate) const CERTIFICATE_LEN: usize = 8 * 1024;
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
    /// Parses our raw form, `{"report", "cert_chain"?, "cert_table"?, "simulated"?}`, or Confidential Containers' form,
    /// `{"attestation_report", "cert_chain"}`. The `simulated` member is a courtesy to readers: the root
    /// decides.
    pub(crate) fn parse(primary: &Value) -> Result<Self, Offence> {
        let Value::Object(members) = primary else {
            return Err(Offence::form("a JSON object", kind(primary)));
        };
        let mut certificates = certificates(members.get("cert_chain"))?;
        if let (Some(table), Some(_)) = (members.get("cert_table"), members.get("report")) {
            certificates.extend(table_certificates(table)?);
            if certificates.len() > CERTIFICATES {
                return Err(Offence::form(
                    &format!("at most {CERTIFICATES} certificates"),
                    certificates.len().to_string(),
                ));
            }
        }
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

/// The certificates of a host's table, base64 of its bytes.
fn table_certificates(value: &Value) -> Result<Vec<Vec<u8>>, Offence> {
    const EXPECTED: &str = "`cert_table` as base64 of a host's certificate table";
    let table = base64(value, TABLE_LEN).ok_or_else(|| Offence::form(EXPECTED, kind(value)))?;
    table::certificates(&table).map_err(|error| Offence::form(EXPECTED, error.to_string()))
}

/// Whether an entry of a certificate table is a certificate that can be of use: revocation lists, unknown
/// GUIDs (written as an object) and the closing entry are not, and are passed over.
fn is_certificate(cert_type: Option<&Value>) -> bool {
    matches!(cert_type, Some(Value::String(name)) if name != "CRL" && name != "Empty")
}

fn certificate(data: &Value) -> Option<Vec<u8>> {
    let bytes = base64(data, CERTIFICATE_LEN).or_else(|| byte_list(data, CERTIFICATE_LEN))?;
    (!bytes.is_empty()).then_some(bytes)
}

/// Evidence of ours in the form that Confidential Containers' verifiers read: the report as a structure, and of the certificates
/// the endorsement key's. What is no raw SNP report, or one that the structure does not hold, stays as it is.
pub fn in_stock_form(primary: Value) -> Value {
    match Evidence::parse(&primary).ok().and_then(|evidence| stock_form(&evidence)) {
        Some(stock) => stock,
        None => primary,
    }
}

fn stock_form(evidence: &Evidence) -> Option<Value> {
    let report = AttestationReport::from_bytes(evidence.report.bytes()).ok()?;
    let named = |der: &Vec<u8>| {
        let name = match kind_of(&Certificate::parse(der).ok()?)? {
            KeyKind::Vcek => "VCEK",
            KeyKind::Vlek => "VLEK",
        };
        Some(json!([{"cert_type": name, "data": der}]))
    };
    let chain = evidence.certificates.iter().find_map(named);
    Some(json!({"attestation_report": serde_json::to_value(report).ok()?, "cert_chain": chain}))
}

/// Why files are no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The report has another length.
    #[error("a report has {REPORT_LEN} bytes, this has {0}")]
    Length(usize),
    /// A certificate's file is a text without certificates.
    #[error("certificate {0} is no PEM")]
    Pem(usize),
    /// More certificates, or larger ones, than there are in any chain.
    #[error("more than {CERTIFICATES} certificates, or one above {CERTIFICATE_LEN} bytes")]
    TooMany,
    /// The certificate table is none.
    #[error("the certificate table is not usable")]
    Table(#[from] table::TableError),
}

/// Evidence in our raw form from the contents of files: a report of 1184 bytes, certificates in DER or PEM (one
/// or several a file), and the table that the host passed, where there is one.
///
/// # Errors
/// [`EvidenceError`] when a file is not of its form. What the files say is the verifier's to judge.
pub fn evidence_from_files(
    report: &[u8],
    certificates: &[impl AsRef<[u8]>],
    table: Option<&[u8]>,
) -> Result<Value, EvidenceError> {
    if report.len() != REPORT_LEN {
        return Err(EvidenceError::Length(report.len()));
    }
    let mut chain = Vec::new();
    for (index, file) in certificates.iter().enumerate() {
        let file = file.as_ref();
        if file.len() > CERTIFICATES * CERTIFICATE_LEN {
            return Err(EvidenceError::TooMany);
        }
        chain.extend(certificates_der(file).ok_or(EvidenceError::Pem(index + 1))?);
    }
    chain.extend(table::certificates(table.unwrap_or_default())?);
    // The VEK is often both beside a report and in the host's table.
    let mut seen = Vec::new();
    chain.retain(|der| {
        !seen.contains(der) && {
            seen.push(der.clone());
            true
        }
    });
    if chain.len() > CERTIFICATES || chain.iter().any(|der| der.len() > CERTIFICATE_LEN) {
        return Err(EvidenceError::TooMany);
    }
    Ok(evidence_json(report, &chain))
}

/// Evidence in our raw form of a report's bytes and certificates in DER. Checks nothing.
pub fn evidence_json(report: &[u8], certificates: &[impl AsRef<[u8]>]) -> Value {
    let chain: Vec<String> = certificates.iter().map(|der| STANDARD.encode(der)).collect();
    json!({"report": STANDARD.encode(report), "cert_chain": chain})
}
