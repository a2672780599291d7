//! The service's database copied while it runs, put back, and refused where it is older than what was signed.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use end_to_end::scene::Scene;
use serde_json::Value;

fn entries(said: &str) -> u64 {
    serde_json::from_str::<Value>(said).unwrap()["entries"].as_u64().unwrap()
}

#[tokio::test]
async fn a_copy_made_under_a_running_service_is_put_back_and_goes_on() {
    let mut scene = Scene::set().await;
    assert_eq!(scene.run().code, 7);
    let copy = scene.scratch.path().join("copy.db").display().to_string();
    let copied = entries(&scene.vendor.sealift(["--output", "json", "backup", &copy]).succeeded().stdout);
    scene.vendor.sealift(["backup", &copy]).failed(3, "exists already");
    scene.vendor.sealift(["restore", &copy]).failed(3, "a service runs on this home");

    // A second service on the home is told so, too.
    scene
        .vendor
        .sealift(["serve", "--offline", "--listen", "127.0.0.1:0"])
        .failed(1, "another service runs on this home's database");

    scene.vendor.stop_service();
    fs::remove_file(scene.vendor.home().join("service/sealift.db")).unwrap();
    for rest in ["service/sealift.db-wal", "service/sealift.db-shm"] {
        let _ = fs::remove_file(scene.vendor.home().join(rest));
    }
    let restored = entries(&scene.vendor.sealift(["--output", "json", "restore", &copy]).succeeded().stdout);
    assert_eq!(restored, copied);
    scene.vendor.serve();
    assert_eq!(scene.run().code, 7);
}

#[tokio::test]
async fn an_older_copy_is_not_put_back_nor_served() {
    let mut scene = Scene::set().await;
    let copy = scene.scratch.path().join("copy.db").display().to_string();
    let copied = entries(&scene.vendor.sealift(["--output", "json", "backup", &copy]).succeeded().stdout);
    assert_eq!(scene.run().code, 7);
    scene.vendor.stop_service();
    let database = scene.vendor.home().join("service/sealift.db");
    let before = fs::read(&database).unwrap();
    scene.vendor.sealift(["restore", &copy]).failed(4, &format!("holds {copied} entries of the audit log, but"));
    assert_eq!(fs::read(&database).unwrap(), before, "nothing was replaced");

    // Past the command: the service itself finds out.
    for rest in ["service/sealift.db-wal", "service/sealift.db-shm"] {
        let _ = fs::remove_file(scene.vendor.home().join(rest));
    }
    fs::copy(&copy, &database).unwrap();
    scene.vendor.sealift(["serve", "--offline"]).failed(1, "it is an older copy");

    scene.vendor.sealift(["restore", &scene.license]).failed(3, "cannot be copied");

    // Where nothing newer is to be had: another log, under another key.
    for file in ["log.key", "log.pub", "log.head"] {
        let file = scene.vendor.home().join("service").join(file);
        fs::rename(&file, file.with_extension(format!("{}-old", file.extension().unwrap().display()))).unwrap();
    }
    scene.vendor.sealift(["restore", &copy]).succeeded();
    scene.vendor.serve();
    scene.vendor.sealift(["audit", "prove", "1"]).succeeded();
    // The old licence names the old key.
    assert_eq!(scene.run().code, 124);
    let product = end_to_end::scene::PRODUCT;
    let (_, license) = scene.vendor.license(product, &[]);
    assert_eq!(scene.run_with(&license.display().to_string()).code, 7);
}
