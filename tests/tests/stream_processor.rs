//! `sealift-shim stream-processor` as containerd starts it: the ciphertext on stdin, the layer's descriptor on descriptor 3.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread::spawn;

use end_to_end::image::{flip, manifest, open};
use end_to_end::peer::{Said, program};
use end_to_end::scene::Scene;
use image_store::{Descriptor, Digest};
use prost::Message as _;
use serde_json::json;

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

fn payload(layer: &Descriptor) -> Vec<u8> {
    let value = json!({"DecryptConfig": {"Parameters": null}, "Descriptor": layer});
    let value = serde_json::to_vec(&value).unwrap();
    Any { type_url: "types.containerd.io/io.containerd.ocicrypt.v1.Payload".to_owned(), value }.encode_to_vec()
}

/// Runs the processor on a layer of the scene's image, in a simulated guest that has the scene's licence.
async fn process(scene: &Scene, position: usize, payload: Option<&[u8]>) -> Output {
    let guest = scene.vendor.guest_command(&scene.vendor.shim(), ["stream-processor"]);
    // Where there is no payload, containerd opens no third descriptor.
    let script = if payload.is_some() { r#"exec "$@" 3<&0 <"$LAYER""# } else { r#"exec "$@" 3<&- <"$LAYER""# };
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(guest.get_program()).args(guest.get_args());
    command.env("LAYER", scene.blob_of_layer(position).await);
    command.env("SEALIFT_LICENSE", &scene.license).env("SEALIFT_IMAGE", &scene.sealed);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that does not read it has ended by then.
    let _ = stdin.write_all(payload.unwrap_or_default());
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn every_layer_comes_out_as_it_was_packed() {
    let scene = Scene::set().await;
    let sealed = manifest(&open(&scene.sealed).await).await;
    let plain = manifest(&open(&scene.plain.reference("mixed")).await).await;
    for (position, (layer, plain)) in sealed.layers.iter().zip(&plain.layers).enumerate() {
        let output = process(&scene, position, Some(&payload(layer))).await;
        let digest = Digest::of(&output.stdout);
        Said::from(output).succeeded();
        assert_eq!(digest, plain.digest, "{}", layer.media_type);
    }
    assert!(!scene.vendor.sealift(["lease", "list"]).succeeded().stdout.contains("live"), "the seats are given back");
}

#[tokio::test]
async fn a_changed_layer_is_no_archive_and_a_missing_payload_names_the_setting() {
    let scene = Scene::set().await;
    let sealed = manifest(&open(&scene.sealed).await).await;
    let blob = scene.blob_of_layer(0).await;
    let size = usize::try_from(sealed.layers[0].size).unwrap();
    flip(&blob, size - 1);
    let output = process(&scene, 0, Some(&payload(&sealed.layers[0]))).await;
    assert!(output.stdout.len() < size && output.stdout.ends_with(&[0xff; 512]));
    Said::from(output).failed(4, "its ciphertext is not what the image's manifest names");

    // A descriptor that was changed with it: the key says no.
    let mut forged = sealed.layers[0].clone();
    forged.digest = Digest::of(&std::fs::read(&blob).unwrap());
    let output = process(&scene, 0, Some(&payload(&forged))).await;
    assert!(output.stdout.ends_with(&[0xff; 512]));
    Said::from(output).failed(4, "HMAC");

    let output = process(&scene, 1, None).await;
    assert!(output.stdout.is_empty());
    Said::from(output).failed(3, "use_local_image_pull = true");
    let output = process(&scene, 1, Some(b"no protobuf")).await;
    assert!(output.stdout.is_empty());
    Said::from(output).failed(3, "is not containerd's");
}

/// containerd asks at the end of the output, and believes what came before if it does not know better then.
#[test]
fn who_sees_the_output_end_knows_by_then_that_the_processor_has_failed() {
    for _ in 0..20 {
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" stream-processor 3<&0 </dev/null"#]).arg(program("sealift-shim"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        child.stdin.take().unwrap().write_all(b"no protobuf").unwrap();
        let (told, known) = channel();
        let waiter = spawn(move || told.send(child.wait().unwrap()).unwrap());
        assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert_eq!(known.try_recv().unwrap().code(), Some(3));
        waiter.join().unwrap();
    }
}

#[tokio::test]
async fn a_licence_that_is_gone_opens_nothing() {
    let scene = Scene::set().await;
    let sealed = manifest(&open(&scene.sealed).await).await;
    let id = scene.vendor.sealift(["license", "list", "--output", "json"]).succeeded().stdout;
    let id: serde_json::Value = serde_json::from_str(&id).unwrap();
    let id = id[0]["id"].as_str().unwrap();
    scene.vendor.sealift(["license", "revoke", id, "--reason", "contract ended"]).succeeded();
    let output = process(&scene, 0, Some(&payload(&sealed.layers[0]))).await;
    assert!(output.stdout.is_empty());
    Said::from(output).failed(5, "revoked");
}
