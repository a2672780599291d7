//! The JSON forms of an Azure machine's evidence, parsed once into bytes, in bounds.

use serde_json::Value;

use super::hcl::HCL_LEN;
use super::quote::{MESSAGE_LEN, PCRS, Quote, SIGNATURE_LEN};
use crate::form::{Offence, base64, byte_list, certificates_der, kind, member_names};
use crate::snp::evidence::CERTIFICATE_LEN;

/// Evidence as bytes.
pub(crate) struct Evidence {
    pub(crate) hcl: Vec<u8>,
    pub(crate) quote: Quote,
    /// The VCEK's certificate, in DER.
    pub(crate) vcek: Vec<u8>,
    /// Which form it came in, for a reader.
    pub(crate) form: &'static str,
}

impl Evidence {
    /// Parses Confidential Containers' forms: version 1, `{"version", "hcl_report", "tpm_quote", "vcek"}` with
    /// hexadecimal and base64, and the one before it, `{"report", "quote", "vcek"}` with lists of numbers and
    /// PEM.
    pub(crate) fn parse(primary: &Value) -> Result<Self, Offence> {
        let Value::Object(members) = primary else {
            return Err(Offence::form("a JSON object", kind(primary)));
        };
        let member = |name: &str| members.get(name).unwrap_or(&Value::Null);
        let (hcl, quote, form) = match member("version") {
            Value::Null => (member("report"), member("quote"), "evidence without a version"),
            Value::Number(version) if version.as_u64() == Some(1) => {
                (member("hcl_report"), member("tpm_quote"), "evidence of version 1")
            }
            _ => return Err(Offence::form("evidence of version 1, or without one", "another version")),
        };
        if hcl.is_null() || quote.is_null() {
            return Err(Offence::form("an HCL report and a quote", member_names(members)));
        }
        let hcl = bytes(hcl, HCL_LEN).ok_or_else(|| Offence::form("an HCL report, at most 16 KiB", kind(hcl)))?;
        let vcek = certificate(member("vcek"))
            .ok_or_else(|| Offence::form("`vcek` as a certificate", kind(member("vcek"))))?;
        Ok(Self { hcl, quote: parse_quote(quote)?, vcek, form })
    }
}

fn parse_quote(value: &Value) -> Result<Quote, Offence> {
    let part = |name: &str, most| value.get(name).and_then(|part| hexadecimal(part, most));
    let message = part("message", MESSAGE_LEN).ok_or_else(|| Offence::form("`message` of a quote", kind(value)))?;
    let signature =
        part("signature", SIGNATURE_LEN).ok_or_else(|| Offence::form("`signature` of a quote", kind(value)))?;
    let list = value.get("pcrs").and_then(Value::as_array).filter(|list| list.len() == PCRS);
    let mut pcrs = [[0; 32]; PCRS];
    let registers = list.ok_or_else(|| Offence::form("`pcrs` of a quote, 24 of them", "another number"))?;
    for (to, from) in pcrs.iter_mut().zip(registers) {
        let register = hexadecimal(from, 32).and_then(|bytes| bytes.try_into().ok());
        *to = register.ok_or_else(|| Offence::form("registers of 32 bytes", kind(from)))?;
    }
    Ok(Quote { message, signature, pcrs })
}

fn bytes(value: &Value, most: usize) -> Option<Vec<u8>> {
    base64(value, most).or_else(|| byte_list(value, most))
}

fn hexadecimal(value: &Value, most: usize) -> Option<Vec<u8>> {
    match value {
        Value::String(text) if text.len() <= 2 * most => hex::decode(text).ok(),
        other => byte_list(other, most),
    }
}

/// A certificate as PEM, or as base64 of DER. Of several in PEM, the first: the VCEK stands there alone or
/// before its issuers.
fn certificate(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) if text.starts_with("-----BEGIN") && text.len() <= 2 * CERTIFICATE_LEN => {
            certificates_der(text.as_bytes())?.into_iter().next()
        }
        other => base64(other, CERTIFICATE_LEN),
    }
}
