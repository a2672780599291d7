//! What verified evidence of an Azure machine says, as release policies and tokens read it.

use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::snp;

/// The claims of the SNP report and of the vTPM.
///
/// Serialises to the members of the SNP claims, and those below. `measurement` is called `hcl_measurement`
/// there: it measures Azure's paravisor, not the guest, so that a policy made for SNP does not take it for the
/// guest's. What boots above it is in the registers.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The SNP report's; `tee` is `az-snp-vtpm`.
    pub snp: snp::claims::Claims,
    /// The vTPM's 24 registers of SHA-256, in hexadecimal.
    pub pcrs: Vec<String>,
    /// How often the vTPM was reset.
    pub reset_count: u32,
    /// The vTPM's firmware.
    pub vtpm_firmware_version: u64,
    /// How Azure configured the machine, as the paravisor says.
    pub vm_configuration: Value,
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(members) = serde_json::to_value(&self.snp).map_err(S::Error::custom)? else {
            return Err(S::Error::custom("claims are an object"));
        };
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &members {
            map.serialize_entry(if name == "measurement" { "hcl_measurement" } else { name.as_str() }, value)?;
        }
        map.serialize_entry("pcrs", &self.pcrs)?;
        map.serialize_entry("reset_count", &self.reset_count)?;
        map.serialize_entry("vtpm_firmware_version", &self.vtpm_firmware_version)?;
        map.serialize_entry("vm_configuration", &self.vm_configuration)?;
        map.end()
    }
}
