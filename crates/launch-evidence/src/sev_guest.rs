//! The guest driver's own device, for kernels before `configfs-tsm` (Linux 6.7).
//!
//! The report comes through the `sev` crate, the certificates that the host passes beside it by a request of their own
//! ([`host_certificates`]). A host that passes none, or a driver that cannot, leaves the evidence without: the service then
//! finds the endorsement itself.

mod host_certificates;

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sev::firmware::guest::{Firmware, GuestFieldSelect};
use zeroize::Zeroizing;

use crate::attester::{Attester, AttesterError, DerivedKey};
use crate::snp::{self, REPORT_LEN, TEE, table};

/// The device.
pub const DEVICE: &str = "/dev/sev-guest";

/// The privilege level that reports are asked for: the one that verifiers expect, and that `configfs-tsm` asks for.
const VMPL: u32 = 0;

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
        let report = report(report_data)?;
        let table = File::open(DEVICE).and_then(|device| host_certificates::table(&device));
        let chain = chain(&table.unwrap_or_default())?;
        Ok(snp::evidence_json(&report, &chain))
    }

    fn derived_key(&self, context: &'static str) -> Result<DerivedKey, AttesterError> {
        derived_key(context)
    }
}

/// A key that the secure processor derives (SEV-SNP ABI, `MSG_KEY_REQ`): mixed into it are the chip's own secret, the launch
/// measurement, the guest's policy, and what its ID block says of family and image. Not mixed in are the levels of the
/// firmware: an update would lock out what was sealed before, where nobody can ask for it again.
pub(crate) fn derived_key(context: &str) -> Result<DerivedKey, AttesterError> {
    let mut fields = GuestFieldSelect::default();
    fields.set_guest_policy(true);
    fields.set_image_id(true);
    fields.set_family_id(true);
    fields.set_measurement(true);
    let request = sev::firmware::guest::DerivedKey::new(false, fields, VMPL, 0, 0, None);
    let mut firmware = open()?;
    // Version 1: version 2 has nothing more but the vector of mitigations, which is not mixed in.
    let key = firmware
        .get_derived_key(Some(1), request)
        .map(Zeroizing::new)
        .map_err(|error| AttesterError::Malformed(format!("the secure processor gives no derived key: {error}")))?;
    DerivedKey::expand(&key, context)
}

fn open() -> Result<Firmware, AttesterError> {
    Firmware::open().map_err(|source| AttesterError::Io { path: PathBuf::from(DEVICE), operation: "opened", source })
}

fn report(report_data: &[u8; 64]) -> Result<Vec<u8>, AttesterError> {
    let mut firmware = open()?;
    let report = firmware
        .get_report(None, Some(*report_data), Some(VMPL))
        .map_err(|error| AttesterError::Malformed(format!("the secure processor gives no report: {error}")))?;
    if report.len() != REPORT_LEN {
        return Err(AttesterError::Malformed(format!("a report of {} bytes", report.len())));
    }
    Ok(report)
}

/// The certificates of the host's table, which is one of zeros where the host passes none.
fn chain(table: &[u8]) -> Result<Vec<Vec<u8>>, AttesterError> {
    table::certificates(table).map_err(|error| AttesterError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_passes_no_certificates_leaves_the_chain_empty() {
        assert_eq!(chain(&[]).unwrap().len(), 0);
        assert_eq!(chain(&[0; host_certificates::TABLE_MAX]).unwrap().len(), 0);
    }

    #[test]
    fn a_host_that_points_outside_its_table_is_refused() {
        let mut table = vec![0xFF; 24];
        table.resize(host_certificates::TABLE_MAX, 0);
        let error = chain(&table).unwrap_err();
        assert!(error.to_string().contains("points outside itself"), "{error}");
    }
}
