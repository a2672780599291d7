//! Partners who sign one image between them: who has is counted by distinct keys, and nobody signs what could harm others.

use std::fs;

use end_to_end::image::{config_of, create, manifest, open, put_image};
use end_to_end::partners::{JOINED, NAMES, Partners};
use end_to_end::peer::{peer, run};
use end_to_end::registry::Registry;

#[test]
fn partners_sign_beside_each_other_in_a_registry() {
    let partners = Partners::meet();
    let registry = Registry::start(&partners.scratch.path().join("registry"));
    let tag = registry.reference("join:v1");
    let whole = partners.append(2, &partners.handed_on(1, "v1"), &tag, &[]).succeeded().stdout.trim().to_owned();
    partners.cosign(0, &tag, &[]).failed(2, "names a tag");
    for number in 0..NAMES.len() {
        let mine = partners.handed_on(number, "v1");
        let extends: &[&str] = if number < 2 { &["--extends", &mine] } else { &[] };
        assert_eq!(partners.cosign(number, &whole, extends).succeeded().stdout.trim(), whole);
    }
    let keys = partners.keys();
    let mut status = partners.vendors[0].command(["cosign", "status", &tag]);
    let said = run(status.args(keys.iter().flat_map(|key| ["--key", key.as_str()]))).succeeded();
    assert_eq!(said.stdout.matches("signed ").count(), 4, "{}", said.stdout);
    assert_eq!(partners.run(&whole, &partners.files(), &[]).succeeded().stdout, JOINED);
}

#[test]
fn partners_seal_layers_of_an_image_that_others_have_partly_sealed() {
    let partners = Partners::meet();
    let plain = format!("{}:v1", partners.path("base"));
    for number in 0..NAMES.len() {
        let tar = partners.component(number);
        run(peer("umoci").args(["raw", "add-layer", "--image", &plain, &tar])).succeeded();
    }
    let (mut image, again) = (format!("oci:{plain}"), format!("oci:{}:v1", partners.path("again")));
    for (number, name) in NAMES.iter().enumerate() {
        let next = partners.handed_on(number, "picked");
        let (layer, directory) = ((number + 1).to_string(), format!("/partners/{name}"));
        let picked = ["--joint", "--layers", &layer, "--confine", &directory];
        partners.pack(number, &image, &next, &picked).succeeded();
        // What is sealed already stays as it is.
        partners.pack(number, &next, &again, &picked).failed(3, "are sealed already");
        image = next;
    }
    let inspected = partners.json(0, &["inspect", &image]);
    let layers = inspected["platforms"][0]["layers"].as_array().unwrap();
    for (layer, name) in layers[1..].iter().zip(NAMES) {
        assert_eq!(
            (layer["keys"].as_array().unwrap().len(), &layer["confined_to"]),
            (1, &format!("/partners/{name}").into())
        );
    }
    for number in 0..NAMES.len() {
        partners.cosign(number, &image, &["--layers", &(number + 1).to_string()]).succeeded();
    }
    assert_eq!(partners.run(&image, &partners.files(), &[]).succeeded().stdout, JOINED);
}

#[test]
fn one_key_counts_once_however_often_it_signs_or_is_named() {
    let partners = Partners::meet();
    let keys = partners.keys();
    let status = |named: &[&str], more: &[&str]| {
        let mut command = partners.vendors[0].command(["cosign", "status", &partners.image]);
        run(command.args(named.iter().flat_map(|key| ["--key", *key])).args(more))
    };
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    status(&all, &[]).failed(4, "0 of the required 3");
    partners.cosign(0, &partners.image, &[]).succeeded();
    // Under another name the signature is another one, by the same key.
    let digest = partners.json(0, &["inspect", &partners.image])["digest"].as_str().unwrap().to_owned();
    let by_digest = partners.image.replace(":v1", &format!("@{digest}"));
    for _ in 0..2 {
        partners.cosign(0, &by_digest, &[]).succeeded();
    }
    let said = status(&all, &[]).failed(4, "1 of the required 3");
    assert_eq!(said.stdout.matches("missing").count(), 2, "{}", said.stdout);
    let copy = partners.path("copy.pub");
    fs::copy(all[0], &copy).unwrap();
    status(&[all[0], &copy, all[0]], &[]).succeeded();
    status(&[all[0], &copy], &["--threshold", "2"]).failed(2, "2 signatures cannot come of 1 keys");
    partners.cosign(1, &partners.image, &[]).succeeded();
    let said = status(&[all[0], all[0], all[1], all[2]], &[]).failed(4, "the signature of");
    assert!(said.stderr.contains(all[2]) && !said.stderr.contains(all[1]), "{}", said.stderr);
    status(&all, &["--threshold", "2"]).succeeded();
    let refused = partners.run(&partners.image, &partners.files(), &[]).failed(125, "2 partners have signed");
    assert!(refused.stderr.contains("also the partner at"), "all three of them say so: {}", refused.stderr);
    partners.cosign(2, &partners.image, &[]).succeeded();
    assert!(status(&all, &[]).succeeded().stdout.contains("3 of 3"));
    assert_eq!(partners.run(&partners.image, &partners.files(), &[]).succeeded().stdout, JOINED);
}

#[tokio::test]
async fn nobody_signs_what_could_harm_others_or_is_not_what_was_handed_on() {
    let partners = Partners::meet();
    let last = partners.handed_on(1, "v1");
    // Free to change everybody's files, and nobody else can see how.
    let open_ended = format!("oci:{}:v1", partners.path("unconfined"));
    partners.append(2, &last, &open_ended, &["--joint"]).succeeded();
    partners.cosign(0, &open_ended, &[]).failed(4, "confined to no directory");
    let mine = format!("oci:{}:v1", partners.path("mine"));
    partners.append(2, &last, &mine, &["--joint", "--confine", "/partners/a"]).failed(3, "is not in /partners/a");
    let layers = |number: usize, layers: &str| partners.cosign(number, &partners.image, &["--layers", layers]);
    layers(0, "0").failed(3, "is plain");
    layers(0, "1,2").failed(4, "is sealed to no key of");
    layers(0, "7").failed(2, "there is no layer 7");
    layers(0, "1").succeeded();
    // Nothing of b's is in what a handed on.
    let first = partners.handed_on(0, "v1");
    partners.cosign(1, &first, &[]).failed(4, "no layer of");
    // A part that was sealed for itself opens that, and is not signed as a part of something else.
    let alone = format!("oci:{}:v1", partners.path("alone"));
    partners.append(2, &last, &alone, &["--confine", "/partners/c"]).succeeded();
    let changed = changed_command(&alone).await;
    partners.cosign(2, &changed, &[]).failed(3, "sealift pack --joint");
    partners.cosign(2, &changed, &["--extends", &alone]).failed(4, "its config says something else");
    partners.cosign(2, &alone, &["--extends", &last]).succeeded();
}

/// The same image with another command, beside it.
async fn changed_command(reference: &str) -> String {
    let changed = reference.replace(":v1", ":changed");
    let (from, to) = (open(reference).await, create(&changed).await);
    let image = manifest(&from).await;
    let mut config = config_of(&from, &image).await;
    config["config"]["Entrypoint"] = serde_json::json!(["/bin/sh"]);
    put_image(&to, image, &config).await;
    changed
}
