//! Bad input, one test each: the message, the exit code, and nothing left behind. `run` adds 120 to its own codes.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use end_to_end::cut::{CuttingProxy, Then};
use end_to_end::forge::base64;
use end_to_end::image::{create, flip, manifest, open};
use end_to_end::peer::{peer, program, run};
use end_to_end::registry::{Registry, free_port};
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::vendor::Vendor;
use end_to_end::waiting::{finish, start_waiting};

#[tokio::test]
async fn a_truncated_layer_is_refused() {
    let scene = Scene::set().await;
    let blob = scene.blob_of_layer(2).await;
    let length = std::fs::metadata(&blob).unwrap().len();
    std::fs::File::options().write(true).open(&blob).unwrap().set_len(length - 1).unwrap();
    scene.run().failed(124, "cannot");
    let seats = scene.vendor.sealift(["license", "list"]).succeeded().stdout;
    assert!(seats.contains("0/1"), "the seat is given back: {seats}");
}

#[tokio::test]
async fn a_flipped_ciphertext_byte_is_refused() {
    let scene = Scene::set().await;
    flip(&scene.blob_of_layer(0).await, 1000);
    scene.run().failed(124, "digest");
}

#[tokio::test]
async fn what_is_only_verified_is_checked_to_its_last_layer_and_nothing_is_written() {
    let scene = Scene::set().await;
    let empty = scene.scratch.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let verify = |more: &[&str]| {
        let args = ["--output", "json", "unpack", &scene.sealed, "--verify-only", "--license", &scene.license];
        let mut command = scene.vendor.guest_command(&program("sealift-shim"), args.iter().chain(more));
        let said = run(command.current_dir(&empty).env("SEALIFT_STATE_DIR", empty.join("state")));
        assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "something was written");
        said
    };
    let said: serde_json::Value = serde_json::from_str(&verify(&[]).succeeded().stdout).unwrap();
    let layers = said["layers"].as_array().unwrap();
    let sealed = manifest(&open(&scene.sealed).await).await.layers;
    assert_eq!(layers.len(), sealed.len());
    for (layer, descriptor) in layers.iter().zip(&sealed) {
        assert_eq!(layer["digest"], descriptor.digest.to_string());
        assert_eq!(layer["verified"], serde_json::json!(["digest", "hmac", "plain_digest", "diff_id"]));
        assert!(layer["plain_bytes"].as_u64().unwrap() >= 1024, "{layer}");
    }
    assert_eq!(said["signers"].as_array().unwrap().len(), 1);
    verify(&["elsewhere"]).failed(2, "cannot be used with");

    flip(&scene.blob_of_layer(sealed.len() - 1).await, 100);
    verify(&[]).failed(4, "digest");
    let seats = scene.vendor.sealift(["license", "list"]).succeeded().stdout;
    assert!(seats.contains("0/1"), "the seat is given back: {seats}");
}

#[tokio::test]
async fn a_flipped_hmac_is_refused_with_the_manifest_that_carries_it() {
    let scene = Scene::set().await;
    scene
        .change_manifest(|manifest| {
            let options = manifest.layers[0].annotations.get_mut("org.opencontainers.image.enc.pubopts").unwrap();
            let at = options.len() - 20;
            let flipped = if &options[at..=at] == "A" { "B" } else { "A" };
            options.replace_range(at..=at, flipped);
        })
        .await;
    scene.run().failed(124, "is not signed");
}

#[tokio::test]
async fn swapped_layers_are_refused() {
    let scene = Scene::set().await;
    scene.change_manifest(|manifest| manifest.layers.swap(1, 2)).await;
    scene.run().failed(124, "is not signed");
}

#[tokio::test]
async fn a_plain_layer_in_the_place_of_a_sealed_one_is_refused() {
    let scene = Scene::set().await;
    let plain = open(&scene.plain.reference("mixed")).await;
    let layer = manifest(&plain).await.layers[0].clone();
    create(&scene.sealed).await.copy_blob(&plain, &layer).await.unwrap();
    scene.change_manifest(|manifest| manifest.layers[0] = layer).await;
    scene.run().failed(124, "is not signed");
}

#[tokio::test]
async fn an_unsigned_image_is_refused_before_anything_is_asked_for() {
    let scene = Scene::set().await;
    let copy = format!("oci:{}:v1", scene.scratch.path().join("unsigned").display());
    run(peer("skopeo").args(["copy", &scene.sealed, &copy])).succeeded();
    let said = scene.vendor.guest(["run", &copy, "--license", &scene.license]);
    said.failed(124, "is not signed");
    assert!(!scene.vendor.sealift(["audit", "list"]).stdout.contains("lease_granted"));
}

#[tokio::test]
async fn an_image_of_another_signer_is_refused() {
    let scene = Scene::set().await;
    let other = tempfile::tempdir().unwrap();
    let stranger = Vendor::start(other.path(), &[PRODUCT]);
    let sealed = format!("oci:{}:v1", other.path().join("sealed").display());
    stranger.pack(&scene.plain.reference("mixed"), &sealed, PRODUCT);
    let said = scene.vendor.guest(["run", &sealed, "--license", &scene.license]);
    said.failed(124, "by none of the keys in the licence");
    scene.vendor.sealift(["verify", &sealed]).failed(4, "by none of the given keys");
}

#[tokio::test]
async fn licences_that_do_not_hold_are_denied_each_with_its_reason() {
    let scene = Scene::set().await;
    let (_, expired) =
        scene.vendor.license(PRODUCT, &["--from", "2020-01-01T00:00:00Z", "--until", "2020-02-01T00:00:00Z"]);
    scene.run_with(&expired.display().to_string()).failed(125, "expired");
    let (_, early) =
        scene.vendor.license(PRODUCT, &["--from", "2099-01-01T00:00:00Z", "--until", "2099-02-01T00:00:00Z"]);
    scene.run_with(&early.display().to_string()).failed(125, "holds from");
    let (_, other) = scene.vendor.license("other", &[]);
    scene.run_with(&other.display().to_string()).failed(125, "does not cover");
    let (id, revoked) = scene.vendor.license(PRODUCT, &[]);
    scene.vendor.sealift(["license", "revoke", &id, "--reason", "returned"]).succeeded();
    scene.run_with(&revoked.display().to_string()).failed(125, "was revoked");
    let (_, chip) = scene.vendor.license(PRODUCT, &["--platform", &"ab".repeat(64)]);
    scene.run_with(&chip.display().to_string()).failed(125, "bound to other chips");
    let denied = scene.vendor.sealift(["audit", "list"]).succeeded().stdout.matches(" denied ").count();
    assert_eq!(denied, 5, "every denial is recorded");
}

#[tokio::test]
async fn a_licence_that_was_edited_is_denied_and_one_that_is_none_is_refused() {
    let scene = Scene::set().await;
    let edited = scene.scratch.path().join("edited.jwt");
    let token = std::fs::read_to_string(&scene.license).unwrap();
    let (body, signature) = token.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    std::fs::write(&edited, format!("{body}.{flipped}{}", &signature[1..])).unwrap();
    scene.run_with(&edited.display().to_string()).failed(125, "not issued by this service");
    std::fs::write(&edited, "not a token").unwrap();
    scene.run_with(&edited.display().to_string()).failed(123, "is no licence");
    scene.run_with("/nonexistent").failed(123, "cannot read the licence");
}

#[tokio::test]
async fn a_service_out_of_reach_is_worth_a_retry() {
    let mut scene = Scene::set().await;
    scene.vendor.stop_service();
    scene.run().failed(126, "does not answer");
    let target = format!("oci:{}:v2", scene.scratch.path().join("later").display());
    let said = scene.vendor.sealift(["pack", &scene.plain.reference("mixed"), &target, "--product", PRODUCT]);
    said.failed(6, "does not answer");
    assert!(!scene.scratch.path().join("later").exists(), "nothing was written");
}

#[tokio::test]
async fn a_service_with_a_certificate_of_another_authority_is_refused() {
    let mut scene = Scene::set().await;
    scene.vendor.stop_service();
    let other = tempfile::tempdir().unwrap();
    let impostor = Vendor::start(other.path(), &[]);
    // The impostor takes the place of the service's certificate, not of its authority.
    for file in ["tls.pem", "tls.key"] {
        std::fs::copy(impostor.home().join("service").join(file), scene.vendor.home().join("service").join(file))
            .unwrap();
    }
    scene.vendor.serve();
    scene.run().failed(124, "certificate that the licence's authority did not issue");
}

#[tokio::test]
async fn seats_are_counted() {
    let scene = Scene::set().await;
    // It runs, so that it hears the signal.
    let (first, stdout) = start_waiting(&scene.vendor, &scene.sealed, &scene.license, "runc");
    let second = scene.vendor.guest(["run", &scene.sealed, "--license", &scene.license]);
    let pid = rustix::process::Pid::from_raw(i32::try_from(first.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    finish(first, stdout);
    second.failed(125, "all seats of the licence are taken");
}

/// A file system of a few megabytes, unmounted with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Self {
        std::fs::create_dir(path).unwrap();
        run(peer("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(path)).succeeded();
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_unpacking_and_nothing_stays() {
    let scene = Scene::set().await;
    let disk = SmallDisk::mount(&scene.scratch.path().join("disk"));
    let args = ["run", &scene.sealed, "--license", &scene.license];
    let mut command = scene.vendor.guest_command(&program("sealift-shim"), args);
    run(command.env("SEALIFT_STATE_DIR", &disk.0)).failed(121, "No space left");
    assert_eq!(std::fs::read_dir(&disk.0).unwrap().count(), 0);
}

#[tokio::test]
async fn a_connection_that_drops_in_a_layer_is_taken_up_again_and_one_that_stays_away_is_worth_a_retry() {
    let scene = Scene::set().await;
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    run(peer("skopeo").args(["copy", "--dest-tls-verify=false", &scene.sealed, &registry.reference("recipe:v1")]))
        .succeeded();
    let digest = open(&scene.sealed).await.resolve().await.unwrap().digest;
    let signature = format!("sha256-{}.sig", digest.hex());
    let from = scene.sealed.replace(":v1", &format!(":{signature}"));
    let to = registry.reference(&format!("recipe:{signature}"));
    run(peer("skopeo").args(["copy", "--dest-tls-verify=false", &from, &to])).succeeded();

    // Manifests are smaller than this, the layer with busybox is larger.
    let bytes = 64 << 10;
    let seldom = CuttingProxy::start(registry.port(), bytes, 2, Then::Heal);
    let license = &scene.license;
    let said = scene.vendor.guest(["run", &seldom.reference("recipe:v1"), "--license", license]);
    assert_eq!((said.code, seldom.cuts()), (7, 2), "the workload's own code, after two cuts: {}", said.stderr);
    let broken = CuttingProxy::start(registry.port(), bytes, 1, Then::Fail);
    let said = scene.vendor.guest(["run", &broken.reference("recipe:v1"), "--license", license]);
    said.failed(126, "the connection failed");
    scene.vendor.assert_nothing_left();
    assert!(broken.cuts() > 1, "it tried again");
}

#[tokio::test]
async fn options_that_an_attacker_could_have_written_are_named_as_unusable() {
    let scene = Scene::set().await;
    let options = r#"{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","cipheroptions":{"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}}"#;
    scene
        .change_manifest(|manifest| {
            let annotations = &mut manifest.layers[0].annotations;
            annotations.insert("org.opencontainers.image.enc.pubopts".to_owned(), base64(options.as_bytes()));
            let packet = r#"{"kid":"kbs:///recipe/image-key/1","wrapped_data":"AAAA","iv":"AAAA","wrap_type":"ROT13"}"#;
            let name = "org.opencontainers.image.enc.keys.provider.attestation-agent";
            manifest.layers[1].annotations.insert(name.to_owned(), base64(packet.as_bytes()));
        })
        .await;
    let inspected = scene.vendor.sealift(["inspect", &scene.sealed]).succeeded().stdout;
    assert_eq!(inspected.matches("UNUSABLE").count(), 2, "{inspected}");
}

#[tokio::test]
async fn absurd_sizes_in_a_manifest_are_refused() {
    let scene = Scene::set().await;
    for (size, number) in [("-1", 1), ("9007199254740993", 2), ("1e30", 3)] {
        let layout = scene.scratch.path().join(format!("absurd-{number}"));
        run(peer("cp").arg("-r").arg(scene.scratch.path().join("sealed")).arg(&layout)).succeeded();
        let digest = open(&scene.sealed).await.resolve().await.unwrap().digest;
        let text = std::fs::read_to_string(layout.join("blobs/sha256").join(digest.hex())).unwrap();
        let at = text.find("\"size\":").unwrap() + 7;
        let end = at + text[at..].find([',', '}']).unwrap();
        let changed = format!("{}{size}{}", &text[..at], &text[end..]);
        let changed_digest = image_store::Digest::of(changed.as_bytes());
        std::fs::write(layout.join("blobs/sha256").join(changed_digest.hex()), &changed).unwrap();
        let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
        let old_size = format!("\"size\":{}", text.len());
        let index = index
            .replace(&digest.hex(), &changed_digest.hex())
            .replace(&old_size, &format!("\"size\":{}", changed.len()));
        std::fs::write(layout.join("index.json"), index).unwrap();
        scene.vendor.sealift(["inspect", &format!("oci:{}:v1", layout.display())]).failed(3, "cannot");
    }
}

#[test]
fn a_home_is_not_overwritten_and_a_missing_one_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let home = scratch.path().join("home");
    let sealift = |args: &[&str]| run(Command::new(program("sealift")).arg("--home").arg(&home).args(args));
    sealift(&["serve"]).failed(3, "sealift init");
    sealift(&["init", "--listen", &format!("127.0.0.1:{}", free_port())]).succeeded();
    sealift(&["init"]).failed(3, "is not empty");
}
