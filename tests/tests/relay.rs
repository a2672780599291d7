//! A relay at a site: it holds seats of a vendor's licence, its guests run by it alone, and all ends with its authority.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::process::Child;
use std::time::Duration;

use end_to_end::clock::by_clock;
use end_to_end::meddler::Meddler;
use end_to_end::peer::run;
use end_to_end::relay::Relay;
use end_to_end::running::Running;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::waiting::{finish, start_waiting};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A process that ends by itself.
fn ended(mut child: Child) -> i32 {
    child.wait().unwrap().code().unwrap()
}

#[tokio::test]
async fn guests_run_by_the_relay_while_the_vendor_is_away_and_stop_when_it_is_revoked() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--seats", "1", "--lease", "6s", "--grace", "1m"]);
    let serving = relay.spawn(&scene);
    let license = relay.child_license();

    let (child, stdout) = start_waiting(&scene.vendor, &scene.sealed, &license, "embedded");
    let refused = scene.vendor.guest(["run", &scene.sealed, "--license", &license]);
    assert_eq!(refused.code, 125, "{}", refused.stderr);
    assert!(refused.stderr.contains("seats"), "{}", refused.stderr);

    // Longer than the guest's lease: only the relay can have renewed it.
    scene.vendor.stop_service();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let leases = relay.sealift(&["--output", "json", "lease", "list"]).succeeded();
    let leases: Vec<Value> = serde_json::from_str(&leases.stdout).unwrap();
    assert!(leases.iter().any(|lease| lease["state"] == "live" || lease["ended_at"].is_null()), "{leases:?}");
    assert!(relay.said().contains("the relay can go on for"));
    scene.vendor.serve();

    let issue = ["license", "issue", "--product", PRODUCT, "--customer", "site"];
    let refused = relay.sealift(&issue);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("changed by the vendor alone"), "{}", refused.stderr);
    assert_eq!(relay.keys(), "1");

    scene.vendor.sealift(["license", "revoke", &relay.id, "--reason", "returned"]).succeeded();
    let (code, _, stderr) = finish(child, stdout);
    assert_eq!(code, 127, "{stderr}");
    assert_eq!(ended(serving), 7, "{}", relay.said());
    let said = relay.said();
    assert!(said.contains("the relay lost its authority") && said.contains("returned"), "{said}");
    assert_eq!(relay.keys(), "0");
    assert!(!relay.home.join("child.license").exists());
    let refused = relay.sealift(&["serve", "--offline"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("is the home of a relay"), "{}", refused.stderr);
    let again = run(&mut relay.serve(&scene));
    assert_eq!(again.code, 5, "{}", again.stderr);
}

#[tokio::test]
async fn a_relay_ends_when_the_vendor_stays_away_and_serves_again_under_a_new_authority() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--lease", "3s", "--grace", "3s"]);
    let running = relay.start(&scene);
    let first = fs::read_to_string(relay.child_license()).unwrap();
    let said = scene.vendor.guest(["run", &scene.sealed, "--license", &relay.child_license()]);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
    scene.vendor.stop_service();
    relay.wait_for("the relay lost its authority", 1);
    drop(running);
    assert_eq!(relay.keys(), "0");
    scene.vendor.serve();
    let _running = relay.start(&scene);
    assert_ne!(fs::read_to_string(relay.child_license()).unwrap(), first);
    let said = scene.vendor.guest(["run", &scene.sealed, "--license", &relay.child_license()]);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
}

#[tokio::test]
async fn what_is_no_relays_licence_or_no_blank_home_makes_no_relay() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &[]);
    scene.vendor.stop_service();
    let license = relay.license.display().to_string();
    let serve = ["serve", "--allow-simulated", "--offline", "--relay", &license];
    scene.vendor.sealift(serve).failed(3, "has products or licences of its own");
    scene.vendor.serve();
    let mut wrong = relay;
    wrong.license = scene.license.clone().into();
    let said = run(&mut wrong.serve(&scene));
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("is for workloads, not for a relay"), "{}", said.stderr);
}

#[tokio::test]
async fn a_delegation_without_its_receipt_or_with_a_false_one_is_refused() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &[]);
    let meddler = Meddler::start(&mut scene.vendor, scene.scratch.path());
    for (wish, words) in [
        ("no-receipt", "the service gave no receipt for what it granted"),
        ("false-receipt", "the service's receipt proves nothing"),
    ] {
        meddler.wish(wish);
        run(&mut relay.serve(&scene)).failed(4, words);
        assert_eq!(relay.keys(), "0", "nothing was taken up");
    }
    meddler.wish("");
    // What was refused was given back: it is free.
    let _running = relay.start(&scene);
    let said = scene.vendor.guest(["run", &scene.sealed, "--license", &relay.child_license()]);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
}

#[tokio::test]
async fn a_vendor_with_an_old_copy_of_its_log_is_no_authority() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--lease", "3s", "--grace", "1s"]);
    let files = ["sealift.db", "sealift.db-wal", "sealift.db-shm"];
    let files = files.map(|name| scene.vendor.home().join("service").join(name));
    scene.vendor.stop_service();
    let saved = files.clone().map(|file| fs::read(file).ok());
    scene.vendor.serve();
    drop(relay.start(&scene));
    scene.vendor.stop_service();
    for (file, saved) in files.iter().zip(saved) {
        match saved {
            Some(bytes) => fs::write(file, bytes).unwrap(),
            None => drop(fs::remove_file(file)),
        }
    }
    // What it has signed is forgotten with it: the service does not notice.
    fs::remove_file(scene.vendor.home().join("service/log.head")).unwrap();
    scene.vendor.serve();
    run(&mut relay.serve(&scene)).failed(4, "is not what it was");
}

#[tokio::test]
async fn a_vendor_whose_clock_has_jumped_is_not_believed_and_all_ends() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--lease", "3s", "--grace", "10m"]);
    let serving = relay.spawn(&scene);
    let (child, stdout) = start_waiting(&scene.vendor, &scene.sealed, &relay.child_license(), "embedded");
    scene.vendor.stop_service();
    scene.vendor.serve_ahead(3);
    assert_eq!(ended(serving), 7, "{}", relay.said());
    let said = relay.said();
    assert!(said.contains("have parted") && said.contains("was set forward"), "{said}");
    assert_eq!((finish(child, stdout).0, relay.keys().as_str()), (127, "0"));
}

/// Else its host could have leases lapse in its books while its guests live on, and their seats given out again.
#[tokio::test]
async fn a_relays_books_go_by_the_vendors_time_whatever_its_host_says() {
    let scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &[]);
    let log = scene.scratch.path().join("ahead.log");
    let _running = Running::start(&mut by_clock(&relay.serve(&scene), "+3h", &[]), &log);
    let said = scene.vendor.guest(["run", &scene.sealed, "--license", &relay.child_license()]);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
    let entries = relay.sealift(&["--output", "json", "audit", "list"]).succeeded().stdout;
    let entries: Vec<Value> = serde_json::from_str(&entries).unwrap();
    let granted = entries.iter().find(|entry| entry["kind"] == "lease_granted").unwrap();
    let at: Timestamp = granted["at"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(at).as_secs().abs() < 60, "{granted}");
}

fn signal(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_relay_that_is_stopped_gives_its_lease_back_or_says_what_stays() {
    let scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--lease", "4s", "--grace", "4s"]);
    let serving = relay.spawn(&scene);
    signal(serving.id(), Signal::TERM);
    assert_eq!(ended(serving), 0, "{}", relay.said());
    assert!(relay.said().contains("the relay's authority is given back"), "{}", relay.said());
    assert!(!relay.home.join("relay.key").exists());

    // Another guest gets it at once.
    let serving = relay.spawn(&scene);
    let (mut child, stdout) = start_waiting(&scene.vendor, &scene.sealed, &relay.child_license(), "embedded");
    signal(serving.id(), Signal::TERM);
    assert_eq!(ended(serving), 0, "{}", relay.said());
    assert!(relay.said().contains("guests of this relay run on until their own leases end"), "{}", relay.said());
    assert!(child.try_wait().unwrap().is_none(), "it runs on");
    run(&mut relay.other().serve(&scene)).failed(5, "another relay holds licence");
    let (code, _, stderr) = finish(child, stdout);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.contains("the lease was lost"), "{stderr}");
}

#[tokio::test]
async fn a_relay_that_crashed_goes_on_with_its_lease_in_its_own_guest_alone() {
    let scene = Scene::set().await;
    let relay = Relay::prepare_restarting(&scene, &["--seats", "1", "--lease", "6s", "--grace", "1m"]);
    let running = relay.start(&scene);
    let license = relay.child_license();
    let (mut child, stdout) = start_waiting(&scene.vendor, &scene.sealed, &license, "embedded");
    let before = relay.own_leases(&scene);
    signal(relay.process().try_into().unwrap(), Signal::KILL);
    relay.wait_for("going on with lease", 1);
    relay.wait_for("serving on", 2);
    assert_eq!(relay.own_leases(&scene), before, "it is the same lease");
    assert_eq!(relay.child_license(), license);

    // Longer than the guest's lease: the relay that was started again knows of it, and renews it.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(child.try_wait().unwrap().is_none(), "it is renewed");
    let refused = scene.vendor.guest(["run", &scene.sealed, "--license", &license]);
    assert_eq!(refused.code, 125, "{}", refused.stderr);
    assert!(refused.stderr.contains("seats"), "its seat is taken still: {}", refused.stderr);

    drop(running);
    run(&mut relay.serve(&scene)).failed(5, "another relay holds licence");
    assert_eq!(relay.own_leases(&scene), before);
    signal(child.id(), Signal::TERM);
    drop(finish(child, stdout));
}

/// When requests came from the `from`th on.
fn gaps(meddler: &Meddler, from: usize) -> Vec<f64> {
    let times: Vec<f64> = meddler.requests()[from..].iter().map(|(at, _)| *at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test]
async fn a_vendor_that_asks_to_be_asked_later_is_asked_later() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--lease", "3s", "--grace", "10m"]);
    let meddler = Meddler::start(&mut scene.vendor, scene.scratch.path());
    meddler.wish("busy 2");
    let starting = relay.spawn_early(&scene);
    while meddler.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    meddler.wish("");
    relay.wait_for("serving on", 1);
    assert!(gaps(&meddler, 0)[0] > 1.9, "{:?}", meddler.requests());

    meddler.wish("busy 4");
    let before = meddler.requests().len();
    relay.wait_for("the relay can go on for", 1);
    let during = gaps(&meddler, before);
    assert!(!during.is_empty() && during.iter().all(|gap| *gap > 3.9), "{:?}", meddler.requests());
    meddler.wish("");
    relay.wait_for("the vendor's service is back", 1);
    signal(starting.id(), Signal::TERM);
    assert_eq!(ended(starting), 0, "{}", relay.said());
}

#[tokio::test]
async fn what_ran_under_a_relay_is_proven_by_the_relays_log_and_the_vendors() {
    let scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &[]);
    let serving = relay.spawn(&scene);
    let said = scene.vendor.guest(["run", &scene.sealed, "--license", &relay.child_license()]);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
    let file = |name: &str| scene.scratch.path().join(name).display().to_string();
    let (above, below, of_workload, of_other) = (file("above"), file("below"), file("workload"), file("other"));
    let export = ["audit", "export", "--image", &scene.sealed, "--lease"];
    relay.sealift(&[&export[..], &[&relay.leases()[0], &below]].concat()).succeeded();
    let own = relay.own_leases(&scene).remove(0);
    scene.vendor.sealift(["audit", "export", "--lease", &own, &above]).succeeded();
    let root = scene.vendor.home().join("simulated-platform/ark.der").display().to_string();
    let verify = |file: &str, more: &[&str]| {
        scene.vendor.sealift(["audit", "verify", file, "--roots", &root].iter().chain(more))
    };

    let said = verify(&above, &[]).succeeded().stdout;
    assert!(said.contains("its seats go to guests of its own") && said.contains(&own), "{said}");
    let said = verify(&below, &["--relay", &above]).succeeded().stdout;
    assert!(said.contains("under   relay https://") && said.contains(&own), "{said}");
    assert!(said.contains("image signed by") && said.contains("key_released"), "{said}");

    // The vendor's keys alone know nothing of the relay's log, nor does a lease of something else stand for it.
    verify(&below, &[]).failed(4, "names another log key");
    assert_eq!(scene.run().code, 7);
    let workload = scene.vendor.sealift(["--output", "json", "lease", "list", "--limit", "1"]).succeeded().stdout;
    let workload: Value = serde_json::from_str(&workload).unwrap();
    let workload = [&export[..], &[workload[0]["id"].as_str().unwrap(), &of_workload]].concat();
    scene.vendor.sealift(workload).succeeded();
    verify(&below, &["--relay", &of_workload]).failed(4, "it is of a workload, no relay's");

    // Nor does another relay's, or this one's at another time.
    signal(serving.id(), Signal::TERM);
    assert_eq!(ended(serving), 0);
    let other = relay.other();
    let serving = other.spawn(&scene);
    let lease = relay.own_leases(&scene).remove(0);
    scene.vendor.sealift(["audit", "export", "--lease", &lease, &of_other]).succeeded();
    verify(&below, &["--relay", &of_other]).failed(4, "names another log key");
    verify(&below, &["--relay", &above, "--relay", &of_other]).failed(4, "the leases are of several relays");
    signal(serving.id(), Signal::TERM);
    assert_eq!(ended(serving), 0);
    let serving = relay.spawn(&scene);
    let lease = relay.own_leases(&scene).remove(0);
    let later = file("later");
    scene.vendor.sealift(["audit", "export", "--lease", &lease, &later]).succeeded();
    verify(&below, &["--relay", &later]).failed(4, "when the relay held none of the leases");
    verify(&below, &["--relay", &later, "--relay", &above]).succeeded();
    signal(serving.id(), Signal::TERM);
    assert_eq!(ended(serving), 0);
}
