//! Saved evidence in all its forms, from files into the one JSON form that verifiers read.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use attestation_service::endorsement::Shelf;
use launch_evidence::snp::wanted::{WantedEndorsement, with_certificates};
use launch_evidence::snp::{REPORT_LEN, evidence_json, table};
use launch_evidence::tdx;
use serde_json::Value;

/// The largest file that is read, in bytes: collateral and evidence with certificates stay far below.
const FILE_MAX: u64 = 4 << 20;
/// The TEE type of a TD in a quote's header, at its offset.
const TD: [u8; 4] = [0x81, 0, 0, 0];

/// Reads a file within the limit; `Err` says what is wrong, with its name.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("`{}` has more than {FILE_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

/// The structures in a file: every PEM block of `label`, or the whole file as DER.
pub(crate) fn pem_or_der(bytes: &[u8], label: &str) -> Vec<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.contains("-----BEGIN")) else {
        return vec![bytes.to_vec()];
    };
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, from)) = rest.split_once(&begin) {
        let Some((inside, after)) = from.split_once(&end) else { break };
        let base64: String = inside.split_whitespace().collect();
        // A block that is none stays one, so that the verifier refuses it by name.
        blocks.push(decode(&base64).unwrap_or_else(|| inside.as_bytes().to_vec()));
        rest = after;
    }
    blocks
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(base64).ok()
}

/// Certificates beside evidence.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    files: Vec<Vec<u8>>,
    shelves: Vec<Shelf>,
}

impl Certificates {
    /// Reads files, and directories: their own files, and what lies below by product, chip and TCB.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, String> {
        let mut this = Self::default();
        for path in paths {
            if path.is_dir() {
                this.shelves.push(Shelf::at(path.clone()));
                this.files.extend(certificates_in(path)?);
            } else {
                this.files.push(read(path)?);
            }
        }
        Ok(this)
    }

    /// The evidence with the certificates. `Err` says what in them is unusable.
    fn complete(&self, primary: Value) -> Result<Value, String> {
        let mut chain = Vec::new();
        for file in &self.files {
            let is_der = file.first() == Some(&0x30);
            if is_der || file.starts_with(b"-----BEGIN") || file.trim_ascii_start().starts_with(b"-----BEGIN") {
                chain.extend(pem_or_der(file, "CERTIFICATE"));
            } else {
                chain
                    .extend(table::certificates(file).map_err(|error| format!("a certificate file is none: {error}"))?);
            }
        }
        chain.dedup();
        let primary = with_certificates(primary, &chain);
        let found = WantedEndorsement::candidates(&primary)
            .iter()
            .find_map(|wanted| self.shelves.iter().find_map(|shelf| shelf.read(&wanted.relative_path())));
        Ok(with_certificates(primary, found.as_slice()))
    }
}

fn certificates_in(directory: &Path) -> Result<Vec<Vec<u8>>, String> {
    let listed = fs::read_dir(directory).map_err(|error| format!("cannot read `{}`: {error}", directory.display()))?;
    let is_certificate = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.is_file() && extension.is_some_and(|extension| ["der", "pem", "crt", "cer"].contains(&extension))
    };
    let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).filter(is_certificate).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// The evidence in a file's contents, completed. `Err` says why it is none.
pub(crate) fn evidence(bytes: &[u8], certificates: &Certificates, collateral: Option<Value>) -> Result<Value, String> {
    match Form::of(bytes) {
        Form::Json(value) => {
            let primary = inner(value);
            if primary.get("quote").is_some_and(Value::is_string) {
                return Ok(with_collateral(primary, collateral));
            }
            certificates.complete(primary)
        }
        Form::Quote => Ok(tdx::evidence_json(bytes, collateral)),
        // Another length is the verifier's to refuse by name.
        Form::Report => certificates.complete(evidence_json(bytes, &[[0_u8; 0]; 0])),
    }
}

/// What saved evidence looks like.
pub(crate) enum Form {
    Json(Value),
    Quote,
    Report,
}

impl Form {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if bytes.trim_ascii_start().first() == Some(&b'{')
            && let Ok(value) = serde_json::from_slice(bytes)
        {
            return Self::Json(value);
        }
        let is_quote = bytes.get(4..8) == Some(&TD) && bytes.len() != REPORT_LEN;
        if is_quote { Self::Quote } else { Self::Report }
    }
}

/// The evidence inside what the key broker protocol sends around it.
pub(crate) fn inner(mut value: Value) -> Value {
    for member in ["tee-evidence", "tee_evidence", "primary_evidence"] {
        if let Some(inside) = value.get_mut(member) {
            value = inside.take();
            // Old clients sent it as a text.
            if let Some(parsed) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
                value = parsed;
            }
        }
    }
    value
}

fn with_collateral(mut primary: Value, collateral: Option<Value>) -> Value {
    if let (Value::Object(members), Some(collateral)) = (&mut primary, collateral) {
        members.insert("collateral".to_owned(), collateral);
    }
    primary
}
