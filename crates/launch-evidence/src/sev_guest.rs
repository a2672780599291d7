//! The guest driver's own device, for kernels before `configfs-tsm` (Linux 6.7).
//!
//! Only the report is asked for, not the certificates that the host passes beside it: the `sev` crate follows the offsets
//! of the host's table without bounds, and the host is the adversary here. The service finds the endorsement itself.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sev::firmware::guest::Firmware;

use crate::attester::{Attester, AttesterError};
use crate::snp::{self, REPORT_LEN, TEE};

/// The device.
pub const DEVICE: &str = "/dev/sev-guest";

/// The attester over the device.
#[derive(Clone, Copy, Debug)]
pub struct SevGuestAttester(());

impl SevGuestAttester {
    /// An attester over [`DEVICE`].
    ///
    /// # Errors
    /// [`AttesterError::Missing`] when it is not there.
    pub fn new() -> Result<Self, AttesterError> {
        if Path::new(DEVICE).exists() {
            return Ok(Self(()));
        }
        let hint = "this is no SEV-SNP guest, or the module sev-guest is not loaded";
        Err(AttesterError::Missing { path: PathBuf::from(DEVICE), hint })
    }
}

impl Attester for SevGuestAttester {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn is_simulated(&self) -> bool {
        false
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, AttesterError> {
        let mut firmware = Firmware::open().map_err(|source| AttesterError::Io {
            path: PathBuf::from(DEVICE),
            operation: "opened",
            source,
        })?;
        let report = firmware
            .get_report(None, Some(*report_data), None)
            .map_err(|error| AttesterError::Malformed(format!("the secure processor gives no report: {error}")))?;
        if report.len() != REPORT_LEN {
            return Err(AttesterError::Malformed(format!("a report of {} bytes", report.len())));
        }
        Ok(snp::evidence_json(&report, &[[0_u8; 0]; 0]))
    }
}
