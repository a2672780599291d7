//! Secrets beside image keys, from the vendor's command to the workload's file; and initialisation data that a vendor approves.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use end_to_end::peer::Said;
use end_to_end::scene::{PRODUCT, Scene};
use serde_json::Value;

const SECRET: &str = "password of the database\n";
/// The image's program prints this file.
const PRINTED: &str = "/opt/opaque/upper";

fn put(scene: &Scene, name: &str, content: &str) -> Said {
    let file = scene.scratch.path().join("secret");
    std::fs::write(&file, content).unwrap();
    scene.vendor.sealift(["secret", "put", "--product", PRODUCT, name, &file.display().to_string()])
}

fn run_with(scene: &Scene, secret: &str, runtime: &str) -> Said {
    let said = scene.vendor.guest([
        "run",
        &scene.sealed,
        "--license",
        &scene.license,
        "--secret",
        secret,
        "--runtime",
        runtime,
    ]);
    scene.vendor.assert_nothing_left();
    assert_eq!(secrets_in_memory(), Vec::<String>::new());
    said
}

fn secrets_in_memory() -> Vec<String> {
    let names = |base: &str| std::fs::read_dir(Path::new(base)).unwrap().flatten().map(|entry| entry.file_name());
    let all = names("/dev/shm").chain(names("/run")).map(|name| name.to_string_lossy().into_owned());
    all.filter(|name| name.starts_with("sealift-secrets-")).collect()
}

#[tokio::test]
async fn a_workload_reads_the_secret_that_the_vendor_put_and_nothing_of_it_stays() {
    let scene = Scene::set().await;
    let put = put(&scene, "config/database", SECRET).succeeded();
    assert_eq!(put.stdout, format!("kbs:///{PRODUCT}/config/database\n"));
    for runtime in ["runc", "embedded"] {
        let said = run_with(&scene, &format!("config/database={PRINTED}"), runtime);
        assert_eq!(said.code, 7, "{}", said.stderr);
        assert!(said.stdout.contains(SECRET), "{}", said.stdout);
        assert!(!said.stderr.contains(SECRET.trim()));
    }
    let listed = scene.vendor.sealift(["secret", "list", "--product", PRODUCT]).succeeded().stdout;
    assert!(listed.contains("recipe/config/database  25"), "{listed}");
    scene.vendor.sealift(["secret", "remove", "--product", PRODUCT, "config/database"]).succeeded();
    run_with(&scene, &format!("config/database={PRINTED}"), "runc").failed(125, "does not know the key or secret");
}

#[tokio::test]
async fn names_and_places_that_cannot_be_are_refused_before_anything_is_asked() {
    let scene = Scene::set().await;
    put(&scene, "config", SECRET).failed(2, "names no secret");
    put(&scene, "image-key/key-1", SECRET).failed(2, "are the image keys");
    put(&scene, "config/empty", "").failed(3, "is empty or has more than");
    run_with(&scene, "config/database=relative", "runc").failed(122, "no absolute path");
    run_with(&scene, "config/database=/proc/x", "runc").failed(122, "is the kernel's");
    run_with(&scene, "kbs:///other/config/database=/x", "runc").failed(125, "does not know the key or secret");
}

#[tokio::test]
async fn initialisation_data_are_approved_by_their_digest_once_they_name_licence_and_image() {
    let scene = Scene::set().await;
    let file = scene.scratch.path().join("initdata.toml");
    let add = |body: &str| {
        std::fs::write(&file, body).unwrap();
        let file = file.display().to_string();
        scene.vendor.sealift(["--output", "json", "reference", "add", "--product", PRODUCT, "--init-data", &file])
    };
    add("[data]\n\"sealift.license\" = \"token\"\n").failed(3, "name no licence and no image");
    let license = std::fs::read_to_string(&scene.license).unwrap();
    let digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
    let body = format!("[data]\n\"sealift.license\" = \"{}\"\n\"sealift.manifest\" = \"{digest}\"\n", license.trim());
    let added: Value = serde_json::from_str(&add(&body).succeeded().stdout).unwrap();
    assert_eq!((&added["kind"], added["init_data"].as_str().unwrap().len()), (&"init-data".into(), 64));
    let listed = scene.vendor.sealift(["reference", "list", "--product", PRODUCT]).succeeded().stdout;
    assert!(listed.contains("initialisation data"), "{listed}");
}
