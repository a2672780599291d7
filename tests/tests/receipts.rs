//! What the customer keeps: receipts that hold without the service, and a memory of its log that an old copy of the
//! database does not get past.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use end_to_end::peer::{Said, program, run};
use end_to_end::scene::Scene;

/// What the scene's image ends with.
const WORKLOAD_CODE: i32 = 7;

fn start(scene: &Scene, receipts: &Path) -> Said {
    let receipts = receipts.display().to_string();
    scene.vendor.guest(["run", &scene.sealed, "--license", &scene.license, "--receipts", &receipts])
}

fn files(directory: &Path, last: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.display().to_string().ends_with(last)).collect();
    files.sort();
    files
}

fn verify(file: &Path, license: &str) -> Said {
    run(Command::new(program("sealift-shim")).args(["receipt", "verify", "--license", license]).arg(file))
}

#[tokio::test]
async fn a_receipt_is_kept_and_holds_when_the_service_is_gone() {
    let mut scene = Scene::set().await;
    let receipts = scene.scratch.path().join("receipts");
    for _ in 0..2 {
        let said = start(&scene, &receipts);
        assert_eq!(said.code, WORKLOAD_CODE, "{}", said.stderr);
    }
    scene.vendor.stop_service();
    let kept = files(&receipts, ".receipt.json");
    assert_eq!((kept.len(), files(&receipts, ".log.json").len()), (2, 1));
    assert!(files(&receipts, ".partial").is_empty());
    let said = verify(&kept[0], &scene.license).succeeded();
    assert!(said.stdout.contains("lease_granted"), "{}", said.stdout);

    let text = std::fs::read_to_string(&kept[0]).unwrap();
    let entry = text.find("\"entry\": \"").unwrap() + 30;
    let flipped = if &text[entry..=entry] == "A" { "B" } else { "A" };
    let altered = receipts.join("altered.json");
    std::fs::write(&altered, format!("{}{flipped}{}", &text[..entry], &text[entry + 1..])).unwrap();
    verify(&altered, &scene.license).failed(4, "proves nothing");
    verify(Path::new("/nonexistent"), &scene.license).failed(3, "cannot read");
}

fn database(scene: &Scene) -> Vec<PathBuf> {
    ["sealift.db", "sealift.db-wal", "sealift.db-shm"].map(|name| scene.vendor.home().join("service").join(name)).into()
}

#[tokio::test]
async fn a_service_with_an_old_copy_of_its_database_is_refused() {
    let mut scene = Scene::set().await;
    let receipts = scene.scratch.path().join("receipts");
    scene.vendor.stop_service();
    let saved: Vec<Option<Vec<u8>>> = database(&scene).iter().map(|file| std::fs::read(file).ok()).collect();
    scene.vendor.serve();
    assert_eq!(start(&scene, &receipts).code, WORKLOAD_CODE);
    assert_eq!(start(&scene, &receipts).code, WORKLOAD_CODE);

    scene.vendor.stop_service();
    for (file, saved) in database(&scene).iter().zip(saved) {
        match saved {
            Some(bytes) => std::fs::write(file, bytes).unwrap(),
            None => drop(std::fs::remove_file(file)),
        }
    }
    // What it has signed is forgotten with it: the service does not notice.
    std::fs::remove_file(scene.vendor.home().join("service/log.head")).unwrap();
    scene.vendor.serve();
    start(&scene, &receipts).failed(124, "is not what it was");
    scene.vendor.assert_nothing_left();
    // Another machine, which has seen nothing, cannot know.
    let elsewhere = scene.scratch.path().join("elsewhere");
    assert_eq!(start(&scene, &elsewhere).code, WORKLOAD_CODE);
}
