//! What a workload finds inside: the same under every runtime, as root and as an ordinary user.

use std::process::Command;

use end_to_end::image::PlainImage;
use end_to_end::peer::{fixture, peer, run};
use end_to_end::vendor::Vendor;

const PRODUCT: &str = "recipe";
/// `nobody` on Debian; any number without a home would do.
const ORDINARY_USER: u32 = 65534;

/// What the workload of root may do, and nothing else: fourteen capabilities.
const EXPECTED: &str = "\
hello world from 0 in /opt
upper
open files: 1
devices: 6
interfaces: 1
processes: 4
NoNewPrivs:\t1
CapEff:\t00000000a80425fb
root: writable
/proc/sys: read-only
/proc/kcore: hidden
/dev/null: works
";

/// `ls` and `grep` come and go in an order of their own, and the two lines of the status file stand as the kernel has them.
fn normal(output: &str) -> Vec<String> {
    let mut lines: Vec<String> = output
        .lines()
        .filter(|line| !line.starts_with("processes:"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_workload_finds_the_same_under_every_runtime() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let sealed =
        vendor.pack(&plain.reference("mixed"), &format!("oci:{}:v1", scratch.path().join("s").display()), PRODUCT);
    for runtime in ["runc", "crun", "embedded"] {
        let license = license.display().to_string();
        let args = ["run", &sealed, "--license", &license, "--runtime", runtime, "--network", "none", "--", "probe"];
        let said = vendor.guest(args).succeeded();
        assert_eq!(normal(&said.stdout), normal(EXPECTED), "{runtime}: {}", said.stderr);
        vendor.assert_nothing_left();
    }
}

#[tokio::test]
async fn an_ordinary_user_runs_a_sealed_image_under_runc_and_the_embedded_runtime() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start_as(ORDINARY_USER, scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let sealed = format!("oci:{}:v1", vendor.home().with_file_name("sealed").display());
    vendor.pack(&plain.reference("mixed"), &sealed, PRODUCT);
    for runtime in ["runc", "embedded"] {
        let license = license.display().to_string();
        let said = vendor.guest(["run", &sealed, "--license", &license, "--runtime", runtime]);
        let expected = (7, "hello world from 0 in /opt\nupper\n");
        assert_eq!((said.code, said.stdout.as_str()), expected, "{runtime}: {}", said.stderr);
        assert!(said.stderr.contains("left out 1 device nodes"), "what only root can make is said: {}", said.stderr);
        vendor.assert_nothing_left();
    }
}

#[tokio::test]
async fn where_user_namespaces_are_forbidden_that_is_said_with_the_way_on() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start_as(ORDINARY_USER, scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let sealed = format!("oci:{}:v1", vendor.home().with_file_name("sealed").display());
    vendor.pack(&plain.reference("mixed"), &sealed, PRODUCT);
    let license = license.display().to_string();
    let guest = |args: &[&str]| {
        let mut command = Command::new(fixture("without-user-namespaces"));
        command.arg(vendor.shim().with_file_name("sealift")).arg("--home").arg(vendor.home());
        command.args(["simulate", "launch", "--initrd"]).arg(vendor.shim()).arg("--").args(args);
        run(command.env("SEALIFT_STATE_DIR", vendor.state_directory()))
    };
    guest(&["run", &sealed, "--license", &license, "--runtime", "embedded"]).failed(121, "forbids user namespaces");
    vendor.assert_nothing_left();
    let doctor = guest(&["doctor"]);
    assert_eq!(doctor.code, 1);
    assert!(doctor.stdout.contains("MISSING  user namespaces"), "{}", doctor.stdout);
}

#[tokio::test]
async fn a_policy_can_oblige_the_shim_to_a_read_only_root() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let sealed =
        vendor.pack(&plain.reference("mixed"), &format!("oci:{}:v1", scratch.path().join("s").display()), PRODUCT);
    let policy = scratch.path().join("policy.rego");
    let text = "package sealift.release\nimport rego.v1\n\
                allow if input.references[_].measurement == input.tee.measurement\n\
                obligations := {\"read_only_root\": true, \"manifest_digest\": input.workload.manifest_digest}\n";
    std::fs::write(&policy, text).unwrap();
    vendor.sealift(["policy", "set", "--product", PRODUCT, &policy.display().to_string()]).succeeded();
    for runtime in ["runc", "crun", "embedded"] {
        let license = license.display().to_string();
        let said =
            vendor.guest(["run", &sealed, "--license", &license, "--runtime", runtime, "--", "probe"]).succeeded();
        assert!(said.stdout.contains("root: read-only"), "{runtime}: {}", said.stdout);
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    // The image without an entrypoint runs what it is told.
    let image = format!("{}:gzip", plain.directory().display());
    run(peer("umoci").args(["config", "--image", &image, "--clear", "config.entrypoint"])).succeeded();
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let sealed =
        vendor.pack(&plain.reference("gzip"), &format!("oci:{}:v1", scratch.path().join("s").display()), PRODUCT);
    let license = license.display().to_string();
    let args = ["run", &sealed, "--license", &license, "--runtime", "embedded", "--", "/bin/absent"];
    vendor.guest(args).failed(121, "/bin/absent");
    vendor.assert_nothing_left();
}

#[tokio::test]
async fn attest_and_doctor_say_that_the_platform_is_simulated() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let license = license.display().to_string();
    let attested = vendor.guest(["attest", "--license", &license]).succeeded().stdout;
    assert!(attested.contains("SIMULATED") && attested.contains("warning"), "{attested}");
    assert!(attested.contains(&vendor.measurement(&vendor.shim())), "{attested}");
    let doctor = vendor.guest(["doctor", "--license", &license]).succeeded().stdout;
    assert!(doctor.contains("a SIMULATED platform") && doctor.contains("accepts SIMULATED platforms"), "{doctor}");
}
