//! What bounds a lease when the service, or a clock, is not as it should be; and what its end leaves behind.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, File};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use end_to_end::image::{manifest, open};
use end_to_end::peer::Said;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::waiting::{finish, start_stubborn, start_waiting, wait_for_words};
use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

#[tokio::test]
async fn a_service_that_is_away_for_less_than_the_lease_is_waited_for() {
    let Scene { mut vendor, sealed, scratch: _scratch, .. } = Scene::set().await;
    let (_, license) = vendor.license(PRODUCT, &["--lease", "3s", "--grace", "10m"]);
    let (mut child, stdout) = start_waiting(&vendor, &sealed, &license.display().to_string(), "embedded");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let said = wait_for_words(&mut stderr, "running under");
    assert!(said.contains("without the service the workload can go on for 60"), "it says so at start: {said}");
    vendor.stop_service();
    wait_for_words(&mut stderr, "the workload can go on for");
    vendor.serve();
    wait_for_words(&mut stderr, "the service is back; the lease is renewed");
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(finish(child, stdout).0, 0);
}

#[tokio::test]
async fn a_service_whose_clock_has_jumped_is_not_believed() {
    let Scene { mut vendor, sealed, scratch: _scratch, .. } = Scene::set().await;
    let (_, license) = vendor.license(PRODUCT, &["--lease", "3s", "--grace", "10m"]);
    let (child, stdout) = start_waiting(&vendor, &sealed, &license.display().to_string(), "embedded");
    vendor.stop_service();
    vendor.serve_ahead(3);
    let (code, rest, stderr) = finish(child, stdout);
    assert_eq!((code, rest.as_str()), (127, "stopped\n"), "{stderr}");
    assert!(stderr.contains("have parted") && stderr.contains("has gone on by 18"), "{stderr}");
    assert!(stderr.contains("was set forward") && stderr.contains("hint: start the workload again"), "{stderr}");
    vendor.assert_nothing_left();
}

/// To the shim it is the same whether the service's clock goes ten times too fast or its own goes at a tenth.
#[tokio::test]
async fn a_guest_whose_clock_is_slowed_by_its_host_stops_at_its_next_renewal() {
    let Scene { mut vendor, sealed, scratch: _scratch, .. } = Scene::set().await;
    let (_, license) = vendor.license(PRODUCT, &["--lease", "6s", "--grace", "10m"]);
    vendor.stop_service();
    vendor.serve_faster(10);
    let (child, stdout) = start_waiting(&vendor, &sealed, &license.display().to_string(), "embedded");
    let (code, _, stderr) = finish(child, stdout);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.contains("have parted") && stderr.contains("its host slows its clock"), "{stderr}");
    vendor.assert_nothing_left();
}

/// As licences were before there was a log: nothing is refused, and the shim says what that costs.
#[tokio::test]
async fn under_a_licence_without_a_log_key_a_jump_goes_unseen_and_the_shim_says_so() {
    let Scene { mut vendor, sealed, scratch, .. } = Scene::set().await;
    let (_, license) = vendor.license(PRODUCT, &["--lease", "3s", "--grace", "10m"]);
    let typ = "sealift-license+jwt";
    let token = fs::read_to_string(license).unwrap();
    let mut claims: Value = jose::jws::decode_unverified(token.trim(), typ).unwrap().claims().unwrap();
    assert!(claims["service"].as_object_mut().unwrap().remove("log_key").is_some());
    let key = fs::read_to_string(vendor.home().join("service/license.key")).unwrap();
    let key = jose::signing::SigningKey::from_pkcs8_pem(&key).unwrap();
    let old = scratch.path().join("old.jwt");
    fs::write(&old, jose::jws::sign(typ, &claims, &key).unwrap()).unwrap();

    let (mut child, stdout) = start_waiting(&vendor, &sealed, &old.display().to_string(), "embedded");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_words(&mut stderr, "the licence names no log key: nothing but this machine's own clock bounds the lease");
    vendor.stop_service();
    wait_for_words(&mut stderr, "the workload can go on for");
    vendor.serve_ahead(3);
    wait_for_words(&mut stderr, "the lease is renewed");
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(finish(child, stdout).0, 0);
}

#[tokio::test]
async fn a_workload_that_does_not_listen_is_killed_and_leaves_nothing() {
    let Scene { vendor, sealed, scratch: _scratch, .. } = Scene::set().await;
    for runtime in ["runc", "crun", "embedded"] {
        let (id, license) = vendor.license(PRODUCT, &["--lease", "1h"]);
        let (child, stdout) = start_stubborn(&vendor, &sealed, &license.display().to_string(), runtime);
        vendor.sealift(["license", "revoke", &id, "--reason", "returned"]).succeeded();
        // Its output ends when the last of its processes has.
        let (code, _, stderr) = finish(child, stdout);
        assert_eq!(code, 127, "{runtime}: {stderr}");
        assert!(stderr.contains("was stopped and its files removed"), "{runtime}: {stderr}");
        vendor.assert_nothing_left();
    }
}

/// The layers' keys are gone before the workload runs.
#[tokio::test]
async fn no_layer_key_is_left_in_the_memory_of_a_shim_whose_workload_runs() {
    let scene = Scene::set().await;
    let keys = layer_keys(&scene).await;
    assert_eq!(keys.len(), 4);
    let (child, stdout) = start_waiting(&scene.vendor, &scene.sealed, &scene.license, "runc");
    let shim = child_of(child.id());
    let memory = memory(shim);
    let finds = |bytes: &[u8]| memmem::find(&memory, bytes).is_some();
    // It sees what is there: the licence is kept for renewals.
    let license = fs::read(&scene.license).unwrap();
    assert!(finds(&license[license.len() - 60..license.len() - 20]), "the scan finds nothing");
    for (position, key) in keys.iter().enumerate() {
        assert!(!finds(key), "the key of layer {position}");
        assert!(!finds(STANDARD.encode(key).as_bytes()), "the key of layer {position} in base64");
    }
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(finish(child, stdout).0, 0);
}

/// Asks the shim's key provider, as skopeo would.
async fn layer_keys(scene: &Scene) -> Vec<Vec<u8>> {
    let manifest = manifest(&open(&scene.sealed).await).await;
    let packets = manifest
        .layers
        .iter()
        .map(|layer| layer.annotations["org.opencontainers.image.enc.keys.provider.attestation-agent"].clone());
    packets
        .map(|packet| {
            let request =
                json!({"op": "keyunwrap", "keyunwrapparams": {"dc": {"Parameters": {}}, "annotation": packet}});
            let args = ["keyprovider", "--image", &scene.sealed, "--license", &scene.license];
            let mut command = scene.vendor.guest_command(&scene.vendor.shim(), args);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
            let said = Said::from(child.wait_with_output().unwrap()).succeeded();
            let answer: Value = serde_json::from_str(&said.stdout).unwrap();
            let options = STANDARD.decode(answer["keyunwrapresults"]["optsdata"].as_str().unwrap()).unwrap();
            let options: Value = serde_json::from_slice(&options).unwrap();
            STANDARD.decode(options["symkey"].as_str().unwrap()).unwrap()
        })
        .collect()
}

/// The one child of the process that plays the machine.
fn child_of(machine: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{machine}/task/{machine}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

/// All that a process has written to its memory.
fn memory(process: u32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let file = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut memory = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut region = Vec::new();
        // What is not there any more ends the region.
        let _ = (&file).seek(SeekFrom::Start(start)).and_then(|_| (&file).take(end - start).read_to_end(&mut region));
        for page in region.chunks(4096).filter(|page| page.iter().any(|byte| *byte != 0)) {
            memory.extend_from_slice(page);
        }
    }
    memory
}

#[tokio::test]
async fn who_lists_a_part_of_the_leases_is_told_so() {
    let scene = Scene::set().await;
    for _ in 0..3 {
        assert_eq!(scene.run().code, 7, "the workload's own code");
    }
    let list = |args: &[&str]| {
        let said = scene.vendor.sealift(["--output", "json", "lease", "list"].iter().chain(args)).succeeded();
        let leases: Vec<Value> = serde_json::from_str(&said.stdout).unwrap();
        let ids: Vec<_> = leases.iter().map(|lease| lease["id"].as_str().unwrap().to_owned()).collect();
        (ids, said.stderr.contains("there are more leases than these"))
    };
    let (all, told) = list(&["--all"]);
    assert_eq!((all.len(), told), (3, false));
    assert_eq!(list(&["--limit", "2"]), (all[..2].to_vec(), true));
    assert_eq!(list(&["--limit", "3"]), (all.clone(), false));
    assert_eq!(list(&[]), (all, false));
}
