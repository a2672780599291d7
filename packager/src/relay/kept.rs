//! The key of the relay's lease, kept in its home: a start after a crash, in the same guest, takes up the lease that its guests
//! live by. In another guest the key is of no lease (`LeaseId::of_relay`).

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{ExitCode, Failure, FailureContext as _, whole_file};
use jose::jwe::EphemeralKey;
use release_protocol::{LeaseId, LicenseId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::home::VendorHome;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    license: LicenseId,
    /// None as long as the vendor's service has not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseId>,
    /// PKCS #8 in base64.
    key: Zeroizing<String>,
}

/// Where it is kept, and of which licence.
pub(super) struct KeptKey {
    path: PathBuf,
    license: LicenseId,
}

impl KeptKey {
    pub(super) fn new(home: &VendorHome, license: &LicenseId) -> Self {
        Self { path: home.directory().join("relay.key"), license: license.clone() }
    }

    /// What is there of this licence. What cannot be read serves for nothing: a new key is made in its place.
    pub(super) fn read(&self) -> Option<(EphemeralKey, Option<LeaseId>)> {
        let text = Zeroizing::new(fs::read(&self.path).ok()?);
        let record: Record = serde_json::from_slice(&text).ok().filter(|kept: &Record| kept.license == self.license)?;
        let der = STANDARD.decode(&*record.key).map(Zeroizing::new).ok()?;
        Some((EphemeralKey::from_der(&der).ok()?, record.lease))
    }

    pub(super) fn write(&self, key: &EphemeralKey, lease: Option<&LeaseId>) -> Result<(), Failure> {
        let cannot = || "cannot keep the relay's key".to_owned();
        let der = key.to_der().or_fail(ExitCode::Other, cannot)?;
        let key = Zeroizing::new(STANDARD.encode(&*der));
        let record = Record { license: self.license.clone(), lease: lease.cloned(), key };
        let text = serde_json::to_vec(&record).map(Zeroizing::new).or_fail(ExitCode::Other, cannot)?;
        whole_file::write_durably(&self.path, &text)
    }

    /// Its lease is over, or was given back.
    pub(super) fn forget(&self) {
        // One that stays is refused by the service.
        let _ = fs::remove_file(&self.path);
    }
}
