//! Witnesses of the audit log at both command lines: receipts that a stranger has vouched for, and an export that has its
//! cosigned checkpoint beside it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../../crates/transparency-log/tests/support/witness.rs"]
#[expect(clippy::expect_used, dead_code, reason = "a failed expectation is a failed test; other tests use the rest")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use end_to_end::peer::{Said, program, run};
use end_to_end::scene::Scene;
use end_to_end::vendor::Vendor;
use serde_json::Value;
use support::{TestWitness, WITNESSED_AT};
use transparency_log::Cosigner;

fn witnesses(vendor: &Vendor) -> [TestWitness; 2] {
    let log = fs::read_to_string(vendor.home().join("service/log.pub")).unwrap();
    ["one.example/w", "two.example/w"].map(|name| TestWitness::start(name, log.trim_end().parse().unwrap()))
}

/// Writes the witnesses into the settings and starts the service with them.
fn serve_with(vendor: &mut Vendor, witnesses: &[TestWitness]) {
    let settings = vendor.home().join("sealift.toml");
    let mut text = fs::read_to_string(&settings).unwrap();
    text.push_str("\n[service.log]\ninterval_seconds = 1\n");
    let tables = witnesses.iter().map(|witness| {
        format!("[[service.log.witnesses]]\nkey = \"{}\"\nurl = \"{}\"\n", witness.key(), witness.url())
    });
    text.extend(tables);
    fs::write(settings, text).unwrap();
    vendor.stop_service();
    vendor.serve();
}

fn wait_for(condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < until, "waited for a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_until_all_have_seen(size: u64, witnesses: &[TestWitness]) {
    wait_for(|| witnesses.iter().all(|witness| witness.size() >= size));
}

fn log_size(vendor: &Vendor) -> u64 {
    let entries = vendor.sealift(["audit", "list", "--output", "json"]).succeeded().stdout;
    serde_json::from_str::<Vec<Value>>(&entries).unwrap().last().unwrap()["sequence"].as_u64().unwrap()
}

#[tokio::test]
async fn a_receipt_of_a_witnessed_log_is_held_against_its_witnesses_on_both_sides() {
    let mut scene = Scene::set().await;
    let witnesses = witnesses(&scene.vendor);
    serve_with(&mut scene.vendor, &witnesses);
    let receipts = scene.scratch.path().join("receipts");
    let args = ["run", &scene.sealed, "--license", &scene.license, "--receipts", &receipts.display().to_string()];
    assert_eq!(scene.vendor.guest(args).code, 7, "the workload's own code");
    let granted = fs::read_dir(&receipts).unwrap().map(|entry| entry.unwrap().path());
    let granted: Vec<PathBuf> = granted.filter(|path| path.display().to_string().ends_with(".receipt.json")).collect();
    let [granted] = granted.as_slice() else { panic!("{granted:?}") };

    let shim = |action: &str, more: &[&str]| -> Said {
        let mut command = Command::new(program("sealift-shim"));
        run(command.args(["receipt", action, "--license", &scene.license]).arg(granted).args(more))
    };
    let [one, two] = [0, 1].map(|place: usize| witnesses[place].key().to_string());
    // What comes with a lease is too new.
    shim("verify", &["--witness", &one]).failed(4, "0 of the witnesses signed; 1 have to");
    wait_until_all_have_seen(log_size(&scene.vendor), &witnesses);
    wait_for(|| shim("refresh", &[]).code == 0);
    let said = shim("verify", &["--witness", &one, "--witness", &two]).succeeded();
    assert!(said.stdout.contains("cosigned by two.example/w"), "{}", said.stdout);
    assert!(said.stdout.contains("lease_granted"), "{}", said.stdout);

    let stranger = Cosigner::generate("stranger.example".parse().unwrap()).unwrap().verifier_key().to_string();
    shim("verify", &["--witness", &stranger]).failed(4, "0 of the witnesses signed");
    shim("verify", &["--witness", &stranger, "--witness", &one, "--quorum", "1"]).succeeded();
    shim("verify", &["--witness", &stranger, "--witness", &one]).failed(4, "1 of the witnesses signed; 2 have to");
    shim("verify", &["--witness", &one, "--quorum", "0"]).failed(2, "demands nothing");
    shim("verify", &["--witness", &one, "--quorum", "2"]).failed(2, "witnesses cannot be used");
    shim("verify", &["--quorum", "1"]).failed(2, "--witness");
    let log = fs::read_to_string(scene.vendor.home().join("service/log.pub")).unwrap();
    shim("verify", &["--witness", log.trim_end()]).failed(2, "of the wrong kind");

    vendor_side(&scene.vendor, scene.scratch.path(), &one, &stranger);
}

/// `audit prove`, `verify` and `export` of the same log.
fn vendor_side(vendor: &Vendor, directory: &Path, witness: &str, stranger: &str) {
    let file = directory.join("first.json").display().to_string();
    vendor.sealift(["audit", "prove", "1", "--file", &file]).succeeded();
    let said = vendor.sealift(["audit", "verify", &file, "--witness", witness, "--output", "json"]).succeeded();
    let proved: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(proved["cosignatures"][0]["at_seconds"], WITNESSED_AT);
    vendor.sealift(["audit", "verify", &file, "--witness", stranger]).failed(4, "proves nothing");

    let export = directory.join("export");
    vendor.sealift(["audit", "export", &export.display().to_string()]).succeeded();
    let cosigned = fs::read_to_string(export.join("checkpoint.cosigned")).unwrap();
    assert!(cosigned.contains("\u{2014} one.example/w") && cosigned.contains("\u{2014} two.example/w"), "{cosigned}");
    assert!(!fs::read_to_string(export.join("checkpoint")).unwrap().contains("example/w"));
}

#[tokio::test]
async fn a_log_without_witnesses_says_so() {
    let scene = Scene::set().await;
    let receipts = scene.scratch.path().join("receipts");
    let args = ["run", &scene.sealed, "--license", &scene.license, "--receipts", &receipts.display().to_string()];
    assert_eq!(scene.vendor.guest(args).code, 7, "the workload's own code");
    let kept = fs::read_dir(&receipts).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.into_iter().find(|path| path.display().to_string().ends_with(".receipt.json")).unwrap();
    let before = fs::read(&kept).unwrap();
    let mut refresh = Command::new(program("sealift-shim"));
    refresh.args(["receipt", "refresh", "--license", &scene.license]).arg(&kept);
    run(&mut refresh).failed(6, "no witness has cosigned");
    assert_eq!(fs::read(&kept).unwrap(), before);
    let export = scene.scratch.path().join("export");
    scene.vendor.sealift(["audit", "export", &export.display().to_string()]).succeeded();
    assert!(!export.join("checkpoint.cosigned").exists());
}

#[test]
fn an_old_copy_of_the_database_is_found_out_by_what_witnesses_have_seen() {
    let scratch = tempfile::tempdir().unwrap();
    let mut vendor = Vendor::start(scratch.path(), &["recipe"]);
    let witnesses = witnesses(&vendor);
    vendor.stop_service();
    let files = ["sealift.db", "sealift.db-wal", "sealift.db-shm"].map(|name| vendor.home().join("service").join(name));
    let saved: Vec<Option<Vec<u8>>> = files.iter().map(|file| fs::read(file).ok()).collect();
    serve_with(&mut vendor, &witnesses);
    vendor.license("recipe", &[]);
    wait_until_all_have_seen(log_size(&vendor), &witnesses);
    // The answers of the witnesses are out; the service keeps them before it asks again.
    let kept = vendor.home().join("service/log.cosigned");
    let size = log_size(&vendor).to_string();
    wait_for(|| fs::read_to_string(&kept).is_ok_and(|note| note.lines().nth(1) == Some(&size)));

    vendor.stop_service();
    for (file, saved) in files.iter().zip(saved) {
        match saved {
            Some(bytes) => fs::write(file, bytes).unwrap(),
            None => drop(fs::remove_file(file)),
        }
    }
    // What it has signed is forgotten with it.
    fs::remove_file(vendor.home().join("service/log.head")).unwrap();
    vendor.serve();
    wait_for(|| vendor.service_log().contains("an old copy of the database is being served"));
    let export = scratch.path().join("export").display().to_string();
    vendor.sealift(["audit", "export", &export]).failed(4, "it is not the one that witnesses cosigned");
    // Receipts hold as ever, under what is there.
    let receipt = scratch.path().join("receipt.json").display().to_string();
    vendor.sealift(["audit", "prove", "1", "--file", &receipt]).succeeded();
    let witness = witnesses[0].key().to_string();
    vendor.sealift(["audit", "verify", &receipt, "--witness", &witness]).failed(4, "proves nothing");
}
