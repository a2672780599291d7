//! How a guest is launched on an SEV-SNP host: the launch digests for the firmware and CPUs that may be, and QEMU's command
//! line for each.

use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};
use launch_evidence::measure::{LaunchInput, VcpuType};
use serde::Serialize;

use crate::cli::MachineArgs;

/// The guest policy: SMT is allowed, debugging and migration are not.
const POLICY: u64 = 0x3_0000;
/// The only feature of the measured ones that the printed command line turns on: SNP itself.
const GUEST_FEATURES: u64 = 1;

/// The names of a guest's files.
pub(crate) mod file {
    pub(crate) const COMMAND_LINE: &str = "cmdline";
    pub(crate) const DESCRIPTION: &str = "launch.json";
    pub(crate) const INITRD: &str = "initrd";
    pub(crate) const KERNEL: &str = "kernel";
}

/// One way to launch a guest.
#[derive(Debug, Serialize)]
pub(crate) struct Launch {
    pub(crate) vcpu_type: String,
    pub(crate) vcpus: u32,
    pub(crate) measurement: String,
    /// For a shell on an SEV-SNP host.
    pub(crate) qemu: String,
}

/// The type of virtual CPU that QEMU calls `name`.
pub(crate) fn vcpu_type(name: &str) -> Result<VcpuType, Failure> {
    name.parse()
        .or_fail(ExitCode::Usage, || format!("`{name}` is no type of virtual CPU"))
        .map_err(|failure| failure.hint(format!("types are: {}", VcpuType::NAMES.join(", "))))
}

/// Every launch that the arguments allow of the guest in `directory`; none without a firmware.
pub(crate) fn launches(args: &MachineArgs, directory: &Path) -> Result<Vec<Launch>, Failure> {
    let Some(firmware) = &args.firmware else { return Ok(Vec::new()) };
    let mut launches = Vec::new();
    for name in &args.vcpu_type {
        let vcpu_type = vcpu_type(name)?;
        for &vcpus in &args.vcpus {
            let mut input = LaunchInput::new(firmware, vcpus, vcpu_type);
            input.kernel = Some(directory.join(file::KERNEL));
            input.initrd = Some(directory.join(file::INITRD));
            input.append = Some(args.append.clone());
            input.guest_features = GUEST_FEATURES;
            let measurement =
                input.measure().or_fail(ExitCode::BadInput, || "cannot compute the launch digest".to_owned())?;
            launches.push(Launch {
                vcpu_type: vcpu_type.to_string(),
                vcpus,
                measurement: measurement.to_string(),
                qemu: qemu(&input, args.memory),
            });
        }
    }
    Ok(launches)
}

/// QEMU's command line (from 9.1) for a launch on an SEV-SNP host.
fn qemu(input: &LaunchInput, memory: u32) -> String {
    let path = |path: &Option<std::path::PathBuf>| quoted(&path.clone().unwrap_or_default().to_string_lossy());
    let device = "disable-legacy=on,iommu_platform=on";
    [
        "qemu-system-x86_64 -enable-kvm -nodefaults -nographic -no-reboot -serial stdio".to_owned(),
        format!("-cpu {} -smp {} -m {memory}M", input.vcpu_type, input.vcpus),
        "-machine q35,confidential-guest-support=sev0,memory-backend=ram0".to_owned(),
        format!("-object memory-backend-memfd,id=ram0,size={memory}M,share=true,prealloc=false"),
        format!("-object sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,kernel-hashes=on,policy={POLICY:#x}"),
        format!("-bios {}", quoted(&input.firmware.to_string_lossy())),
        format!("-kernel {} -initrd {}", path(&input.kernel), path(&input.initrd)),
        format!("-append {}", quoted(input.append.as_deref().unwrap_or_default())),
        format!("-netdev user,id=net0 -device virtio-net-pci,netdev=net0,{device},romfile="),
        format!("-device virtio-rng-pci,{device}"),
    ]
    .join(" \\\n  ")
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_launches_what_was_measured() {
        let mut input = LaunchInput::new("/usr/share/OVMF SNP.fd", 4, "EPYC-Genoa".parse().unwrap());
        input.kernel = Some("guest/kernel".into());
        input.initrd = Some("guest/initrd".into());
        input.append = Some("console=ttyS0 quiet".to_owned());
        let command = qemu(&input, 1024);
        for words in [
            "-cpu EPYC-Genoa -smp 4 -m 1024M",
            "kernel-hashes=on,policy=0x30000",
            "-bios '/usr/share/OVMF SNP.fd'",
            "-kernel guest/kernel -initrd guest/initrd",
            "-append 'console=ttyS0 quiet'",
        ] {
            assert!(command.contains(words), "no `{words}` in {command}");
        }
    }

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
