//! Secrets beside image keys, from the vendor's command to the workload's file; and initialisation data that a vendor approves.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use end_to_end::peer::Said;
use end_to_end::process::started_by;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::waiting::{finish, start_waiting_with};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A secret that no other test has, nor an earlier run: they keep theirs in the same memory.
fn new_secret() -> String {
    format!("password of the database {:016x}\n", RandomState::new().hash_one(0))
}

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
    said
}

/// Where the secret is kept.
fn copies_in_memory(secret: &str) -> Vec<PathBuf> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_guests = |path: &PathBuf| path.display().to_string().ends_with("-secrets");
    let directories = ["/dev/shm", "/run"].into_iter().flat_map(|base| entries(Path::new(base))).filter(of_guests);
    let files = directories.flat_map(|directory| entries(&directory).collect::<Vec<_>>());
    files.filter(|file| std::fs::read(file).is_ok_and(|content| content == secret.as_bytes())).collect()
}

#[tokio::test]
async fn a_workload_reads_the_secret_that_the_vendor_put_and_nothing_of_it_stays() {
    let scene = Scene::set().await;
    let secret = new_secret();
    let put = put(&scene, "config/database", &secret).succeeded();
    assert_eq!(put.stdout, format!("kbs:///{PRODUCT}/config/database\n"));
    for runtime in ["runc", "embedded"] {
        let said = run_with(&scene, &format!("config/database={PRINTED}"), runtime);
        assert_eq!(said.code, 7, "{}", said.stderr);
        assert_eq!(copies_in_memory(&secret), Vec::<PathBuf>::new());
        assert!(said.stdout.contains(&secret), "{}", said.stdout);
        assert!(!said.stderr.contains(secret.trim()));
    }
    let listed = scene.vendor.sealift(["secret", "list", "--product", PRODUCT]).succeeded().stdout;
    assert!(listed.contains(&format!("recipe/config/database  {}", secret.len())), "{listed}");
    scene.vendor.sealift(["secret", "remove", "--product", PRODUCT, "config/database"]).succeeded();
    run_with(&scene, &format!("config/database={PRINTED}"), "runc").failed(125, "does not know the key or secret");
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_workload_files_and_secrets_with_it() {
    let scene = Scene::set().await;
    let secret = new_secret();
    put(&scene, "config/database", &secret).succeeded();
    for runtime in ["runc", "crun", "embedded"] {
        let more = ["--secret", &format!("config/database={PRINTED}"), "--runtime", runtime];
        // A licence of its own: a seat is free again only when its lease is over.
        let (_, license) = scene.vendor.license(PRODUCT, &[]);
        let license = license.display().to_string();
        let (child, stdout) = start_waiting_with(&scene.vendor, &scene.sealed, &license, &more);
        let [instance] = &children(&scene.vendor.state_directory())[..] else { panic!("not one instance") };
        let [copy] = &copies_in_memory(&secret)[..] else { panic!("not one copy") };
        let secrets = copy.parent().unwrap().to_owned();

        let shims = started_by(&["run", &scene.sealed]);
        let shims: Vec<_> = shims.into_iter().filter(|pid| *pid != child.id()).collect();
        let [shim] = shims[..] else { panic!("not one shim: {shims:?}") };
        kill_process(Pid::from_raw(shim.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
        // The workload has the other end of it.
        let (code, ..) = finish(child, stdout);
        assert_ne!(code, 0, "{runtime}");
        let until = Instant::now() + Duration::from_secs(30);
        while instance.exists() || secrets.exists() {
            assert!(Instant::now() < until, "{runtime}: {} or {}", instance.display(), secrets.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        scene.vendor.assert_nothing_left();
        assert_eq!(copies_in_memory(&secret), Vec::<PathBuf>::new());
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn names_and_places_that_cannot_be_are_refused_before_anything_is_asked() {
    let scene = Scene::set().await;
    put(&scene, "config", "a secret").failed(2, "names no secret");
    put(&scene, "image-key/key-1", "a secret").failed(2, "are the image keys");
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
