//! Launch digests against the peer `sev-snp-measure`, which is asked while the test runs: Debian's firmware, and the
//! firmware of the `sev` package that measures a kernel.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

#[path = "../../transparency-log/tests/support/python.rs"]
mod python;
#[path = "support/sev_package.rs"]
mod sev_package;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use launch_evidence::measure::{LaunchInput, VcpuType};
use serde_json::{Value, json};

/// The peer's version; its module is called, not its command, so it has to be one that is known.
const PEER: &str = "sev-snp-measure==0.0.13";
/// Debian's firmware, which measures no kernel.
const DEBIAN: &str = "/usr/share/ovmf/OVMF.fd";
/// The part of a firmware image that is needed beside the digest of the whole, in bytes.
const SUFFIX: usize = 4096;
/// Reads launches as JSON and writes the digest of each; `ovmf_hash` alone asks for a firmware's own digest.
const SCRIPT: &str = "
import json, sys
from sevsnpmeasure import guest, vcpu_types
def digest(case):
    if 'vcpus' not in case:
        return guest.calc_snp_ovmf_hash(case['ovmf']).hex()
    return guest.snp_calc_launch_digest(
        case['vcpus'], vcpu_types.CPU_SIGS[case['vcpu_type']], case['ovmf'], case['kernel'], case['initrd'],
        case['append'], case['guest_features'], case['ovmf_hash']).hex()
json.dump([digest(case) for case in json.load(sys.stdin)], sys.stdout)
";

/// What the peer answers to each case.
fn ask(python: &Path, cases: &[Value]) -> Vec<String> {
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&serde_json::to_vec(cases).expect("JSON")).expect("the peer");
    drop(stdin);
    let told = child.wait_with_output().expect("the peer");
    assert!(told.status.success(), "sev-snp-measure failed");
    serde_json::from_slice(&told.stdout).expect("JSON")
}

/// A launch, and how the peer is asked for it.
fn case(input: LaunchInput) -> (LaunchInput, Value) {
    let optional = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let asked = json!({
        "ovmf": input.firmware, "ovmf_hash": input.firmware_digest.map(|digest| digest.to_string()).unwrap_or_default(),
        "kernel": optional(&input.kernel), "initrd": optional(&input.initrd),
        "append": input.append.as_deref().unwrap_or_default(), "vcpus": input.vcpus,
        "vcpu_type": input.vcpu_type.to_string(), "guest_features": input.guest_features,
    });
    (input, asked)
}

fn vcpu_type(name: &str) -> VcpuType {
    name.parse().expect("a type")
}

/// Debian's image as a whole, and its end with the digest of the whole: both have to be the same.
fn debian(folder: &Path, python: &Path, cases: &mut Vec<(LaunchInput, Value)>) {
    let image = fs::read(DEBIAN).unwrap_or_else(|error| {
        panic!("{DEBIAN} cannot be read ({error}): install Debian's package ovmf, or run tests/run, which does")
    });
    let suffix = folder.join("suffix");
    fs::write(&suffix, image.get(image.len() - SUFFIX..).expect("an end")).expect("a file");
    let [whole] = ask(python, &[json!({"ovmf": DEBIAN})]).try_into().expect("one answer");
    for name in ["EPYC", "EPYC-v4", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"] {
        for (vcpus, guest_features) in [(1, 0x1), (2, 0x21), (7, 0x9), (16, 0x201), (64, 0x1)] {
            let mut input = LaunchInput::new(DEBIAN, vcpus, vcpu_type(name));
            input.guest_features = guest_features;
            let mut short = input.clone();
            short.firmware.clone_from(&suffix);
            short.firmware_digest = Some(whole.parse().expect("a digest"));
            assert_eq!(short.measure().expect("a digest"), input.measure().expect("a digest"));
            cases.extend([case(input), case(short)]);
        }
    }
}

/// Every way to pass a kernel, on the firmware that measures it.
fn with_kernel(folder: &Path, cases: &mut Vec<(LaunchInput, Value)>) {
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).expect("a file");
        path
    };
    let kernel = write("kernel", &vec![0x4B; 70_001]);
    let initrd = write("initrd", b"a small initrd");
    let empty = write("empty", b"");
    let boots = [
        (None, None, None),
        (Some(&kernel), None, None),
        (Some(&kernel), None, Some("")),
        (Some(&kernel), Some(&initrd), None),
        (Some(&kernel), Some(&empty), Some("console=ttyS0  quiet")),
        (Some(&kernel), Some(&initrd), Some("root=/dev/vda1 name=Zo\u{eb}")),
    ];
    let firmware = sev_package::file("tests/measurement/ovmf_AmdSev_suffix.bin");
    for (kernel, initrd, append) in boots {
        for (name, vcpus, guest_features) in
            [("EPYC-v4", 1, 0x1), ("EPYC-Milan-v2", 3, 0x1), ("EPYC-Genoa-v1", 8, 0x21), ("EPYC-IBPB", 255, 0x1)]
        {
            let mut input = LaunchInput::new(&firmware, vcpus, vcpu_type(name));
            input.kernel = kernel.cloned();
            input.initrd = initrd.cloned();
            input.append = append.map(str::to_owned);
            input.guest_features = guest_features;
            let mut seeded = input.clone();
            seeded.firmware_digest = Some("5c".repeat(48).parse().expect("a digest"));
            cases.extend([case(input), case(seeded)]);
        }
    }
}

#[test]
fn launch_digests_are_those_of_sev_snp_measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = python::with_peer(PEER);
    let mut cases = Vec::new();
    debian(folder.path(), &python, &mut cases);
    with_kernel(folder.path(), &mut cases);
    let (inputs, asked): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let expected = ask(&python, &asked);
    assert!(expected.len() == inputs.len() && inputs.len() >= 60, "{} of {} answers", expected.len(), inputs.len());
    for (input, expected) in inputs.iter().zip(&expected) {
        let found = input.measure().unwrap_or_else(|error| panic!("{input:?}: {error:?}"));
        assert_eq!(&found.to_string(), expected, "{input:?}");
    }
    let mut digests = expected;
    digests.sort();
    digests.dedup();
    assert!(digests.len() >= 60, "only {} different digests", digests.len());
}
