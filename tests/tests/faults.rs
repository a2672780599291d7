//! The service killed at any moment under load: nothing is released without its entry, no entry is without its effect, no
//! seat is lost or doubled, and the log still proves itself.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::process::{Child, Stdio};
use std::time::Duration;

use end_to_end::peer::program;
use end_to_end::scene::{PRODUCT, Scene};
use serde_json::Value;

/// How often the service is killed.
const ROUNDS: u32 = 12;
/// How many guests start in each round.
const GUESTS: usize = 3;
/// What the scene's image ends with, and what a shim says of a service that is out of reach.
const ENDS: [i32; 2] = [7, 126];

fn start(scene: &Scene, license: &str) -> Child {
    let shim = program("sealift-shim");
    let mut command = scene.vendor.guest_command(&shim, ["run", &scene.sealed, "--license", license]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn list(scene: &Scene, args: &[&str]) -> Vec<Value> {
    let said = scene.vendor.sealift(["--output", "json"].iter().chain(args)).succeeded();
    serde_json::from_str(&said.stdout).unwrap()
}

#[tokio::test]
async fn a_service_that_is_killed_again_and_again_forgets_nothing_and_invents_nothing() {
    let mut scene = Scene::set().await;
    let (_, license) = scene.vendor.license(PRODUCT, &["--seats", "100"]);
    let license = license.display().to_string();
    let mut ended = Vec::new();
    for _ in 0..ROUNDS {
        let guests: Vec<Child> = (0..GUESTS).map(|_| start(&scene, &license)).collect();
        std::thread::sleep(Duration::from_millis(20 + RandomState::new().hash_one(0) % 700));
        scene.vendor.stop_service();
        scene.vendor.serve();
        ended.extend(guests.into_iter().map(|mut guest| guest.wait().unwrap().code().unwrap_or(-1)));
    }
    assert!(ended.iter().all(|code| ENDS.contains(code)), "{ended:?}");
    scene.vendor.assert_nothing_left();

    let leases = list(&scene, &["lease", "list"]);
    let entries = list(&scene, &["audit", "list", "--limit", "1000"]);
    let mut granted: HashMap<&str, u64> = HashMap::new();
    for entry in &entries {
        let Some(lease) = entry["body"]["lease"].as_str() else { continue };
        let sequence = entry["sequence"].as_u64().unwrap();
        match entry["kind"].as_str().unwrap() {
            "lease_granted" => assert!(granted.insert(lease, sequence).is_none(), "{lease} was granted twice"),
            "key_released" | "lease_renewed" | "lease_ended" => {
                assert!(granted.get(lease).is_some_and(|before| *before < sequence), "before its grant: {entry}");
            }
            _ => {}
        }
    }
    let mut known: Vec<&str> = leases.iter().map(|lease| lease["id"].as_str().unwrap()).collect();
    let mut recorded: Vec<&str> = granted.into_keys().collect();
    known.sort_unstable();
    recorded.sort_unstable();
    assert_eq!(known, recorded, "leases, and entries of their grants");

    let numbers: Vec<u64> = entries.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    let last = numbers.last().copied().unwrap();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "no gap");
    // Verifies the checkpoint and every hash on the way.
    let exported = scene.scratch.path().join("log").display().to_string();
    scene.vendor.sealift(["audit", "export", &exported]).succeeded();
    let receipt = scene.scratch.path().join("receipt.json").display().to_string();
    scene.vendor.sealift(["audit", "prove", &last.to_string(), "--file", &receipt]).succeeded();
}
