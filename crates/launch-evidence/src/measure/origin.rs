//! Where a launch digest came from: the digests of the files and the parameters, so that people can tell later which
//! build a reference value belongs to. It proves nothing; the launch digest does.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{LaunchInput, MeasureError, VcpuType, Vmm, readable};

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// What a launch was measured from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LaunchOrigin {
    /// The machine monitor.
    pub vmm: Vmm,
    /// The number of vCPUs.
    pub vcpus: u32,
    /// Their type.
    pub vcpu_type: VcpuType,
    /// `SEV_FEATURES` of the vCPUs, hexadecimal with `0x`.
    pub guest_features: String,
    /// The firmware.
    pub ovmf: FileOrigin,
    /// The kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<FileOrigin>,
    /// The initrd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<FileOrigin>,
    /// The kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
}

/// A file that was measured.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileOrigin {
    /// Its name without its folders.
    pub name: String,
    /// SHA-256 of its content, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl LaunchInput {
    /// Says what the launch is measured from. Reads the files.
    ///
    /// # Errors
    /// [`MeasureError::Read`] for a file that cannot be read.
    pub fn origin(&self) -> Result<LaunchOrigin, MeasureError> {
        let optional = |path: &Option<_>| path.as_deref().map(FileOrigin::of).transpose();
        Ok(LaunchOrigin {
            vmm: self.vmm,
            vcpus: self.vcpus,
            vcpu_type: self.vcpu_type,
            guest_features: format!("{:#x}", self.guest_features),
            ovmf: FileOrigin::of(&self.firmware)?,
            kernel: optional(&self.kernel)?,
            initrd: optional(&self.initrd)?,
            append: self.append.clone(),
        })
    }
}

impl FileOrigin {
    fn of(path: &Path) -> Result<Self, MeasureError> {
        readable(path)?;
        let failed = |source| MeasureError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut digest = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                break;
            }
            digest.update(chunk.get(..read).unwrap_or_default());
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, sha256: hex::encode(digest.finalize()) })
    }
}
