//! What the parsers of evidence share: why something is no evidence, and reading foreign bytes and JSON in
//! bounds.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::check::{CheckName, Checks};
use crate::verifier::EvidenceRejected;

/// Why bytes or JSON are no evidence.
#[derive(Debug)]
pub(crate) struct Offence {
    pub(crate) check: CheckName,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Offence {
    pub(crate) fn new(check: CheckName, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check, expected: expected.into(), found: found.into() }
    }

    pub(crate) fn form(expected: &str, found: impl Into<String>) -> Self {
        Self::new(CheckName::EvidenceForm, expected, found)
    }

    /// The refusal that this alone is.
    pub(crate) fn reject(self, mut checks: Checks) -> EvidenceRejected {
        checks.note(self.check, false, self.expected, self.found);
        EvidenceRejected { checks: checks.into_list() }
    }
}

/// Base64 of at most `most` bytes, in the standard or the URL-safe alphabet.
pub(crate) fn base64(value: &Value, most: usize) -> Option<Vec<u8>> {
    let Value::String(text) = value else { return None };
    if text.len() > most.saturating_mul(4) / 3 + 4 {
        return None;
    }
    let bytes =
        STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).or_else(|_| URL_SAFE.decode(text)).ok()?;
    (bytes.len() <= most).then_some(bytes)
}

/// A list of numbers below 256, at most `most` of them.
pub(crate) fn byte_list(value: &Value, most: usize) -> Option<Vec<u8>> {
    match value {
        Value::Array(numbers) if numbers.len() <= most => {
            numbers.iter().map(|number| u8::try_from(number.as_u64()?).ok()).collect()
        }
        _ => None,
    }
}

/// The certificates of a file in DER: itself, or what PEM holds, one or several. `None`: the text is no PEM.
pub(crate) fn certificates_der(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.contains("-----BEGIN")) else {
        return Some(vec![data.to_vec()]);
    };
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, from)) = rest.split_once(BEGIN) {
        let (inside, after) = from.split_once(END)?;
        let pem = format!("{BEGIN}{inside}{END}\n");
        found.push(der::pem::decode_vec(pem.as_bytes()).ok()?.1);
        rest = after;
    }
    (!found.is_empty()).then_some(found)
}

/// The names of an object's members: foreign text, bounded, and with control characters escaped.
pub(crate) fn member_names(members: &Map<String, Value>) -> String {
    let names: Vec<&str> = members.keys().take(8).map(String::as_str).collect();
    format!("{:?}", names.join(", ").chars().take(80).collect::<String>())
}

/// What JSON is there in place of what was wanted.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text that is not it",
        Value::Array(_) => "a list that is not it",
        Value::Object(_) => "an object that is not it",
    }
}

/// Reads foreign bytes from front to back; `None` where they end too early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u16_le(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32_le(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u16_be(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32_be(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Bytes behind their number, a little-endian `u32`.
    pub(crate) fn sized_u32_le(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32_le()?).ok()?;
        self.take(len)
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
