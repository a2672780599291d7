//! Evidence that must not count, seen from the shim's side: stale, foreign, replayed, made for another key.

use end_to_end::device::{launch, run_with_device};
use end_to_end::peer::run;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::vendor::Vendor;
use launch_evidence::simulated::LaunchOptions;

/// What the scene's image ends with.
const WORKLOAD_CODE: i32 = 7;

#[tokio::test]
async fn a_device_that_does_not_meddle_serves() {
    let scene = Scene::set().await;
    let guest = launch(&scene.vendor, scene.scratch.path(), LaunchOptions::default());
    let args = ["run", &scene.sealed, "--license", &scene.license];
    let said =
        run_with_device(scene.vendor.bare_shim(), scene.scratch.path(), &args, |data| guest.evidence(data).unwrap());
    assert_eq!(said.code, WORKLOAD_CODE, "{}", said.stderr);
}

#[tokio::test]
async fn a_report_that_was_made_for_another_key_is_refused() {
    let scene = Scene::set().await;
    let guest = launch(&scene.vendor, scene.scratch.path(), LaunchOptions::default());
    let args = ["run", &scene.sealed, "--license", &scene.license];
    let said = run_with_device(scene.vendor.bare_shim(), scene.scratch.path(), &args, |data| {
        let mut other = *data;
        other[0] ^= 1;
        guest.evidence(&other).unwrap()
    });
    said.failed(124, "report-data");
    scene.vendor.assert_nothing_left();
    assert!(scene.vendor.sealift(["lease", "list"]).succeeded().stdout.lines().all(|line| !line.contains("live")));
}

#[tokio::test]
async fn a_report_of_an_earlier_run_is_refused() {
    let scene = Scene::set().await;
    let guest = launch(&scene.vendor, scene.scratch.path(), LaunchOptions::default());
    let args = ["run", &scene.sealed, "--license", &scene.license];
    let mut earlier = None;
    let first = run_with_device(scene.vendor.bare_shim(), scene.scratch.path(), &args, |data| {
        earlier.get_or_insert_with(|| guest.evidence(data).unwrap()).clone()
    });
    assert_eq!(first.code, WORKLOAD_CODE, "{}", first.stderr);
    std::fs::remove_file(scene.scratch.path().join("device")).unwrap();
    let again = run_with_device(scene.vendor.bare_shim(), scene.scratch.path(), &args, |_| earlier.clone().unwrap());
    again.failed(124, "report-data");
    scene.vendor.assert_nothing_left();
}

#[tokio::test]
async fn a_stale_nonce_is_refused() {
    let mut scene = Scene::set().await;
    let guest = launch(&scene.vendor, scene.scratch.path(), LaunchOptions::default());
    let args = ["run", &scene.sealed, "--license", &scene.license];
    let shim = scene.vendor.bare_shim();
    let vendor = &mut scene.vendor;
    let said = run_with_device(shim, scene.scratch.path(), &args, |data| {
        vendor.stop_service();
        vendor.serve_ahead(6);
        guest.evidence(data).unwrap()
    });
    said.failed(124, "s old, an answer is accepted within 300 s");
    scene.vendor.assert_nothing_left();
}

#[tokio::test]
async fn a_nonce_of_another_service_is_refused() {
    let mut scene = Scene::set().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut other = Vendor::start(elsewhere.path(), &[PRODUCT]);
    let guest = launch(&scene.vendor, scene.scratch.path(), LaunchOptions::default());
    let args = ["run", &scene.sealed, "--license", &scene.license];
    let shim = scene.vendor.bare_shim();
    let vendor = &mut scene.vendor;
    let said = run_with_device(shim, scene.scratch.path(), &args, |data| {
        vendor.give_way_to(&mut other);
        guest.evidence(data).unwrap()
    });
    said.failed(124, "the nonce is not one of this service's");
    scene.vendor.assert_nothing_left();
}

#[tokio::test]
async fn initialisation_data_are_bound_to_the_launch() {
    let scene = Scene::set().await;
    let file = scene.scratch.path().join("init-data.toml");
    std::fs::write(&file, "tenant = \"one\"\n").unwrap();
    let launch = |told: Option<&std::path::Path>| {
        let mut command = scene.vendor.command(["simulate", "launch", "--init-data"]);
        command.arg(&file).arg("--initrd").arg(scene.vendor.shim()).arg("--");
        command.args(["run", &scene.sealed, "--license", &scene.license]);
        if let Some(told) = told {
            command.arg("--init-data").arg(told);
        }
        run(command.env("SEALIFT_STATE_DIR", scene.vendor.state_directory()))
    };
    let said = launch(None);
    assert_eq!(said.code, WORKLOAD_CODE, "{}", said.stderr);
    // The guest says something else than what the host had passed.
    let other = scene.scratch.path().join("other.toml");
    std::fs::write(&other, "tenant = \"two\"\n").unwrap();
    launch(Some(&other)).failed(124, "host-data");
    launch(Some(std::path::Path::new("/nonexistent"))).failed(123, "cannot read the initialisation data");
    scene.vendor.assert_nothing_left();
}
