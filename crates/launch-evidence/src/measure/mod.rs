//! The SNP launch digest of a guest, computed from the very files that boot it.
//!
//! The `sev` crate does the computing; what it accepts silently although no machine launches that way is
//! refused first.

mod firmware;
pub mod id_block;
pub mod origin;

pub(crate) use firmware::guid as firmware_guid;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};
use sev::parser::ByteParser as _;

use crate::identity::Measurement;
use firmware::Firmware;
pub use firmware::FirmwareError;

/// The most vCPUs of a guest that are measured.
const VCPUS: u32 = 4096;
/// The bit of `SEV_FEATURES` without which a guest is none of SNP.
const SNP_ACTIVE: u64 = 1;
/// The longest kernel command line, in bytes (x86's `COMMAND_LINE_SIZE`).
const COMMAND_LINE: usize = 2048;

/// What a guest is launched from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchInput {
    /// The firmware image (OVMF). To measure kernel and initrd it has to be built with SNP kernel hashes.
    pub firmware: PathBuf,
    /// The launch digest after the firmware's own pages, where it was computed before; the file then needs
    /// to hold no more than the firmware's last 4 KiB.
    #[serde(default)]
    pub firmware_digest: Option<Measurement>,
    /// The kernel, for a guest that is booted without a disk.
    #[serde(default)]
    pub kernel: Option<PathBuf>,
    /// The initrd; needs a kernel.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; needs a kernel.
    #[serde(default)]
    pub append: Option<String>,
    /// The number of vCPUs, from 1.
    pub vcpus: u32,
    /// The vCPUs' type.
    pub vcpu_type: VcpuType,
    /// `SEV_FEATURES` of the vCPUs; 1 is SNP and nothing else.
    #[serde(default = "snp_active")]
    pub guest_features: u64,
    /// The machine monitor, whose initial register values are measured.
    #[serde(default)]
    pub vmm: Vmm,
}

impl LaunchInput {
    /// A guest with this firmware and no more: add kernel, initrd and command line to the fields.
    pub fn new(firmware: impl Into<PathBuf>, vcpus: u32, vcpu_type: VcpuType) -> Self {
        Self {
            firmware: firmware.into(),
            firmware_digest: None,
            kernel: None,
            initrd: None,
            append: None,
            vcpus,
            vcpu_type,
            guest_features: snp_active(),
            vmm: Vmm::Qemu,
        }
    }

    /// Computes the launch digest. Reads the files; nothing is cached.
    ///
    /// # Errors
    /// [`MeasureError`] for input that no machine launches, unreadable files and malformed firmware.
    pub fn measure(&self) -> Result<Measurement, MeasureError> {
        self.check()?;
        let firmware = Firmware::read(&self.firmware)
            .map_err(|source| MeasureError::Firmware { path: self.firmware.clone(), source })?;
        if self.firmware_digest.is_none() {
            firmware.whole_pages().map_err(|source| MeasureError::Firmware { path: self.firmware.clone(), source })?;
        }
        if self.kernel.is_some() && !firmware.measures_kernel() {
            return Err(MeasureError::KernelNotMeasured { firmware: self.firmware.clone() });
        }
        for path in [&self.kernel, &self.initrd].into_iter().flatten() {
            readable(path)?;
        }
        let firmware_digest = self.firmware_digest.map(|digest| digest.to_string());
        let digest = snp_calc_launch_digest(SnpMeasurementArgs {
            vcpus: self.vcpus,
            vcpu_type: self.vcpu_type.0,
            ovmf_file: self.firmware.clone(),
            guest_features: GuestFeatures(self.guest_features),
            kernel_file: self.kernel.clone(),
            initrd_file: self.initrd.clone(),
            append: self.append.as_deref(),
            ovmf_hash_str: firmware_digest.as_deref(),
            vmm_type: Some(self.vmm.into()),
        })
        .map_err(|error| MeasureError::Digest(error.to_string()))?;
        digest.to_bytes().map(Measurement).map_err(|error| MeasureError::Digest(error.to_string()))
    }

    fn check(&self) -> Result<(), MeasureError> {
        if self.kernel.is_none() {
            if self.initrd.is_some() {
                return Err(MeasureError::WithoutKernel { what: "initrd" });
            }
            if self.append.is_some() {
                return Err(MeasureError::WithoutKernel { what: "kernel command line" });
            }
        }
        if self.vcpus == 0 || self.vcpus > VCPUS {
            return Err(MeasureError::Vcpus { found: self.vcpus });
        }
        if self.guest_features & SNP_ACTIVE == 0 {
            return Err(MeasureError::NotSnp { features: self.guest_features });
        }
        if let Some(append) = &self.append {
            if append.trim() != append {
                return Err(MeasureError::CommandLine { offence: "begins or ends with a blank" });
            }
            if append.len() >= COMMAND_LINE {
                return Err(MeasureError::CommandLine { offence: "is longer than a kernel reads" });
            }
            if append.contains('\0') {
                return Err(MeasureError::CommandLine { offence: "holds a zero byte, where a kernel stops reading" });
            }
        }
        Ok(())
    }
}

fn snp_active() -> u64 {
    SNP_ACTIVE
}

fn readable(path: &Path) -> Result<(), MeasureError> {
    let opened = std::fs::File::open(path).and_then(|file| file.metadata());
    let metadata = opened.map_err(|source| MeasureError::Read { path: path.to_owned(), source })?;
    if metadata.is_file() {
        return Ok(());
    }
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
    Err(MeasureError::Read { path: path.to_owned(), source })
}

/// Why there is no launch digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// An initrd or command line without the kernel that would read it; it would not be measured.
    #[error("the {what} needs a kernel, without one it is not measured")]
    WithoutKernel {
        /// `initrd` or `kernel command line`.
        what: &'static str,
    },
    /// No vCPU, or more than a machine has.
    #[error("a guest has from 1 to {VCPUS} vCPUs, not {found}")]
    Vcpus {
        /// How many were asked for.
        found: u32,
    },
    /// Features without SNP: no machine launches an SNP guest with them.
    #[error("the guest features {features:#x} lack bit 0, without which a guest is none of SEV-SNP")]
    NotSnp {
        /// The features.
        features: u64,
    },
    /// A command line that would be measured otherwise than it is passed.
    #[error("the kernel command line {offence}")]
    CommandLine {
        /// What is wrong with it.
        offence: &'static str,
    },
    /// A kernel is given, but this firmware does not verify it: whatever kernel the host passes would boot.
    #[error("the firmware `{firmware}` has no SNP kernel hashes section: it does not measure a kernel")]
    KernelNotMeasured {
        /// The firmware.
        firmware: PathBuf,
    },
    /// A file cannot be read.
    #[error("`{path}` cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The firmware is not one for SNP.
    #[error("the firmware `{path}` cannot be used")]
    Firmware {
        /// Which.
        path: PathBuf,
        /// Why.
        source: FirmwareError,
    },
    /// The `sev` crate refused.
    #[error("the launch digest cannot be computed: {0}")]
    Digest(String),
}

/// The machine monitor.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Vmm {
    /// QEMU with KVM.
    #[default]
    Qemu,
}

impl From<Vmm> for VMMType {
    fn from(vmm: Vmm) -> Self {
        match vmm {
            Vmm::Qemu => Self::QEMU,
        }
    }
}

impl Vmm {
    /// Every name.
    pub const NAMES: [&'static str; 1] = ["qemu"];
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qemu => f.write_str("qemu"),
        }
    }
}

/// A text that names no machine monitor whose launches are measured.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no machine monitor whose launches can be measured: qemu")]
pub struct ParseVmmError(String);

impl FromStr for Vmm {
    type Err = ParseVmmError;

    fn from_str(text: &str) -> Result<Self, ParseVmmError> {
        match text {
            "qemu" => Ok(Self::Qemu),
            other => Err(ParseVmmError(other.chars().take(64).collect())),
        }
    }
}

/// A QEMU vCPU type, by its QEMU name: `EPYC-Milan`, `EPYC-Genoa-v1`. Its CPUID signature is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VcpuType(CpuType);

impl VcpuType {
    /// Every name.
    pub const NAMES: [&'static str; 18] = [
        "EPYC",
        "EPYC-v1",
        "EPYC-v2",
        "EPYC-IBPB",
        "EPYC-v3",
        "EPYC-v4",
        "EPYC-Rome",
        "EPYC-Rome-v1",
        "EPYC-Rome-v2",
        "EPYC-Rome-v3",
        "EPYC-Milan",
        "EPYC-Milan-v1",
        "EPYC-Milan-v2",
        "EPYC-Genoa",
        "EPYC-Genoa-v1",
        "EPYC-Turin",
        "EPYC-Turin-v1",
        "EPYC-Turin-v2",
    ];
}

impl fmt::Display for VcpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A text that names no vCPU type.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no vCPU type: EPYC, EPYC-Milan, EPYC-Genoa, EPYC-Turin, and these with a version such as EPYC-v4")]
pub struct ParseVcpuTypeError(String);

impl FromStr for VcpuType {
    type Err = ParseVcpuTypeError;

    fn from_str(text: &str) -> Result<Self, ParseVcpuTypeError> {
        CpuType::try_from(text).map(Self).map_err(|_| ParseVcpuTypeError(text.chars().take(64).collect()))
    }
}

impl Serialize for VcpuType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VcpuType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
