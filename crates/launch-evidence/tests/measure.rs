//! Launch digests against those on which two other tools agree, and the input that is refused.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use launch_evidence::measure::{LaunchInput, MeasureError, VcpuType, Vmm};
use launch_evidence::{Measurement, simulated};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn vectors() -> Option<PathBuf> {
    let folder = std::env::var_os("SEALIFT_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let folder = folder.join("launch");
    folder.join("launch_digests.json").is_file().then_some(folder)
}

fn text<'a>(case: &'a Value, name: &str) -> Option<&'a str> {
    case[name].as_str()
}

/// The file and, where the folder has an image's last 4 KiB only, the digest of the whole image.
fn firmware(folder: &Path, digests: &Value, case: &Value) -> Option<(PathBuf, Option<Measurement>)> {
    let name = text(case, "ovmf").expect("a name");
    let given = text(case, "ovmf_hash").map(|digest| digest.parse().expect("a digest"));
    let whole = folder.join(name);
    if whole.is_file() {
        return Some((whole, given));
    }
    let suffix = folder.join(format!("{name}.suffix4k"));
    let known = digests["ovmf_hash_of_full_image"][name].as_str()?.parse().expect("a digest");
    suffix.is_file().then_some((suffix, given.or(Some(known))))
}

#[test]
fn launch_digests_are_those_of_other_tools() {
    let Some(folder) = vectors() else { return };
    let digests: Value =
        serde_json::from_slice(&fs::read(folder.join("launch_digests.json")).expect("a file")).expect("JSON");
    let mut compared = 0;
    for case in digests["cases"].as_array().expect("a list") {
        let Some(expected) = text(case, "expect").filter(|_| case["vmm"] == "QEMU") else { continue };
        let Some((file, firmware_digest)) = firmware(&folder, &digests, case) else { continue };
        let vcpus = u32::try_from(case["vcpus"].as_u64().expect("a number")).expect("a small number");
        let mut input =
            LaunchInput::new(file, vcpus, text(case, "vcpu_type").expect("a type").parse().expect("a type"));
        input.firmware_digest = firmware_digest;
        input.kernel = text(case, "kernel").map(|name| folder.join(name));
        input.initrd = text(case, "initrd").map(|name| folder.join(name));
        input.append = text(case, "append").map(str::to_owned);
        input.guest_features = case["guest_features"].as_u64().expect("a number");
        if vcpus == 0 {
            // Both tools measure a guest that cannot run.
            assert!(matches!(input.measure(), Err(MeasureError::Vcpus { found: 0 })));
            continue;
        }
        if input.guest_features & 1 == 0 {
            // And one that is none of SNP.
            assert!(matches!(input.measure(), Err(MeasureError::NotSnp { features: 0 })));
            continue;
        }
        let found = input.measure().unwrap_or_else(|error| panic!("{}: {error:?}", case["id"]));
        assert_eq!(found.to_string(), expected, "{}", case["id"]);
        compared += 1;
    }
    assert!(compared >= 60, "only {compared} cases were compared");
}

/// A launch of the simulated platform's own files.
fn launch(folder: &Path) -> LaunchInput {
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).expect("a file");
        path
    };
    let mut input = LaunchInput::new(write("firmware", &simulated::firmware()), 2, vcpu_type());
    input.kernel = Some(write("kernel", &simulated::kernel()));
    input.initrd = Some(write("initrd", b"the shim, say"));
    input.append = Some("console=ttyS0".to_owned());
    input
}

fn vcpu_type() -> VcpuType {
    "EPYC-Genoa".parse().expect("a type")
}

#[test]
fn every_input_changes_the_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = launch(folder.path());
    let mut digests = vec![input.measure().expect("a digest")];
    assert_eq!(digests, [input.measure().expect("a digest")], "the same input gives the same digest");

    let mut other = input.clone();
    other.append = Some("console=ttyS1".to_owned());
    digests.push(other.measure().expect("a digest"));
    let mut other = input.clone();
    other.vcpus = 3;
    digests.push(other.measure().expect("a digest"));
    let mut other = input.clone();
    other.vcpu_type = "EPYC-Milan".parse().expect("a type");
    digests.push(other.measure().expect("a digest"));
    let mut other = input.clone();
    other.guest_features = 0x21;
    digests.push(other.measure().expect("a digest"));
    for path in [&input.initrd, &input.kernel, &Some(input.firmware.clone())].into_iter().flatten() {
        let content = fs::read(path).expect("a file");
        let mut changed = content.clone();
        *changed.first_mut().expect("a byte") ^= 1;
        fs::write(path, &changed).expect("a file");
        digests.push(input.measure().expect("a digest"));
        fs::write(path, &content).expect("a file");
    }
    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count, "two inputs share a digest");
}

#[test]
fn input_that_no_machine_launches_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = launch(folder.path());

    let mut wrong = input.clone();
    wrong.kernel = None;
    assert!(matches!(wrong.measure(), Err(MeasureError::WithoutKernel { what: "initrd" })));
    wrong.initrd = None;
    assert!(matches!(wrong.measure(), Err(MeasureError::WithoutKernel { what: "kernel command line" })));
    for vcpus in [0, 5000] {
        let mut wrong = input.clone();
        wrong.vcpus = vcpus;
        assert!(matches!(wrong.measure(), Err(MeasureError::Vcpus { found }) if found == vcpus));
    }
    let mut wrong = input.clone();
    wrong.guest_features = 0x20;
    assert!(matches!(wrong.measure(), Err(MeasureError::NotSnp { features: 0x20 })));
    for append in [" quiet", "quiet ", "quiet\n", "qui\0et", &"x".repeat(2048)] {
        let mut wrong = input.clone();
        wrong.append = Some(append.to_owned());
        assert!(matches!(wrong.measure(), Err(MeasureError::CommandLine { .. })), "{append:?}");
    }
    let mut wrong = input.clone();
    wrong.initrd = Some(folder.path().join("absent"));
    assert!(matches!(wrong.measure(), Err(MeasureError::Read { .. })));
    wrong.initrd = Some(folder.path().to_owned());
    assert!(matches!(wrong.measure(), Err(MeasureError::Read { .. })));
    let mut wrong = input;
    wrong.firmware = wrong.kernel.clone().expect("a kernel");
    assert!(matches!(wrong.measure(), Err(MeasureError::Firmware { .. })));
}

#[test]
fn a_kernel_needs_firmware_that_measures_it() {
    let Some(vectors) = vectors() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut input = launch(folder.path());
    input.firmware = vectors.join("ovmf_OvmfX64_suffix.bin");
    assert!(matches!(input.measure(), Err(MeasureError::KernelNotMeasured { .. })));
}

#[test]
fn a_launch_says_what_it_was_measured_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = launch(folder.path());
    let origin = input.origin().expect("an origin");
    let firmware = hex::encode(Sha256::digest(simulated::firmware()));
    assert_eq!((origin.ovmf.name.as_str(), origin.ovmf.sha256), ("firmware", firmware));
    let initrd = hex::encode(Sha256::digest(b"the shim, say"));
    assert_eq!(origin.initrd.map(|file| file.sha256), Some(initrd));
    assert_eq!((origin.append.as_deref(), origin.vcpus), (Some("console=ttyS0"), 2));
    assert_eq!((origin.vcpu_type.to_string().as_str(), origin.guest_features.as_str()), ("EPYC-Genoa", "0x1"));
    let mut absent = input;
    absent.kernel = Some(folder.path().join("absent"));
    assert!(matches!(absent.origin(), Err(MeasureError::Read { .. })));
}

#[test]
fn vcpu_types_have_qemu_names() {
    for name in VcpuType::NAMES {
        assert_eq!(name.parse::<VcpuType>().expect("a type").to_string(), name);
    }
    assert!("Xeon".parse::<VcpuType>().is_err());
    for name in Vmm::NAMES {
        assert_eq!(name.parse::<Vmm>().expect("a monitor").to_string(), name);
    }
    assert!("bochs".parse::<Vmm>().is_err());
}
