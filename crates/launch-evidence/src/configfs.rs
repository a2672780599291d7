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

use serde_json::Value;

use crate::attester::{Attester, AttesterError, DerivedKey};
use crate::sev_guest::SevGuestAttester;
use crate::snp::{self, REPORT_LEN, TEE, table};

/// Where the interface is.
pub const BASE: &str = "/sys/kernel/config/tsm/report";

/// The provider of SEV-SNP reports.
const PROVIDER: &str = "sev_guest";
/// How often a request is repeated when another got in between.
const ATTEMPTS: u32 = 3;
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
        let table = match entry.read("auxblob", u64::try_from(table::TABLE_LEN).unwrap_or(u64::MAX)) {
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
        let chain = table::certificates(&table).map_err(|error| AttesterError::Malformed(error.to_string()))?;
        Ok(Some(snp::evidence_json(&report, &chain)))
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
    /// The interface has reports only: the key comes from the guest driver's device.
    fn derived_key(&self, context: &'static str) -> Result<DerivedKey, AttesterError> {
        let provider = Entry::make(self)?.text("provider")?;
        if provider != PROVIDER {
            return Err(AttesterError::Provider { expected: PROVIDER, found: provider });
        }
        SevGuestAttester::new()?.derived_key(context)
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

#[cfg(test)]
mod tests;
