//! A guest that really boots: kernel, initial RAM disk and shim in a virtual machine, on the simulated platform.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;

use end_to_end::guest::{Site, kernel};
use end_to_end::image::flip;
use end_to_end::peer::run;
use launch_evidence::simulated;
use release_protocol::LicenseFile;
use serde_json::Value;

const PRODUCT: &str = "recipe";

#[test]
fn a_guest_boots_attests_pulls_decrypts_and_runs_the_image() {
    let scratch = tempfile::tempdir().unwrap();
    let site = Site::start(scratch.path(), PRODUCT);
    let guest = site.build("guest");
    let measurement = site.measurement(&guest);
    site.vendor.sealift(["reference", "add", "--product", PRODUCT, "--digest", &measurement]).succeeded();

    let before = site.registry.log().len();
    let said = site.boot(&guest);
    let console = said.stdout.replace('\r', "");
    assert_eq!(said.code, 7, "the workload's own code comes through: {console}\n{}", said.stderr);
    assert!(said.stderr.contains("SIMULATED") && said.stderr.contains(&measurement), "{}", said.stderr);
    assert!(console.contains("attested (SIMULATED platform)"), "{console}");
    assert!(console.contains("hello world from 0 in /opt\n"), "{console}");
    let version = kernel().modules.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(console.contains(&format!("kernel {version}\n")), "it ran in the virtual machine: {console}");
    assert!(console.trim_end().contains("\nsealift-guest: exit 7\n"), "{console}");

    let layer = format!("GET /v2/app/blobs/{}", layers(&site)[0]);
    assert!(site.registry.log()[before..].contains(&layer), "the guest itself fetched the layers");
    let audit = site.vendor.sealift(["--output", "json", "audit", "list"]).succeeded().stdout;
    assert!(audit.contains(&measurement), "the service released for this very launch: {audit}");
    assert!(site.vendor.sealift(["lease", "list"]).succeeded().stdout.contains("ended"), "the seat is given back");
}

#[test]
fn a_guest_with_one_byte_of_its_initrd_changed_is_denied() {
    let scratch = tempfile::tempdir().unwrap();
    let site = Site::start(scratch.path(), PRODUCT);
    let guest = site.build("guest");
    let measurement = site.measurement(&guest);
    site.vendor.sealift(["reference", "add", "--product", PRODUCT, "--digest", &measurement]).succeeded();
    let initrd = guest.join("initrd");
    // Padding of the ELF header of `init`: it runs as before.
    let init = fs::read(&initrd).unwrap().windows(4).position(|bytes| bytes == b"\x7fELF").unwrap();
    flip(&initrd, init + 15);
    assert_ne!(site.measurement(&guest), measurement);

    let before = site.registry.log().len();
    let said = site.boot(&guest);
    let console = said.stdout.replace('\r', "");
    assert_eq!(said.code, 125, "{console}\n{}", said.stderr);
    assert!(console.contains("is no reference value of product recipe"), "{console}");
    assert!(!console.contains("hello world"), "{console}");
    let layer = format!("GET /v2/app/blobs/{}", layers(&site)[0]);
    assert!(!site.registry.log()[before..].contains(&layer), "no layer was requested");
}

#[test]
fn the_same_input_makes_the_same_guest_and_another_input_another_one() {
    let scratch = tempfile::tempdir().unwrap();
    let site = Site::start(scratch.path(), PRODUCT);
    let (one, two) = (site.build("one"), site.build("two"));
    for name in ["kernel", "initrd", "cmdline"] {
        assert!(fs::read(one.join(name)).unwrap() == fs::read(two.join(name)).unwrap(), "{name}");
    }
    assert_eq!(site.measurement(&one), site.measurement(&two));
    let (mut command, other) = site.build_command("other");
    run(command.args(["--address", "10.0.2.16/24"])).succeeded();
    assert_ne!(site.measurement(&one), site.measurement(&other));
    assert_eq!(mode(&one), 0o700, "the licence is in it");
    assert_eq!(mode(&one.join("initrd")), 0o600);
    let (mut again, _) = site.build_command("one");
    run(&mut again).failed(3, "cannot make");
    let (mut broken, half) = site.build_command("half");
    run(broken.args(["--firmware", "/dev/null"])).failed(3, "cannot compute the launch digest");
    assert!(!half.exists(), "half a guest must not stay");
}

#[test]
fn launch_measurements_are_those_of_the_files_for_each_cpu_and_number() {
    let scratch = tempfile::tempdir().unwrap();
    let site = Site::start(scratch.path(), PRODUCT);
    let firmware = scratch.path().join("OVMF.fd");
    fs::write(&firmware, simulated::firmware()).unwrap();
    let firmware = firmware.display().to_string();
    let matrix = ["--vcpus", "1,4", "--vcpu-type", "EPYC-Milan,EPYC-Genoa", "--firmware", &firmware];
    let (mut command, guest) = site.build_command("guest");
    let said = run(command.args(["--output", "json"]).args(matrix)).succeeded();
    let built: Value = serde_json::from_str(&said.stdout).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(guest.join("launch.json")).unwrap()).unwrap();
    assert_eq!(built, written, "the result is kept beside the files");

    let file = |name: &str| guest.join(name).display().to_string();
    let append = fs::read_to_string(guest.join("cmdline")).unwrap();
    let measured = site
        .vendor
        .sealift(
            ["--output", "json", "measure", "snp", "--kernel", &file("kernel"), "--initrd", &file("initrd")]
                .into_iter()
                .chain(["--append", append.as_str()])
                .chain(matrix),
        )
        .succeeded();
    let measured: Value = serde_json::from_str(&measured.stdout).unwrap();
    let pick = |all: &Value| -> Vec<(String, u64, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let launch = |launch: &Value| {
            (text(&launch["vcpu_type"]), launch["vcpus"].as_u64().unwrap(), text(&launch["measurement"]))
        };
        all.as_array().unwrap().iter().map(launch).collect()
    };
    assert_eq!(pick(&built["launches"]), pick(&measured));
    assert_eq!(pick(&measured).len(), 4);
    let qemu = built["launches"][3]["qemu"].as_str().unwrap();
    assert!(qemu.contains("-cpu EPYC-Genoa -smp 4") && qemu.contains("kernel-hashes=on"), "{qemu}");
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn layers(site: &Site) -> Vec<String> {
    let image = site.image.replace(end_to_end::guest::HOST, "127.0.0.1");
    let inspected = site.vendor.sealift(["--output", "json", "inspect", &image]).succeeded().stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let layers = inspected["platforms"][0]["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_relays_guest_attests_by_its_own_measurement_and_ends_with_its_authority() {
    let scratch = tempfile::tempdir().unwrap();
    let site = Site::start(scratch.path(), PRODUCT);
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/relay.rego");
    site.vendor.sealift(["policy", "set", "--product", PRODUCT, policy]).succeeded();
    let (id, license) = site.vendor.license(PRODUCT, &["--relay"]);
    let (mut wrong, _) = site.relay_command("wrong", &site.license);
    run(&mut wrong).failed(3, "is for workloads, not for a relay");
    let (mut build, guest) = site.relay_command("relay", &license);
    run(&mut build).succeeded();
    let measurement = site.measurement(&guest);
    let reference = ["reference", "add", "--product", PRODUCT, "--label", "relay: site", "--digest", &measurement];
    site.vendor.sealift(reference).succeeded();

    let mut command = site.boot_command(&guest, 2048);
    let mut booted = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut console = BufReader::new(booted.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("serving on https://0.0.0.0:8443, reached as https://relay.site.example:8443/") {
        assert_ne!(console.read_line(&mut said).unwrap(), 0, "it does not serve: {said}");
    }
    let token = said.split("a bearer's token: ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let child: LicenseFile = token.parse().unwrap();
    assert_eq!(child.unverified().service.url.as_str(), "https://relay.site.example:8443/");
    let entries = site.vendor.sealift(["--output", "json", "audit", "list"]).succeeded().stdout;
    let entries: Vec<Value> = serde_json::from_str(&entries).unwrap();
    let granted = entries.iter().find(|entry| entry["kind"] == "lease_granted").unwrap();
    assert_eq!(
        (&granted["body"]["measurement"], &granted["body"]["license"]),
        (&measurement.into(), &id.clone().into())
    );

    site.vendor.sealift(["license", "revoke", &id, "--reason", "returned"]).succeeded();
    console.read_to_string(&mut said).unwrap();
    assert_eq!(booted.wait().unwrap().code(), Some(7), "{said}");
    assert!(said.contains("the relay lost its authority") && said.contains("sealift-guest: exit 7"), "{said}");
}
