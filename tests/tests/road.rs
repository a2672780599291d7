//! The whole road with real images and real peers: pack, attest, decrypt, unpack, run, renew, revoke.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use end_to_end::image::{PlainImage, flip};
use end_to_end::peer::{peer, program, run};
use end_to_end::registry::Registry;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::tree::{Owners, describe};
use end_to_end::vendor::Vendor;
use end_to_end::waiting::{finish, start_waiting};

/// What the image's script prints as root.
const OUTPUT: &str = "hello world from 0 in /opt\nupper\n";

fn oci(directory: &std::path::Path, name: &str) -> String {
    format!("oci:{}:v1", directory.join(name).display())
}

#[tokio::test]
async fn an_unpacked_sealed_image_is_the_tree_that_umoci_makes_of_the_plain_one() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let registry = Registry::start(&scratch.path().join("registry"));
    let name = registry.reference("vendor/recipe:v1");
    let sealed = vendor.pack(&plain.reference("mixed"), &name, PRODUCT);
    assert!(sealed.starts_with("docker://127.0.0.1:") && sealed.contains("@sha256:"), "{sealed}");

    let ours = scratch.path().join("ours");
    vendor
        .guest(["unpack", &sealed, &ours.display().to_string(), "--license", &license.display().to_string()])
        .succeeded();
    let theirs = scratch.path().join("theirs");
    let image = format!("{}:gzip", plain.directory().display());
    run(peer("umoci").args(["unpack", "--image", &image]).arg(&theirs)).succeeded();

    let (ours, theirs) =
        (describe(&ours.join("rootfs"), Owners::Compared), describe(&theirs.join("rootfs"), Owners::Compared));
    assert!(theirs.len() > 40, "the fixture is too small");
    for (path, expected) in &theirs {
        assert_eq!(ours.get(path), Some(expected), "{path}");
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_same_workload_runs_under_runc_crun_and_the_embedded_runtime() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &["--seats", "1"]);
    let license = license.display().to_string();
    let registry = Registry::start(&scratch.path().join("registry"));
    let sealed = vendor.pack(&plain.reference("mixed"), &registry.reference("recipe:v1"), PRODUCT);
    drop((peer("runc"), peer("crun")));
    for runtime in ["runc", "crun", "embedded", "auto"] {
        let said = vendor.guest(["run", &sealed, "--license", &license, "--runtime", runtime]);
        assert_eq!((said.code, said.stdout.as_str()), (7, OUTPUT), "{runtime}: {}", said.stderr);
        let said = vendor.guest(["run", &sealed, "--license", &license, "--runtime", runtime, "--", "3"]);
        assert_eq!(said.code, 3, "{runtime}: the arguments replace the image's own: {}", said.stderr);
        vendor.assert_nothing_left();
    }
}

#[tokio::test]
async fn every_platform_of_an_index_is_sealed_and_the_right_one_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let registry = Registry::start(&scratch.path().join("registry"));
    let sealed = vendor.pack(&plain.reference("multi"), &registry.reference("recipe:multi"), PRODUCT);
    let inspected = vendor.sealift(["inspect", &sealed]).succeeded().stdout;
    assert!(
        inspected.contains("linux/amd64") && inspected.contains("linux/arm64") && !inspected.contains("PLAIN"),
        "{inspected}"
    );
    vendor.sealift(["verify", "--deep", &sealed]).succeeded();
    let said = vendor.guest(["run", &sealed, "--license", &license.display().to_string(), "--runtime", "runc"]);
    assert_eq!((said.code, said.stdout.as_str()), (7, OUTPUT), "{}", said.stderr);
}

#[tokio::test]
async fn no_layer_is_requested_before_the_key_is_released() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT, "other"]);
    let registry = Registry::start(&scratch.path().join("registry"));
    let sealed = vendor.pack(&plain.reference("mixed"), &registry.reference("recipe:v1"), PRODUCT);
    let inspected = vendor.sealift(["--output", "json", "inspect", &sealed]).succeeded().stdout;
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let layers: Vec<String> = inspected["platforms"][0]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap().to_owned())
        .collect();
    let before = registry.log().len();
    let (_, other) = vendor.license("other", &[]);
    vendor.guest(["run", &sealed, "--license", &other.display().to_string()]).failed(125, "does not cover");
    let log = registry.log();
    let since = &log[before..];
    assert!(since.contains("GET"), "the manifest was read");
    for layer in &layers {
        assert!(
            !since.contains(&format!("GET /v2/recipe/blobs/{layer}")),
            "{layer} was requested by a guest that was denied"
        );
    }
    let (_, license) = vendor.license(PRODUCT, &[]);
    vendor
        .guest([
            "unpack",
            &sealed,
            &scratch.path().join("b").display().to_string(),
            "--license",
            &license.display().to_string(),
        ])
        .succeeded();
    assert!(registry.log()[before..].contains(&format!("GET /v2/recipe/blobs/{}", layers[0])));
}

#[tokio::test]
async fn a_revoked_licence_stops_what_runs_and_lets_nothing_start() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let sealed = vendor.pack(&plain.reference("mixed"), &oci(scratch.path(), "sealed"), PRODUCT);
    for runtime in ["runc", "embedded"] {
        let (id, license) = vendor.license(PRODUCT, &["--lease", "3s", "--grace", "1s"]);
        let license = license.display().to_string();
        let (child, stdout) = start_waiting(&vendor, &sealed, &license, runtime);
        let revoked = vendor.sealift(["license", "revoke", &id, "--reason", "contract ended"]).succeeded();
        assert!(revoked.stdout.contains("1 running"), "{}", revoked.stdout);
        let (code, rest, stderr) = finish(child, stdout);
        assert_eq!((code, rest.as_str()), (127, "stopped\n"), "{runtime}: SIGTERM came first: {stderr}");
        assert!(stderr.contains("was revoked") && stderr.contains("contract ended"), "{stderr}");
        vendor.assert_nothing_left();
        vendor.guest(["run", &sealed, "--license", &license]).failed(125, "was revoked");
    }
}

#[tokio::test]
async fn a_revocation_reaches_a_connected_shim_long_before_its_next_renewal() {
    let Scene { vendor, sealed, scratch: _scratch, .. } = Scene::set().await;
    // The next renewal would come after 20 minutes; the test has none to spare.
    let (id, license) = vendor.license(PRODUCT, &["--lease", "1h", "--grace", "1h"]);
    let (child, stdout) = start_waiting(&vendor, &sealed, &license.display().to_string(), "embedded");
    vendor.sealift(["license", "revoke", &id, "--reason", "returned"]).succeeded();
    let (code, _, stderr) = finish(child, stdout);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.contains("was revoked") && stderr.contains("returned"), "{stderr}");
    vendor.assert_nothing_left();
}

#[tokio::test]
async fn a_suspended_licence_stops_what_runs_and_a_resumed_one_lets_it_start_again() {
    let Scene { vendor, sealed, scratch: _scratch, .. } = Scene::set().await;
    let (id, license) = vendor.license(PRODUCT, &["--lease", "1h"]);
    let license = license.display().to_string();
    let (child, stdout) = start_waiting(&vendor, &sealed, &license, "embedded");
    vendor.sealift(["license", "suspend", &id, "--reason", "unpaid"]).succeeded();
    let (code, _, stderr) = finish(child, stdout);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.contains("is suspended"), "{stderr}");
    vendor.guest(["run", &sealed, "--license", &license]).failed(125, "unpaid");
    vendor.sealift(["license", "resume", &id, "--reason", "paid"]).succeeded();
    let said = vendor.guest(["run", &sealed, "--license", &license]);
    assert_eq!(said.code, 7, "the workload's own: {}", said.stderr);
}

#[tokio::test]
async fn a_revocation_can_be_waited_for_to_its_end() {
    let Scene { vendor, sealed, scratch: _scratch, .. } = Scene::set().await;
    let (id, license) = vendor.license(PRODUCT, &["--lease", "1h"]);
    let (child, stdout) = start_waiting(&vendor, &sealed, &license.display().to_string(), "embedded");
    let said = vendor.sealift(["license", "revoke", &id, "--reason", "returned", "--wait"]).succeeded();
    assert!(said.stdout.contains("nothing runs under"), "{}", said.stdout);
    assert!(said.stderr.contains("1 running, stopped by"), "{}", said.stderr);
    let (code, _, stderr) = finish(child, stdout);
    assert_eq!(code, 127, "{stderr}");
}

#[tokio::test]
async fn renewal_keeps_a_workload_running_past_its_first_lease() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let sealed = vendor.pack(&plain.reference("mixed"), &oci(scratch.path(), "sealed"), PRODUCT);
    let (_, license) = vendor.license(PRODUCT, &["--lease", "3s", "--grace", "3s"]);
    let (mut child, stdout) = start_waiting(&vendor, &sealed, &license.display().to_string(), "runc");
    wait_for(|| vendor.sealift(["audit", "list"]).stdout.matches("lease_renewed").count() >= 4);
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (code, rest, stderr) = finish(child, stdout);
    assert_eq!(
        (code, rest.as_str()),
        (0, "stopped\n"),
        "the signal and the workload's own code pass through: {stderr}"
    );
    assert!(vendor.sealift(["lease", "list"]).succeeded().stdout.contains("ended"), "the seat is given back");
}

/// A proxy for a layer that comes more slowly than a lease lives.
#[tokio::test]
async fn a_lease_is_renewed_while_a_large_image_is_still_unpacked() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let registry = Registry::start(&scratch.path().join("registry"));
    let slow = SlowProxy::start(registry.port());
    vendor.pack(&plain.reference("mixed"), &registry.reference("recipe:v1"), PRODUCT);
    let (_, license) = vendor.license(PRODUCT, &["--lease", "3s", "--grace", "3s"]);
    let image = format!("docker://127.0.0.1:{slow}/recipe:v1");
    let said = vendor.guest(["run", &image, "--license", &license.display().to_string(), "--runtime", "runc"]);
    assert_eq!((said.code, said.stdout.as_str()), (7, OUTPUT), "{}", said.stderr);
    let renewals = vendor.sealift(["audit", "list"]).succeeded().stdout.matches("lease_renewed").count();
    assert!(renewals >= 2, "renewed {renewals} times while it was unpacked");
}

/// Passes bytes on to a registry, downloads at half a megabyte a second.
struct SlowProxy;

impl SlowProxy {
    fn start(registry: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", registry)).unwrap();
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
                std::thread::spawn(move || Self::trickle(&server, &client));
            }
        });
        port
    }

    fn trickle(mut from: &TcpStream, mut to: &TcpStream) {
        let mut block = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut block) {
            if to.write_all(&block[..length]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(length as u64 / 512));
        }
        // The other side may have closed first.
        let _ = to.shutdown(Shutdown::Both);
    }
}

#[tokio::test]
async fn a_shim_cut_off_from_its_service_stops_after_lease_and_grace() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let mut vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let sealed = vendor.pack(&plain.reference("mixed"), &oci(scratch.path(), "sealed"), PRODUCT);
    let (_, license) = vendor.license(PRODUCT, &["--lease", "2s", "--grace", "1s"]);
    let (child, stdout) = start_waiting(&vendor, &sealed, &license.display().to_string(), "runc");
    vendor.stop_service();
    let (code, rest, stderr) = finish(child, stdout);
    assert_eq!((code, rest.as_str()), (127, "stopped\n"), "{stderr}");
    assert!(stderr.contains("can go on for"), "it says how long it can go on: {stderr}");
    vendor.assert_nothing_left();
}

#[tokio::test]
async fn a_shim_with_one_byte_changed_is_denied() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let sealed = vendor.pack(&plain.reference("mixed"), &oci(scratch.path(), "sealed"), PRODUCT);
    let (_, license) = vendor.license(PRODUCT, &[]);
    let tampered = scratch.path().join("tampered");
    std::fs::copy(program("sealift-shim"), &tampered).unwrap();
    // Padding of the ELF header: the program runs as before.
    flip(&tampered, 15);
    let said = run(&mut vendor.guest_command(&tampered, ["run", &sealed, "--license", &license.display().to_string()]));
    said.failed(125, "is no reference value of product recipe");
    vendor.assert_nothing_left();
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < until, "waited for a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}
