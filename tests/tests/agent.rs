//! The agent of a node by itself: its socket, keys of layers, and what a restart changes.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use end_to_end::agent::Agent;
use end_to_end::image::{manifest, open};
use end_to_end::peer::run;
use end_to_end::scene::{PRODUCT, Scene};

const PACKET: &str = "org.opencontainers.image.enc.keys.provider.attestation-agent";
/// Another user than the agent's.
const STRANGER: u32 = 65534;

fn command(scene: &Scene, license: &str, more: &[&str]) -> Command {
    let (socket, state) =
        (socket(scene).display().to_string(), scene.scratch.path().join("state").display().to_string());
    let args = ["agent", "--license", license, "--socket", &socket, "--state-dir", &state];
    scene.vendor.guest_command(&scene.vendor.shim(), args.iter().chain(more))
}

fn socket(scene: &Scene) -> PathBuf {
    scene.scratch.path().join("run/agent.sock")
}

fn start(scene: &Scene, license: &str, more: &[&str]) -> Agent {
    Agent::start(&mut command(scene, license, more), &socket(scene), &scene.scratch.path().join("agent.log"))
}

/// The packets of the sealed image's layers, and the digests of the plain ones.
async fn layers(scene: &Scene) -> Vec<(String, String)> {
    let sealed = manifest(&open(&scene.sealed).await).await;
    let plain = manifest(&open(&scene.plain.reference("mixed")).await).await;
    let packet = |text: &String| String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap();
    let packets = sealed.layers.iter().map(|layer| packet(&layer.annotations[PACKET]));
    packets.zip(plain.layers.iter().map(|layer| layer.digest.to_string())).collect()
}

fn leases(scene: &Scene, state: &str) -> usize {
    scene.vendor.sealift(["lease", "list"]).succeeded().stdout.matches(&format!(" {state} ")).count()
}

#[tokio::test]
async fn keys_are_given_for_images_of_the_node_while_the_licence_lives() {
    let scene = Scene::set().await;
    let (id, license) = scene.vendor.license(PRODUCT, &["--seats", "1"]);
    let agent = start(&scene, &license.display().to_string(), &["--image", &scene.sealed]);
    let layers = layers(&scene).await;
    // Tools ask for all layers at once; there is one seat.
    std::thread::scope(|scope| {
        for (packet, digest) in &layers {
            let agent = &agent;
            scope.spawn(move || assert_eq!(agent.unwrap(packet, None).unwrap()["digest"], **digest));
        }
    });
    assert_eq!(leases(&scene, "live"), 0, "nothing runs");
    assert!(leases(&scene, "ended") <= layers.len());
    let changed = layers[0].0.replace("\"iv\":\"", "\"iv\":\"AAAA");
    assert_eq!(agent.unwrap(&changed, None).unwrap_err()["code"], "bad_input");
    let (first, second) = (&layers[0].0, &layers[1].0);
    assert!(
        agent.unwrap(first, Some(&scene.plain.reference("mixed"))).is_ok(),
        "the packet tells which image it is of"
    );
    let mut crossed: serde_json::Value = serde_json::from_str(first).unwrap();
    crossed["iv"] = serde_json::from_str::<serde_json::Value>(second).unwrap()["iv"].clone();
    let failure = agent.unwrap(&crossed.to_string(), None).unwrap_err();
    assert_eq!(
        (&failure["code"], &failure["message"]),
        (&"verification_failed".into(), &"no image that this node's agent was told of has the key packet".into())
    );

    scene.vendor.sealift(["license", "revoke", &id, "--reason", "contract ended"]).succeeded();
    let failure = agent.unwrap(first, None).unwrap_err();
    assert_eq!(failure["code"], "denied", "a key that is in memory is not given either");
    assert!(failure["causes"].to_string().contains("contract ended"), "{failure}");
}

#[tokio::test]
async fn an_image_that_only_the_face_knows_is_opened_by_its_name() {
    let scene = Scene::set().await;
    let agent = start(&scene, &scene.license, &[]);
    let packet = &layers(&scene).await[0].0;
    let failure = agent.unwrap(packet, None).unwrap_err();
    assert!(failure["hint"].to_string().contains("--image REF"), "{failure}");
    agent.unwrap(packet, Some(&scene.sealed)).unwrap();
    let (_, other) = scene.vendor.license("other", &[]);
    drop(agent);
    let agent = start(&scene, &other.display().to_string(), &[]);
    let failure = agent.unwrap(packet, Some(&scene.sealed)).unwrap_err();
    assert_eq!(failure["message"], "no licence of this node's agent is for the product `recipe`");
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_one_agents_alone() {
    let scene = Scene::set().await;
    let path = socket(&scene);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o700)).unwrap();
    // Left behind by one that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let agent = start(&scene, &scene.license, &[]);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    let state = scene.scratch.path().join("state");
    assert_eq!((mode(&path), mode(path.parent().unwrap()), mode(&state)), (0o600, 0o700, 0o700));
    run(&mut command(&scene, &scene.license, &[])).failed(3, "an agent listens at");
    assert!(agent.containers().is_empty(), "the first one is still there");

    // Whoever opens the way to the socket opens nothing: a stranger's connection is closed without a word.
    for (path, mode) in [(path.as_path(), 0o666), (path.parent().unwrap(), 0o755), (scene.scratch.path(), 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let stranger = std::thread::spawn(move || {
        let id = rustix::process::Uid::from_raw(STRANGER);
        // Of this thread alone, which ends here.
        rustix::thread::set_thread_res_uid(id, id, id).unwrap();
        let mut said = Vec::new();
        UnixStream::connect(&path).unwrap().read_to_end(&mut said).unwrap();
        said
    });
    assert!(stranger.join().unwrap().is_empty());

    drop(agent);
    std::fs::set_permissions(scene.scratch.path().join("run"), std::fs::Permissions::from_mode(0o777)).unwrap();
    run(&mut command(&scene, &scene.license, &[])).failed(3, "others than the agent's user may write to it");
}
