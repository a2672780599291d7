//! Sealed layers that are used again: under another key for another customer, and in a later image; and what a copy tells or
//! does not tell.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use end_to_end::image::{create, manifest, open, plain_digests};
use end_to_end::peer::{peer, run};
use end_to_end::registry::Registry;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::tree::{Owners, describe};
use image_store::{Manifest, media_type};
use serde_json::{Value, json};

fn json(scene: &Scene, args: &[&str]) -> Value {
    let said = scene.vendor.sealift([&["--output", "json"], args].concat()).succeeded();
    serde_json::from_str(&said.stdout).unwrap()
}

/// Unpacks it as the customer does.
fn unpack(scene: &Scene, image: &str, name: &str) -> std::path::PathBuf {
    let bundle = scene.scratch.path().join(name);
    let (_, license) = scene.vendor.license(PRODUCT, &[]);
    let license = license.display().to_string();
    scene.vendor.guest(["unpack", image, &bundle.display().to_string(), "--license", &license]).succeeded();
    bundle.join("rootfs")
}

fn packets(manifest: &Manifest) -> Vec<String> {
    let name = "org.opencontainers.image.enc.keys.provider.attestation-agent";
    manifest.layers.iter().map(|layer| layer.annotations[name].clone()).collect()
}

#[tokio::test]
async fn an_image_for_another_customer_has_its_own_key_and_the_same_layers_which_do_not_move() {
    let scene = Scene::set().await;
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    let (ours, theirs) = (registry.reference("app:v1"), registry.reference("app:customer-b"));
    scene.vendor.pack(&scene.plain.reference("multi"), &ours, PRODUCT);
    let before = registry.log().lines().count();
    let made = json(&scene, &["rewrap", &ours, &theirs, "--product", PRODUCT]);
    let log = registry.log();
    let sent: Vec<&str> = log.lines().skip(before).filter(|line| line.contains("\"PATCH /v2/")).collect();
    // Signatures are blobs, too: a payload for each of three manifests, and their configs.
    assert!(sent.len() <= 6, "{sent:#?}");
    assert_eq!(made["copied_bytes"], 0);
    assert_eq!(made["manifests"].as_array().unwrap().len(), 2);

    let platform = |document: &Value| document["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let (name, _) = theirs.rsplit_once(':').unwrap();
    let new = manifest(&open(&format!("{name}@{}", platform(&made))).await).await;
    let inspected = json(&scene, &["inspect", &ours]);
    let old = manifest(&open(&format!("{name}@{}", platform(&inspected))).await).await;
    let digests = |manifest: &Manifest| manifest.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    assert_eq!(digests(&new), digests(&old));
    assert!(packets(&new).iter().all(|packet| !packets(&old).contains(packet)));

    scene.vendor.sealift(["verify", &theirs]).succeeded();
    let trees = [unpack(&scene, &ours, "ours"), unpack(&scene, &theirs, "theirs")];
    let [ours, theirs] = trees.map(|tree| describe(&tree, Owners::Compared));
    assert_eq!(ours, theirs);
    let entries = scene.vendor.sealift(["audit", "list", "--output", "json"]).succeeded().stdout;
    assert!(entries.contains("rewrapped"), "{entries}");
}

#[tokio::test]
async fn only_an_administrator_lets_somebody_open_layers_without_the_service() {
    let scene = Scene::set().await;
    let path = |name: &str| scene.scratch.path().join(name).display().to_string();
    let (key, public) = (path("recipient"), path("recipient.pub"));
    let rsa = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key];
    run(peer("openssl").args(rsa)).succeeded();
    run(peer("openssl").args(["pkey", "-pubout", "-in", &key, "-out", &public])).succeeded();
    let token = path("publisher.token");
    scene.vendor.sealift(["token", "create", "--name", "build", "--role", "publisher", "--file", &token]).succeeded();
    let target = format!("oci:{}:v1", path("rewrapped"));
    let recipient = format!("jwe:{public}");
    let rewrap = ["rewrap", &scene.sealed, &target, "--product", PRODUCT];
    let with_recipient = [&rewrap[..], &["--recipient", &recipient]].concat();
    let mut command = scene.vendor.command(&with_recipient);
    run(command.env("SEALIFT_TOKEN_FILE", &token)).failed(5, "only admin may name one");
    assert!(!Path::new(&path("rewrapped")).exists(), "nothing was written");
    let mut command = scene.vendor.command(rewrap);
    run(command.env("SEALIFT_TOKEN_FILE", &token)).succeeded();

    let target = format!("oci:{}:escrow", path("rewrapped"));
    let with_recipient = ["rewrap", &scene.sealed, &target, "--product", PRODUCT, "--recipient", &recipient];
    scene.vendor.sealift(with_recipient).succeeded();
    let plain = format!("oci:{}:v1", path("opened"));
    run(peer("skopeo").args(["copy", "--decryption-key", &key, &target, &plain])).succeeded();
    let wanted = manifest(&open(&scene.plain.reference("mixed")).await).await;
    let opened = manifest(&open(&plain).await).await;
    let digests = |manifest: &Manifest| manifest.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    assert_eq!(digests(&opened), digests(&wanted));
}

#[tokio::test]
async fn what_others_signed_or_another_product_sealed_is_not_wrapped_anew() {
    let scene = Scene::set().await;
    let target = format!("oci:{}:v1", scene.scratch.path().join("target").display());
    let rewrap = |product: &str| scene.vendor.sealift(["rewrap", &scene.sealed, &target, "--product", product]);
    rewrap("other").failed(3, "sealed to a key of other");
    rewrap("unknown").failed(3, "is sealed to a key of unknown");
    let plain = scene.plain.reference("mixed");
    scene.vendor.sealift(["rewrap", &plain, &target, "--product", PRODUCT]).failed(4, "is not signed");
    scene.change_manifest(|manifest| manifest.layers.swap(0, 1)).await;
    rewrap(PRODUCT).failed(4, "is not signed");
    assert!(!scene.scratch.path().join("target").exists());
}

/// Puts a layer more on the plain image, under the tag `next`.
async fn next_version(scene: &Scene) -> String {
    let store = create(&scene.plain.reference("next")).await;
    let mut next = manifest(&open(&scene.plain.reference("mixed")).await).await;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, "opt/new", &b"new\n"[..]).unwrap();
    let layer = archive.into_inner().unwrap();
    let config = store.small_blob(&next.config, 1 << 20).await.unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    let digest = image_store::Digest::of(&layer).to_string();
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(digest.into());
    config["history"] = json!([{"created_by": "RUN build --token=planted"}]);
    config["config"]["Labels"] = json!({"builder": "planted"});
    next.config = store.put_blob(media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await.unwrap();
    next.layers.push(store.put_blob(media_type::OCI_LAYER, layer.into()).await.unwrap());
    store.put_image(next.to_bytes().unwrap(), media_type::OCI_MANIFEST).await.unwrap();
    store.commit().await.unwrap();
    scene.plain.reference("next")
}

#[tokio::test]
async fn a_later_image_takes_over_the_layers_that_an_earlier_one_has() {
    let scene = Scene::set().await;
    let next = next_version(&scene).await;
    let target = |name: &str| format!("oci:{}:{name}", scene.scratch.path().join("versions").display());
    let pack = ["pack", &next, &target("reused"), "--product", PRODUCT, "--reuse", &scene.sealed];
    let made = json(&scene, &pack);
    assert_eq!((&made["sealed_layers"], &made["reused_layers"]), (&json!(1), &json!(4)));
    json(&scene, &["pack", &next, &target("fresh"), "--product", PRODUCT]);

    let [earlier, reused, fresh] = [&scene.sealed, &target("reused"), &target("fresh")].map(String::clone);
    let digests = async |image: &str| {
        let layers = manifest(&open(image).await).await.layers;
        layers.into_iter().map(|layer| layer.digest).collect::<Vec<_>>()
    };
    let (earlier, taken, anew) = (digests(&earlier).await, digests(&reused).await, digests(&fresh).await);
    assert_eq!(taken[..4], earlier[..]);
    assert!(anew.iter().all(|digest| !taken.contains(digest)), "each layer has a key and nonce of its own");
    let trees = [unpack(&scene, &reused, "a"), unpack(&scene, &fresh, "b")];
    let [reused_tree, fresh_tree] = trees.map(|tree| describe(&tree, Owners::Compared));
    assert_eq!(reused_tree, fresh_tree);

    // All of it is there already: no key is made for nothing.
    let again = json(&scene, &["pack", &next, &target("again"), "--product", PRODUCT, "--reuse", &reused]);
    assert_eq!((&again["sealed_layers"], &again["reused_layers"]), (&json!(0), &json!(5)));
    unpack(&scene, &target("again"), "c");
    scene
        .vendor
        .sealift(["pack", &next, &target("x"), "--product", PRODUCT, "--reuse", &next])
        .failed(4, "is not signed");
}

#[tokio::test]
async fn a_scrubbed_copy_with_a_watermark_tells_the_vendor_whose_it_is_and_nobody_how_it_was_made() {
    let scene = Scene::set().await;
    let next = next_version(&scene).await;
    let sealed = format!("oci:{}:v1", scene.scratch.path().join("marked").display());
    let trace = |tree: &Path| scene.vendor.sealift(["trace", &tree.display().to_string()]);
    trace(scene.scratch.path()).failed(3, "cannot read the watermark's key");
    let marked = ["pack", &next, &sealed, "--product", PRODUCT, "--scrub-config", "--watermark", "customer-7"];
    scene.vendor.sealift(marked).succeeded();
    let grep = run(peer("grep").args(["-rlaE", "planted|customer-7"]).arg(scene.scratch.path().join("marked")));
    assert_eq!((grep.code, grep.stdout.as_str()), (1, ""), "neither history, labels nor customer can be read");

    let tree = unpack(&scene, &sealed, "tree");
    let said = trace(&tree).succeeded();
    assert!(said.stdout.starts_with("customer-7: localhost/recipe:v1 of recipe, packed "), "{}", said.stdout);
    let unmarked = unpack(&scene, &scene.sealed, "unmarked");
    trace(&unmarked).failed(1, "no watermark of this home");
    let plain = manifest(&open(&next).await).await;
    let wanted = plain_digests(&open(&next).await, &plain).await;
    let sealed_config = manifest(&open(&sealed).await).await.config;
    let config = open(&sealed).await.small_blob(&sealed_config, 1 << 20).await.unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), wanted.len() + 1);
    assert_eq!(config["config"]["Entrypoint"], json!(["/opt/run.sh"]));
}
