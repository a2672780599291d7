//! The audit log at the command line: receipts that are good offline, and an export that a public C2SP tool reads.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../../crates/transparency-log/tests/support/python.rs"]
#[expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]
mod python;

use std::fs;
use std::path::Path;
use std::process::Command;

use end_to_end::peer::{Said, run};
use end_to_end::scene::Scene;
use end_to_end::vendor::Vendor;
use serde_json::Value;

/// The log reader, in a version whose command line is known. It asks for Python 3.12 and runs on Debian's 3.11 too.
const PEER: &str = "aics-tlog==0.2.1";

fn entries(vendor: &Vendor) -> Vec<Value> {
    serde_json::from_str(&vendor.sealift(["audit", "list", "--output", "json"]).succeeded().stdout).unwrap()
}

#[test]
fn a_receipt_is_good_without_the_service_and_an_altered_one_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let mut vendor = Vendor::start(scratch.path(), &["recipe"]);
    vendor.license("recipe", &[]);
    let entries = entries(&vendor);
    let issued = entries.iter().find(|entry| entry["kind"] == "license_issued").unwrap();
    let file = scratch.path().join("receipt.json").display().to_string();
    vendor.sealift(["audit", "prove", &issued["sequence"].to_string(), "--file", &file]).succeeded();
    vendor.sealift(["audit", "prove", "4711"]).failed(3, "4711");
    let number = issued["sequence"].to_string();
    let shown = vendor.sealift(["audit", "show", &number, "--output", "json"]).succeeded();
    assert_eq!(serde_json::from_str::<Value>(&shown.stdout).unwrap(), *issued);
    let shown = vendor.sealift(["audit", "show", &number]).succeeded().stdout;
    assert!(shown.starts_with(&format!("entry {number}  ")) && shown.contains("license_issued"), "{shown}");
    vendor.sealift(["audit", "show", "4711"]).failed(3, "4711");

    vendor.stop_service();
    let said = vendor.sealift(["audit", "verify", &file, "--output", "json"]).succeeded();
    let proved: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(proved["entry"], *issued);
    // The customer has the receipt and the vendor's public file, and nothing else.
    let key = scratch.path().join("log.pub");
    fs::copy(vendor.home().join("service/log.pub"), &key).unwrap();
    let elsewhere = scratch.path().join("none").display().to_string();
    let key = key.display().to_string();
    let customer = |key: &str| vendor.sealift(["audit", "verify", &file, "--key", key, "--home", &elsewhere]);
    customer(&key).succeeded();

    let good = fs::read_to_string(&file).unwrap();
    let mut other: Value = serde_json::from_str(&good).unwrap();
    other["index"] = 0.into();
    fs::write(&file, other.to_string()).unwrap();
    customer(&key).failed(4, "proves nothing");
    fs::write(&file, "{}").unwrap();
    customer(&key).failed(3, "is no receipt");
    fs::write(&file, good).unwrap();
    customer(&file).failed(3, "is no verifier key");
}

#[test]
fn a_licence_may_say_how_long_a_workload_goes_on_without_the_service_in_all() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::start(scratch.path(), &["recipe"]);
    let (id, _) = vendor.license("recipe", &["--lease", "10m", "--max-offline", "25m"]);
    let shown = vendor.sealift(["license", "show", &id]).succeeded().stdout;
    assert!(shown.contains("lease     600 s, grace 900 s: 1500 s at most without the service"), "{shown}");
    let issue = |more: &[&str]| {
        let args = [&["license", "issue", "--product", "recipe", "--customer", "customer"][..], more].concat();
        vendor.sealift(args)
    };
    issue(&["--lease", "10m", "--max-offline", "9m"]).failed(2, "a lease outlives `--max-offline`");
    issue(&["--grace", "1m", "--max-offline", "20m"]).failed(2, "--grace");
}

/// Validates standard input, an array, entry by entry, against the schema in the file named.
const VALIDATE: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for entry in json.load(sys.stdin):
    validator.validate(entry)
";

#[tokio::test]
async fn every_entry_of_a_whole_story_is_as_the_schema_says() {
    let scene = Scene::set().await;
    assert_eq!(scene.run().code, 7);
    let id = entries(&scene.vendor).iter().find_map(|entry| entry["body"]["license"].as_str().map(str::to_owned));
    let id = id.unwrap();
    scene.vendor.sealift(["license", "suspend", &id, "--reason", "unpaid"]).succeeded();
    assert_eq!(scene.run().code, 125);
    scene.vendor.sealift(["license", "resume", &id, "--reason", "paid"]).succeeded();
    scene.vendor.sealift(["license", "renew", &id, "--until", "9d", "--reason", "longer"]).succeeded();
    scene.vendor.sealift(["license", "transfer", &id, "--customer", "partner-a", "--reason", "sold"]).succeeded();
    scene.vendor.sealift(["platform", "deny", "Turin", "--reason", "broken"]).succeeded();
    scene.vendor.sealift(["platform", "allow", "Turin", "--reason", "mended"]).succeeded();
    scene.vendor.sealift(["token", "create", "--name", "desk", "--role", "licensing"]).succeeded();
    scene.vendor.sealift(["token", "revoke", "desk", "--reason", "gone"]).succeeded();
    scene.vendor.sealift(["license", "revoke", &id, "--reason", "ended"]).succeeded();

    let entries = Value::from(entries(&scene.vendor));
    let python = python::with_peer("jsonschema==4.26.0");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../attestation-service/audit-entry.schema.json");
    let valid = |entries: &Value| {
        let file = scene.scratch.path().join("entries.json");
        fs::write(&file, entries.to_string()).unwrap();
        let mut validator = Command::new(&python);
        run(validator.args(["-c", VALIDATE]).arg(&schema).stdin(fs::File::open(&file).unwrap()))
    };
    valid(&entries).succeeded();
    let mut other = entries;
    other[0]["body"]["secret"] = "key".into();
    valid(&other).failed(1, "secret");
}

fn export(vendor: &Vendor, directory: &Path) {
    let said = vendor.sealift(["audit", "export", &directory.display().to_string()]).succeeded();
    assert!(said.stdout.contains("entries of "), "{}", said.stdout);
}

#[test]
fn a_public_tool_reads_the_exported_log_and_sees_it_grow() {
    let scratch = tempfile::tempdir().unwrap();
    let vendor = Vendor::start(scratch.path(), &["recipe"]);
    let (old, new) = (scratch.path().join("old"), scratch.path().join("new"));
    export(&vendor, &old);
    for _ in 0..3 {
        vendor.license("recipe", &[]);
    }
    export(&vendor, &new);
    vendor.sealift(["audit", "export", &new.display().to_string()]).failed(3, "cannot make");

    let newest = entries(&vendor).pop().unwrap();
    let index = (newest["sequence"].as_u64().unwrap() - 1).to_string();
    let python = python::with_peer(PEER);
    let ask = |command: &str, more: &[&str]| -> Said {
        let mut peer = Command::new(&python);
        peer.args(["-m", "aics_tlog", command, "--tiles"]).arg(&new);
        run(peer.arg("--vkey-file").arg(vendor.home().join("service/log.pub")).args(more))
    };
    ask("verify-checkpoint", &[]).succeeded();
    let out = scratch.path().join("entry");
    let included = || ask("verify-inclusion", &["--index", &index, "--entry-out", &out.display().to_string()]);
    included().succeeded();
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&out).unwrap()).unwrap(), newest);
    let old = old.join("checkpoint").display().to_string();
    ask("verify-consistency", &["--old-checkpoint", &old]).succeeded();

    let bundles = new.join("tile/entries/000.p");
    let bundle = fs::read_dir(bundles).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&bundle).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&bundle, bytes).unwrap();
    assert_eq!(included().code, 1);
}
