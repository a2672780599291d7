//! A denied platform, with a workload that runs on it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::waiting::{finish, start_waiting};
use serde_json::Value;

const REASON: &str = "the machine was sold";

/// The result of a command as JSON.
fn json(scene: &Scene, args: &[&str]) -> Value {
    let args = ["--output", "json"].iter().chain(args);
    serde_json::from_str(&scene.vendor.sealift(args).succeeded().stdout).unwrap()
}

#[tokio::test]
async fn a_denied_chip_loses_its_lease_and_starts_nothing_until_it_is_allowed() {
    let scene = Scene::set().await;
    let (_, license) = scene.vendor.license(PRODUCT, &["--lease", "3s", "--grace", "1s"]);
    let license = license.display().to_string();
    let (child, stdout) = start_waiting(&scene.vendor, &scene.sealed, &license, "auto");

    let chip = json(&scene, &["lease", "list"])[0]["chip_id"].as_str().unwrap().to_owned();
    let dry = scene.vendor.sealift(["platform", "deny", &chip, "--reason", REASON, "--dry-run"]).succeeded().stdout;
    assert!(dry.contains("would end at their next renewal: 1\n"), "{dry}");
    assert_eq!(scene.vendor.sealift(["platform", "list"]).succeeded().stdout, "(none)\n");
    let denied = scene.vendor.sealift(["platform", "deny", &chip, "--reason", REASON]).succeeded().stdout;
    assert!(denied.contains("that end at their next renewal: 1\n"), "{denied}");

    let (code, rest, stderr) = finish(child, stdout);
    assert_eq!((code, rest.as_str()), (127, "stopped\n"), "{stderr}");
    assert!(stderr.contains("is denied by the vendor") && stderr.contains(REASON), "{stderr}");
    scene.vendor.assert_nothing_left();

    scene.run_with(&license).failed(125, REASON);
    assert!(scene.vendor.sealift(["platform", "list"]).succeeded().stdout.contains(REASON));

    scene.vendor.sealift(["platform", "allow", &chip, "--reason", "it was another"]).succeeded();
    let said = scene.run_with(&license);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
}
