//! The kernel's own interface for reports, `configfs-tsm` (Linux,
//! `Documentation/ABI/testing/configfs-tsm-report`).
//!
//! A request is a directory made below the base: the 64 bytes go into `inblob`, the report is read from
//! `outblob`, the certificates that the host passed from `auxblob`. `generation` counts writes, so a change
//! between ours and our reads shows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::attester::{Attester, AttesterError};
use crate::snp::{REPORT_LEN, TEE};

/// Where the interface is.
pub const BASE: &str = "/sys/kernel/config/tsm/report";

/// The provider of SEV-SNP reports.
const PROVIDER: &str = "sev_guest";
/// The largest certificate table, in bytes; the kernel's own limit is 32 KiB, four pages are usual.
const TABLE: u64 = 64 * 1024;
/// How often a request is repeated when another got in between.
const ATTEMPTS: u32 = 3;
/// An entry of the certificate table: GUID, offset, length.
const TABLE_ENTRY: usize = 24;

/// The GUIDs of useful entries (GHCB specification, extended guest request), as bytes.
const CERTIFICATES: [[u8; 16]; 3] = [
    // 4ab7b379-bbac-4fe4-a02f-05aef327c782: ASK
    [0x4A, 0xB7, 0xB3, 0x79, 0xBB, 0xAC, 0x4F, 0xE4, 0xA0, 0x2F, 0x05, 0xAE, 0xF3, 0x27, 0xC7, 0x82],
    // 63da758d-e664-4564-adc5-f4b93be8accd: VCEK
    [0x63, 0xDA, 0x75, 0x8D, 0xE6, 0x64, 0x45, 0x64, 0xAD, 0xC5, 0xF4, 0xB9, 0x3B, 0xE8, 0xAC, 0xCD],
    // a8074bc2-a25a-483e-aae6-39c045a0b8a1: VLEK
    [0xA8, 0x07, 0x4B, 0xC2, 0xA2, 0x5A, 0x48, 0x3E, 0xAA, 0xE6, 0x39, 0xC0, 0x45, 0xA0, 0xB8, 0xA1],
];

/// Makes a request's directory. The kernel fills it with its files.
type MakeEntry = fn(&Path) -> io::Result<()>;

/// The attester of a real SEV-SNP guest.
#[derive(Clone, Debug)]
pub struct ConfigfsAttester {
    base: PathBuf,
    make_entry: MakeEntry,
}

impl ConfigfsAttester {
    /// An attester over the interface at `base`, which is [`BASE`] on a real system.
    ///
    /// # Errors
    /// [`AttesterError::Missing`] when it is not there.
    pub fn new(base: impl Into<PathBuf>) -> Result<Self, AttesterError> {
        Self::with(base.into(), |path| fs::create_dir(path))
    }

    fn with(base: PathBuf, make_entry: MakeEntry) -> Result<Self, AttesterError> {
        if base.is_dir() {
            return Ok(Self { base, make_entry });
        }
        let hint = "this is no confidential guest, or its kernel lacks CONFIG_TSM_REPORTS, or configfs is not mounted";
        Err(AttesterError::Missing { path: base, hint })
    }

    fn request(&self, report_data: &[u8; 64]) -> Result<Option<Value>, AttesterError> {
        let entry = Entry::make(self)?;
        let provider = entry.text("provider")?;
        if provider != PROVIDER {
            return Err(AttesterError::Provider { expected: PROVIDER, found: provider });
        }
        entry.write("inblob", report_data)?;
        let before = entry.text("generation")?;
        let report = entry.read("outblob", u64::try_from(REPORT_LEN).unwrap_or(u64::MAX))?;
        let table = match entry.read("auxblob", TABLE) {
            // A host that passes no certificates, or a kernel older than the file.
            Err(AttesterError::Missing { .. }) => Vec::new(),
            read => read?,
        };
        if entry.text("generation")? != before {
            return Ok(None);
        }
        if report.len() != REPORT_LEN {
            return Err(AttesterError::Malformed(format!("a report of {} bytes", report.len())));
        }
        let chain: Vec<String> = certificates(&table)?.into_iter().map(|der| STANDARD.encode(der)).collect();
        Ok(Some(json!({"report": STANDARD.encode(report), "cert_chain": chain})))
    }
}

impl Attester for ConfigfsAttester {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn is_simulated(&self) -> bool {
        false
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, AttesterError> {
        for _ in 0..ATTEMPTS {
            if let Some(evidence) = self.request(report_data)? {
                return Ok(evidence);
            }
        }
        Err(AttesterError::Contended { attempts: ATTEMPTS })
    }
}

/// A request's directory; removed when dropped.
struct Entry(PathBuf);

impl Entry {
    fn make(attester: &ConfigfsAttester) -> Result<Self, AttesterError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("sealift-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = attester.base.join(name);
        match (attester.make_entry)(&path) {
            Ok(()) => Ok(Self(path)),
            // What the kernel answers when no driver has registered.
            Err(error) if error.raw_os_error() == Some(6) => {
                Err(AttesterError::Missing { path, hint: "no driver answers here: load the module sev-guest" })
            }
            Err(source) => Err(AttesterError::Io { path, operation: "made", source }),
        }
    }

    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, AttesterError> {
        let path = self.0.join(name);
        let mut content = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(most + 1).read_to_end(&mut content));
        match read {
            Ok(_) if content.len() as u64 > most => {
                Err(AttesterError::Malformed(format!("`{name}` is longer than {most} bytes")))
            }
            Ok(_) => Ok(content),
            Err(error) => Err(failed(path, "read", error)),
        }
    }

    fn text(&self, name: &str) -> Result<String, AttesterError> {
        let content = self.read(name, 64)?;
        let text = String::from_utf8(content).map_err(|_| AttesterError::Malformed(format!("`{name}` is no text")))?;
        Ok(text.trim().to_owned())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), AttesterError> {
        let path = self.0.join(name);
        // One write: the kernel takes the content of each as a whole.
        let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(content));
        written.map_err(|error| failed(path, "written", error))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Left behind it costs a little kernel memory, no more.
        let _ = fs::remove_dir(&self.0);
    }
}

fn failed(path: PathBuf, operation: &'static str, source: io::Error) -> AttesterError {
    if source.kind() == io::ErrorKind::NotFound {
        return AttesterError::Missing { path, hint: "the kernel is too old, Linux 6.7 has it" };
    }
    AttesterError::Io { path, operation, source }
}

/// The certificates of a table: entries up to one of zeros, each naming bytes behind them. Revocation lists,
/// the root and unknown entries are left out.
fn certificates(table: &[u8]) -> Result<Vec<Vec<u8>>, AttesterError> {
    let malformed = || AttesterError::Malformed("the certificate table points outside itself".to_owned());
    let mut found = Vec::new();
    for entry in table.chunks_exact(TABLE_ENTRY) {
        if entry.iter().all(|byte| *byte == 0) {
            return Ok(found);
        }
        let number = |at: usize| entry.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let (start, len) = number(16).zip(number(20)).ok_or_else(malformed)?;
        let (start, len) =
            (usize::try_from(start).map_err(|_| malformed())?, usize::try_from(len).map_err(|_| malformed())?);
        let end = start.checked_add(len).ok_or_else(malformed)?;
        let data = table.get(start..end).ok_or_else(malformed)?;
        if CERTIFICATES.iter().any(|guid| entry.starts_with(guid)) {
            found.push(in_der(data)?);
        }
    }
    if table.is_empty() { Ok(found) } else { Err(malformed()) }
}

/// A certificate in DER. The table is meant to hold DER, but some hosts load PEM into it.
fn in_der(data: &[u8]) -> Result<Vec<u8>, AttesterError> {
    if !data.starts_with(b"-----BEGIN") {
        return Ok(data.to_vec());
    }
    let decoded = der::pem::decode_vec(data.trim_ascii_end());
    decoded.map(|(_, der)| der).map_err(|_| AttesterError::Malformed("a certificate of the host is no PEM".to_owned()))
}

#[cfg(test)]
mod tests;
