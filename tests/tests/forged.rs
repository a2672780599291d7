//! Images that are registered and signed and wrong in one thing: the last check holds when all others pass.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use end_to_end::forge::{Change, base64, forge};
use end_to_end::image::{create, manifest, open};
use end_to_end::peer::Said;
use end_to_end::scene::Scene;
use image_store::{Descriptor, media_type};
use serde_json::Value;

const PUBLIC_OPTIONS: &str = "org.opencontainers.image.enc.pubopts";
const PACKET: &str = "org.opencontainers.image.enc.keys.provider.attestation-agent";

async fn run(scene: &Scene, change: Change<'_>) -> Said {
    run_from(scene, &scene.plain.reference("mixed"), change).await
}

async fn run_from(scene: &Scene, source: &str, change: Change<'_>) -> Said {
    let forged = forge(scene, source, change).await;
    let said = scene.vendor.guest(["run", &forged, "--license", &scene.license]);
    scene.vendor.assert_nothing_left();
    said
}

/// Changes the JSON behind an annotation.
fn edit(layer: &mut Descriptor, annotation: &str, change: impl FnOnce(&mut Value)) {
    let text = layer.annotations.get_mut(annotation).unwrap();
    let mut value: Value = serde_json::from_slice(&end_to_end::forge::unbase64(text)).unwrap();
    change(&mut value);
    *text = base64(value.to_string().as_bytes());
}

#[tokio::test]
async fn without_a_change_it_runs() {
    let scene = Scene::set().await;
    let said = run(&scene, &|_, _| {}).await;
    assert_eq!(said.code, 7, "the workload's own: {}", said.stderr);
}

#[tokio::test]
async fn a_flipped_hmac_is_refused() {
    let scene = Scene::set().await;
    let said = run(&scene, &|position, layer| {
        if position == 1 {
            edit(layer, PUBLIC_OPTIONS, |options| {
                let mut hmac = end_to_end::forge::unbase64(options["hmac"].as_str().unwrap());
                hmac[31] ^= 1;
                options["hmac"] = base64(&hmac).into();
            });
        }
    });
    said.await.failed(124, "its ciphertext was changed (HMAC)");
}

#[tokio::test]
async fn a_nonce_in_the_public_options_is_refused() {
    let scene = Scene::set().await;
    let said = run(&scene, &|_, layer| {
        edit(layer, PUBLIC_OPTIONS, |options| {
            options["cipheroptions"] = serde_json::json!({"nonce": base64(&[0; 16])});
        });
    });
    said.await.failed(123, "public options");
}

#[tokio::test]
async fn an_unknown_wrap_type_is_refused() {
    let scene = Scene::set().await;
    let said = run(&scene, &|_, layer| edit(layer, PACKET, |packet| packet["wrap_type"] = "ROT13".into()));
    said.await.failed(123, "ROT13");
}

#[tokio::test]
async fn a_wrong_diff_id_is_refused() {
    let scene = Scene::set().await;
    let source = wrong_diff_id(&scene).await;
    run_from(&scene, &source, &|_, _| {}).await.failed(124, "diff_id");
}

#[tokio::test]
async fn layers_that_are_no_longer_in_their_order_are_refused_by_their_diff_ids() {
    let scene = Scene::set().await;
    let store = create(&scene.plain.reference("mixed")).await;
    let mut swapped = manifest(&store).await;
    swapped.layers.swap(1, 2);
    let source = scene.plain.reference("swapped");
    let target = create(&source).await;
    target.put_image(swapped.to_bytes().unwrap(), media_type::OCI_MANIFEST).await.unwrap();
    target.commit().await.unwrap();
    run_from(&scene, &source, &|_, _| {}).await.failed(124, "diff_id");
}

/// The plain image with the first `diff_id` of its config turned into another; gives its reference.
async fn wrong_diff_id(scene: &Scene) -> String {
    let mut changed = manifest(&open(&scene.plain.reference("mixed")).await).await;
    let store = create(&scene.plain.reference("wrong")).await;
    let config = store.small_blob(&changed.config, 1 << 20).await.unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["rootfs"]["diff_ids"][0] = format!("sha256:{}", "ab".repeat(32)).into();
    changed.config = store.put_blob(media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await.unwrap();
    store.put_image(changed.to_bytes().unwrap(), media_type::OCI_MANIFEST).await.unwrap();
    store.commit().await.unwrap();
    scene.plain.reference("wrong")
}
