//! Policies tried on this machine, and denials explained.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use end_to_end::device::{launch, run_with_device};
use end_to_end::image::flip;
use end_to_end::peer::run;
use end_to_end::scene::{PRODUCT, Scene};
use launch_evidence::simulated::LaunchOptions;
use serde_json::{Value, json};

fn policies() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies"))
}

/// Writes a file beside the home and gives its path.
fn file(scene: &Scene, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = scene.scratch.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_policy_is_tried_on_a_raw_report_a_licence_and_a_workload() {
    let scene = Scene::set().await;
    let vendor = &scene.vendor;
    let report = launch(vendor, scene.scratch.path(), LaunchOptions::default()).report(&[7; 64]).unwrap();
    let report = file(&scene, "report.bin", report);
    let product = vendor.sealift(["--output", "json", "product", "show", PRODUCT]).succeeded().stdout;
    let product: Value = serde_json::from_str(&product).unwrap();
    let digest = format!("sha256:{}", "1".repeat(64));
    let workload = json!({"manifest_digest": digest, "signers": [product["product"]["signers"][0]["thumbprint"]]});
    let workload = file(&scene, "workload.json", workload.to_string());
    let references = vendor.sealift(["--output", "json", "reference", "list", "--product", PRODUCT]).succeeded().stdout;
    let references = file(&scene, "references.json", references);
    let policy = policies().join("release.rego").display().to_string();
    let inputs =
        ["policy", "test", &policy, "--evidence", &report, "--license", &scene.license, "--workload", &workload];

    let allowed = vendor.sealift(inputs.iter().chain(&["--references", &references])).succeeded();
    assert!(allowed.stdout.starts_with("allowed\n") && allowed.stdout.contains(&digest), "{}", allowed.stdout);
    assert!(allowed.stderr.starts_with("unverified: "), "{}", allowed.stderr);

    let denied = vendor.sealift(inputs);
    assert_eq!(denied.code, 5, "{}", denied.stderr);
    for part in ["is no reference value of product recipe", "tee.measurement", "sealift reference add --measure"] {
        assert!(denied.stdout.contains(part), "{part}: {}", denied.stdout);
    }
    let said = vendor.sealift(["--output", "json"].iter().chain(&inputs));
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &document["verified"], &document["allow"]), (5, &json!(false), &json!(false)));
    assert_eq!(document["input"]["platform"]["product"], document["input"]["tee"]["product"]);
}

#[tokio::test]
async fn a_policy_is_tried_on_claims_and_on_nothing_malformed() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(scratch.path().join(name), text).unwrap();
        scratch.path().join(name).display().to_string()
    };
    let policy = write(
        "tdx.rego",
        "package sealift.release\nimport rego.v1\nallow if { input.tee.mrtd == \"ab\"; input.platform.product == \"TDX\" }\n",
    );
    let sealift = |policy: &str, evidence: &str| {
        let mut command = std::process::Command::new(end_to_end::peer::program("sealift"));
        run(command.args(["policy", "test", policy, "--evidence", evidence]))
    };
    let claims = write("claims.json", r#"{"tee": {"tee": "tdx", "mrtd": "ab", "ppid": "00", "fmspc": "11"}}"#);
    sealift(&policy, &claims).succeeded();
    let other = sealift(&policy, &write("other.json", r#"{"tee": "tdx", "mrtd": "ac"}"#));
    assert_eq!((other.code, other.stdout.trim()), (5, "denied: the policy does not allow it and gives no reason"));
    sealift(&policy, &write("bad.json", "[]")).failed(3, "no object");
    sealift(&write("bad.rego", "package elsewhere"), &claims).failed(3, "must be `package sealift.release`");
}

/// A policy that asks for gigabytes at once when it is asked about a guest.
const GREEDY: &str = "package sealift.release\nimport rego.v1\ndefault allow := false\n\
    allow if { input.tee; count(numbers.range(1, 1000000000)) > 0 }\n";

#[test]
fn a_policy_tried_here_is_stopped_by_the_same_bound_as_in_the_service() {
    let scratch = tempfile::tempdir().unwrap();
    let (policy, claims) = (scratch.path().join("greedy.rego"), scratch.path().join("claims.json"));
    std::fs::write(&policy, GREEDY).unwrap();
    std::fs::write(&claims, r#"{"tee": {"tee": "snp"}}"#).unwrap();
    let test = |switch: &str, path: &Path| {
        let mut command = std::process::Command::new(end_to_end::peer::program("sealift"));
        run(command.args(["policy", "test"]).arg(&policy).arg(switch).arg(path))
    };
    test("--evidence", &claims).failed(3, "it takes more memory than the 64 MiB that one may");
    let cases = scratch.path().join("cases");
    std::fs::create_dir(&cases).unwrap();
    let case = json!({"input": {"tee": {}}, "decision": {"allow": false}});
    std::fs::write(cases.join("greedy.json"), case.to_string()).unwrap();
    std::fs::write(cases.join("modest.json"), json!({"input": {}, "decision": {"allow": false}}).to_string()).unwrap();
    let said = test("--cases", &cases);
    assert_eq!(said.code, 4, "{}", said.stdout);
    assert!(said.stdout.starts_with("cases that differ: 1 of 2\n"), "{}", said.stdout);
    assert!(said.stdout.contains("greedy.json\n  the policy was stopped: it takes more memory"), "{}", said.stdout);
}

#[test]
fn a_case_that_differs_is_named_with_its_difference() {
    let scratch = tempfile::tempdir().unwrap();
    let sealift = || {
        let mut command = std::process::Command::new(end_to_end::peer::program("sealift"));
        command.args(["policy", "test"]).arg(policies().join("release.rego")).arg("--cases").arg(scratch.path());
        run(&mut command)
    };
    sealift().failed(3, "there is no case");
    let released = std::fs::read_to_string(policies().join("tests/released.json")).unwrap();
    std::fs::write(scratch.path().join("same.json"), &released).unwrap();
    assert_eq!(sealift().succeeded().stdout, "all cases hold: 1\n");
    let mut wrong: Value = serde_json::from_str(&released).unwrap();
    wrong["input"]["tee"]["measurement"] = json!("zz");
    std::fs::write(scratch.path().join("wrong.json"), wrong.to_string()).unwrap();
    let said = sealift();
    assert_eq!(said.code, 4, "{}", said.stdout);
    assert!(said.stdout.starts_with("cases that differ: 1 of 2\n"), "{}", said.stdout);
    assert!(said.stdout.contains("wrong.json\n  allow: expected true, found false\n  deny: found "), "{}", said.stdout);
}

#[tokio::test]
async fn each_kind_of_denial_is_explained_with_what_to_do() {
    let scene = Scene::set().await;
    let vendor = &scene.vendor;
    let explain = |expected: [&str; 3]| {
        let entries = vendor.sealift(["--output", "json", "audit", "list"]).succeeded().stdout;
        let entries: Value = serde_json::from_str(&entries).unwrap();
        let entry = entries.as_array().unwrap().last().unwrap()["sequence"].to_string();
        let said = vendor.sealift(["policy", "explain", &entry]).succeeded().stdout;
        for part in expected {
            assert!(said.contains(part), "{part}: {said}");
        }
    };

    let tampered = scene.scratch.path().join("tampered");
    std::fs::copy(vendor.shim(), &tampered).unwrap();
    flip(&tampered, 15);
    let args = ["run", &scene.sealed, "--license", &scene.license];
    run(&mut vendor.guest_command(&tampered, args)).failed(125, "is no reference value");
    let measurement = vendor.measurement(&tampered);
    explain(["denied by    policy", &measurement, "sealift reference add --measure"]);

    let guest = launch(vendor, scene.scratch.path(), LaunchOptions::default());
    let said = run_with_device(vendor.bare_shim(), scene.scratch.path(), &args, |_| guest.evidence(&[0; 64]).unwrap());
    said.failed(124, "report-data");
    explain(["denied by    evidence", "report-data: expected", "let its shim attest anew"]);

    let (_, other) = vendor.license("other", &[]);
    scene.run_with(&other.display().to_string()).failed(125, "does not cover");
    explain(["denied by    manifest", "does not cover it", "sealift pack"]);

    let (id, license) = vendor.license(PRODUCT, &[]);
    vendor.sealift(["license", "revoke", &id, "--reason", "contract ended"]).succeeded();
    scene.run_with(&license.display().to_string()).failed(125, "contract ended");
    explain(["denied by    license", "contract ended", "sealift license issue"]);

    let greedy = file(&scene, "greedy.rego", GREEDY);
    vendor.sealift(["policy", "set", "--product", PRODUCT, &greedy]).succeeded();
    scene.run_with(&vendor.license(PRODUCT, &[]).1.display().to_string()).failed(125, "takes more memory");
    explain(["denied by    policy", "gave no decision", "takes more memory than the 64 MiB"]);

    vendor.sealift(["policy", "explain", "1"]).failed(3, "no denial");
    vendor.sealift(["policy", "explain", "99999"]).failed(3, "there is no audit entry");
}
