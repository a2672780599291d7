//! One image of three partners who do not trust each other: all agree, or nothing starts; who refuses is named.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use end_to_end::agent::Agent;
use end_to_end::image::{config_of, create, flip, manifest, open, put_image};
use end_to_end::partners::{JOINED, NAMES, PRODUCT, Partners, policy};
use end_to_end::peer::{Said, run};
use end_to_end::waiting::{finish, start_waiting_under};
use image_store::{Descriptor, Manifest, media_type};
use serde_json::Value;

const PACKET: &str = "org.opencontainers.image.enc.keys.provider.attestation-agent";

fn nobody_holds(partners: &Partners) {
    for (number, name) in NAMES.iter().enumerate() {
        assert_eq!(partners.held(number), 0, "a lease of {name} was not given back");
    }
}

/// Says that a partner refused: by its service and the customer's licence, and by that of nobody else.
#[track_caller]
fn names(said: &Said, partners: &Partners, number: usize) {
    let first = said.stderr.lines().find(|line| line.starts_with("error:")).unwrap();
    let (url, id) = (partners.vendors[number].service_url(), &partners.licenses[number].0);
    assert!(first.contains(&url) && first.contains(id.as_str()), "{url} and {id} are not named: {}", said.stderr);
    assert!(
        partners.licenses.iter().filter(|(other, _)| other != id).all(|(other, _)| !first.contains(other.as_str()))
    );
}

#[tokio::test]
async fn all_agree_their_layers_are_joined_and_each_service_knows_of_its_own_key_only() {
    let partners = Partners::meet();
    partners.run(&partners.image, &partners.files(), &[]).failed(124, "is not signed");
    partners.cosign_all();
    let receipts = partners.path("receipts");
    let said = partners.run(&partners.image, &partners.files(), &["--receipts", &receipts]).succeeded();
    assert_eq!(said.stdout, JOINED);
    nobody_holds(&partners);
    let verified = run(&mut partners.guest(&["unpack", &partners.image, "--verify-only"], &partners.files(), &[]));
    assert_eq!(verified.succeeded().stdout.lines().count(), 5, "a manifest and four layers");
    nobody_holds(&partners);

    let keys = own_keys(&partners);
    for (number, own) in keys.iter().enumerate() {
        let log = partners.json(number, &["audit", "list", "--limit", "200"]).to_string();
        let leases = partners.json(number, &["lease", "list"]);
        let lease = leases[0]["id"].as_str().unwrap().to_owned();
        let part = partners.path(&format!("seen-by-{number}.json"));
        let export = ["audit", "export", "--lease", &lease, "--without-signatures", &part];
        partners.vendors[number].sealift(export).succeeded();
        // What the guest showed is in the part: nothing of another partner's is.
        let seen = log + &fs::read_to_string(part).unwrap() + &partners.vendors[number].service_log();
        assert!(seen.contains(own.as_str()) && seen.contains(&partners.licenses[number].0));
        for (other, key) in keys.iter().enumerate().filter(|(other, _)| *other != number) {
            let (id, file) = &partners.licenses[other];
            let token = fs::read_to_string(file).unwrap();
            for foreign in [key, id, &partners.vendors[other].service_url(), token.trim()] {
                assert!(!seen.contains(foreign), "{} knows {foreign} of {}", NAMES[number], NAMES[other]);
            }
        }
        // The release is bound to the whole set.
        let grants = partners.json(number, &["audit", "list", "--limit", "200"]);
        let grant = grants.as_array().unwrap().iter().find(|entry| entry["kind"] == "lease_granted").unwrap();
        assert_eq!(grant["body"]["signers"].as_array().unwrap().len(), 3);
        let image = manifest_digest(&partners).await;
        assert_eq!(grant["body"]["manifest_digest"], image);
    }
}

#[tokio::test]
async fn a_partner_that_is_dropped_is_named_and_nothing_starts() {
    let mut partners = Partners::meet();
    partners.cosign_all();
    let files = partners.files();
    let left_out = partners.run(&partners.image, &files[..2], &[]).failed(125, "none of the licences is of it");
    let service = partners.vendors[2].service_url();
    assert!(left_out.stderr.contains(&format!("the partner at {service} (product {PRODUCT})")), "{}", left_out.stderr);
    let alone = partners.run(&partners.image, &files[..1], &[]).failed(125, "its layers are sealed to");
    assert!(alone.stderr.contains("a licence of each partner"), "{}", alone.stderr);
    let twice = partners.license(0, &[]).1;
    let said = partners.run(&partners.image, &[files[0], &twice, files[1]], &[]);
    said.failed(122, "two licences are of the same service and product");
    nobody_holds(&partners);

    partners.vendors[1].sealift(["license", "suspend", &partners.licenses[1].0, "--reason", "unpaid"]).succeeded();
    let said = partners.run(&partners.image, &partners.files(), &[]).failed(125, "unpaid");
    names(&said, &partners, 1);
    nobody_holds(&partners);
    partners.vendors[1].sealift(["license", "resume", &partners.licenses[1].0, "--reason", "paid"]).succeeded();
    partners.vendors[2].stop_service();
    let said = partners.run(&partners.image, &partners.files(), &[]).failed(126, "");
    names(&said, &partners, 2);
    partners.vendors[2].serve();
    nobody_holds(&partners);
    assert_eq!(partners.run(&partners.image, &partners.files(), &[]).succeeded().stdout, JOINED);
}

#[tokio::test]
async fn a_component_that_was_tampered_with_never_runs() {
    let partners = Partners::meet();
    partners.cosign_all();
    let honest = manifest(&open(&partners.image).await).await;
    let blobs = partners.scratch.path().join("from-c/blobs/sha256");
    for layer in &honest.layers[1..] {
        let file = blobs.join(layer.digest.hex());
        flip(&file, 700);
        let said = partners.run(&partners.image, &partners.files(), &[]).failed(124, "cannot unpack layer");
        assert!(said.stdout.is_empty(), "{}", said.stdout);
        flip(&file, 700);
    }
    let replaced = partners.seal("base", "other");
    let other = manifest(&open(&replaced).await).await;
    let changes: [&dyn Fn(&mut Manifest); 3] = [
        &|image| image.layers.swap(1, 2),
        // Sealed by the same partner, and registered by nobody for this image.
        &|image| image.layers[3] = other.layers[3].clone(),
        &|image| drop(image.layers[2].annotations.remove("io.sealift.confined-to")),
    ];
    for change in changes {
        let changed = put_changed(&partners, change).await;
        partners.run(&changed, &partners.files(), &[]).failed(124, "is not signed");
        // Nor is it signed by somebody who looks.
        let mine = partners.handed_on(2, "v1");
        partners.cosign(2, &changed, &["--extends", &mine]).failed(4, "is another one");
    }
    nobody_holds(&partners);
}

#[tokio::test]
async fn two_of_three_who_collude_start_nothing_and_open_nothing_of_the_third() {
    let partners = Partners::meet();
    partners.cosign_all();
    // Their own services ask for no third signature any more.
    let lax = partners.path("lax.rego");
    let source = fs::read_to_string(policy()).unwrap().replace("required := 3", "required := 2");
    fs::write(&lax, source).unwrap();
    for vendor in &partners.vendors[..2] {
        vendor.sealift(["policy", "set", "--product", PRODUCT, &lax]).succeeded();
    }
    // Code of theirs that gives the third one's component away, and that component as it is in the image of all.
    partners.make_base("evil", "#!/bin/sh\ncat /partners/c/component\n");
    let colluding = with_layer_of_c(&partners, "evil", |_| {}).await;
    for number in 0..2 {
        partners.cosign(number, &colluding, &[]).succeeded();
    }
    let said = partners.run(&colluding, &partners.files(), &[]).failed(125, "is registered for no product");
    names(&said, &partners, 2);
    assert!(said.stdout.is_empty(), "{}", said.stdout);
    nobody_holds(&partners);
    // Without its licence nobody is asked for its key.
    let files = partners.files();
    partners.run(&colluding, &files[..2], &[]).failed(125, &partners.vendors[2].service_url());

    // They say that its layer is one of theirs. A key comes, and opens nothing.
    let own = "evil-own";
    let renamed = with_layer_of_c(&partners, own, |layer| {
        let image = partners.json(0, &["inspect", &partners.handed_on(1, own)]);
        call_by(layer, image["platforms"][0]["layers"][1]["keys"][0].as_str().unwrap());
    })
    .await;
    for number in 0..2 {
        partners.cosign(number, &renamed, &[]).succeeded();
    }
    let said = partners.run(&renamed, &files[..2], &[]).failed(124, "the released key does not open the layer");
    assert!(said.stdout.is_empty(), "{}", said.stdout);
    nobody_holds(&partners);
}

/// All have signed it, too: what a partner hides under another's name is that other's business to open, and cannot be.
#[tokio::test]
async fn a_layer_that_names_one_partners_key_is_not_opened_by_anothers() {
    let partners = Partners::meet();
    let two = format!("oci:{}:v1", partners.path("two-of-c"));
    let again = partners.component(2);
    let more = ["--joint", "--confine", "/partners/c", "--append", &again];
    partners.append(2, &partners.handed_on(1, "v1"), &two, &more).succeeded();
    let inspected = partners.json(0, &["inspect", &two]);
    let store = create(&two).await;
    let mut image = manifest(&store).await;
    call_by(&mut image.layers[4], inspected["platforms"][0]["layers"][1]["keys"][0].as_str().unwrap());
    image.layers[4].annotations.insert("io.sealift.confined-to".to_owned(), "/partners/a".to_owned());
    let config = config_of(&store, &image).await;
    put_image(&store, image, &config).await;
    for number in 0..NAMES.len() {
        partners.cosign(number, &two, &[]).succeeded();
    }
    partners.run(&two, &partners.files(), &[]).failed(124, "the released key does not open the layer");
    nobody_holds(&partners);
}

#[tokio::test]
async fn one_partner_revokes_while_it_runs_and_is_named() {
    let partners = Partners::meet();
    partners.cosign_all();
    let (child, stdout) = start_waiting_under(&partners.vendors[0], &partners.image, &partners.files(), "embedded");
    assert_eq!([0, 1, 2].map(|number| partners.held(number)), [1, 1, 1]);
    partners.vendors[1].sealift(["license", "revoke", &partners.licenses[1].0, "--reason", "we leave"]).succeeded();
    let (code, rest, stderr) = finish(child, stdout);
    assert_eq!((code, rest.as_str()), (127, "stopped\n"), "{stderr}");
    let cause = stderr.lines().find(|line| line.contains("the service ended the lease")).unwrap();
    assert!(cause.contains(&partners.vendors[1].service_url()) && cause.contains(&partners.licenses[1].0), "{stderr}");
    assert!(stderr.contains("we leave"), "{stderr}");
    partners.vendors[0].assert_nothing_left();
    nobody_holds(&partners);
}

/// Whatever licences it has: one partner's lease must not start what others have a say in.
#[tokio::test]
async fn the_agent_of_a_node_opens_images_of_one_partner_only_and_says_so() {
    let partners = Partners::meet();
    partners.cosign_all();
    let (socket, state) = (partners.scratch.path().join("run/agent.sock"), partners.path("state"));
    let more = ["--socket", &socket.display().to_string(), "--state-dir", &state];
    let mut command = partners.guest(&["agent"], &partners.files(), &more);
    let agent = Agent::start(&mut command, &socket, &partners.scratch.path().join("agent.log"));
    for layer in &manifest(&open(&partners.image).await).await.layers[1..] {
        let packet = String::from_utf8(STANDARD.decode(&layer.annotations[PACKET]).unwrap()).unwrap();
        let refused = agent.unwrap(&packet, Some(&partners.image)).unwrap_err();
        assert!(refused["message"].as_str().unwrap().contains("opens images of one partner only"), "{refused}");
        assert!(refused["hint"].as_str().unwrap().contains("a licence of each partner"), "{refused}");
    }
    nobody_holds(&partners);
}

#[tokio::test]
async fn every_lease_is_renewed_and_a_service_that_stays_away_ends_all() {
    let mut partners = Partners::meet();
    partners.cosign_all();
    partners.licenses =
        (0..NAMES.len()).map(|number| partners.license(number, &["--lease", "3s", "--grace", "2s"])).collect();
    let (mut child, stdout) = start_waiting_under(&partners.vendors[0], &partners.image, &partners.files(), "embedded");
    for (number, name) in NAMES.iter().enumerate() {
        let renewed = || partners.json(number, &["audit", "list"]).to_string().contains("lease_renewed");
        let started = std::time::Instant::now();
        while !renewed() {
            assert!(started.elapsed().as_secs() < 20, "the lease of {name} is not renewed");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    partners.vendors[2].stop_service();
    let (code, rest, stderr) = finish(child, stdout);
    assert_eq!((code, rest.as_str()), (127, "stopped\n"), "{stderr}");
    let cause = stderr.lines().find(|line| line.contains("caused by: the partner at")).unwrap();
    assert!(cause.contains(&partners.vendors[2].service_url()) && cause.contains(&partners.licenses[2].0), "{stderr}");
    assert_eq!([0, 1].map(|number| partners.held(number)), [0, 0]);
}

#[test]
fn obligations_that_name_a_key_twice_are_not_kept_by_one_signature() {
    let partners = Partners::meet();
    partners.cosign_all();
    let digest = partners.json(0, &["product", "show", PRODUCT]);
    let key = digest["product"]["signers"][0]["thumbprint"].as_str().unwrap();
    let policy = partners.path("twice.rego");
    let source = format!(
        "package sealift.release\nimport rego.v1\nallow := true\n\
         obligations := {{\"signers\": [\"{key}\", \"{key}\"], \"signer_threshold\": 2}}\n"
    );
    fs::write(&policy, source).unwrap();
    partners.vendors[1].sealift(["policy", "set", "--product", PRODUCT, &policy]).succeeded();
    let said = partners.run(&partners.image, &partners.files(), &[]).failed(124, "1 of the required 2 signers");
    names(&said, &partners, 1);
    nobody_holds(&partners);
}

async fn manifest_digest(partners: &Partners) -> String {
    open(&partners.image).await.resolve().await.unwrap().digest.to_string()
}

/// The id of each partner's key, as the layers name them.
fn own_keys(partners: &Partners) -> Vec<String> {
    let inspected = partners.json(0, &["inspect", &partners.image]);
    let layers = inspected["platforms"][0]["layers"].as_array().unwrap();
    let id = |layer: &Value| layer["keys"][0].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    layers[1..].iter().map(id).collect()
}

/// The image of an evil base with the components of a and b, and with c's layer as it is in the image of all but for `change`.
async fn with_layer_of_c(partners: &Partners, tag: &str, change: impl FnOnce(&mut Descriptor)) -> String {
    let [first, second] = [0, 1].map(|number| partners.handed_on(number, tag));
    partners.append(0, &format!("oci:{}:v1", partners.path("evil")), &first, &[]).succeeded();
    partners.append(1, &first, &second, &[]).succeeded();
    let (honest, store) = (open(&partners.image).await, create(&second).await);
    let (whole, mut image) = (manifest(&honest).await, manifest(&store).await);
    let mut layer = whole.layers[3].clone();
    store.copy_blob(&honest, &layer).await.unwrap();
    change(&mut layer);
    image.layers.push(layer);
    let config = config_of(&honest, &whole).await;
    let mut changed = config_of(&store, &image).await;
    changed["rootfs"]["diff_ids"].as_array_mut().unwrap().push(config["rootfs"]["diff_ids"][3].clone());
    put_image(&store, image, &changed).await;
    second
}

/// Has a layer say that it is sealed to another key.
fn call_by(layer: &mut Descriptor, kid: &str) {
    let packet = layer.annotations.get_mut(PACKET).unwrap();
    let mut json: Value = serde_json::from_slice(&STANDARD.decode(&packet).unwrap()).unwrap();
    json["kid"] = kid.into();
    *packet = STANDARD.encode(json.to_string());
}

/// Puts a changed manifest beside the image of all; gives its reference.
async fn put_changed(partners: &Partners, change: &dyn Fn(&mut Manifest)) -> String {
    let honest = manifest(&open(&partners.image).await).await;
    let reference = partners.image.replace(":v1", ":changed");
    let store = create(&reference).await;
    let mut changed = honest;
    change(&mut changed);
    store.put_image(changed.to_bytes().unwrap(), media_type::OCI_MANIFEST).await.unwrap();
    store.commit().await.unwrap();
    reference
}
