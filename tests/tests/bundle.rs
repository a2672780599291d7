//! One file with all that a lease rests on, judged offline: whole it proves, changed anywhere it does not.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use end_to_end::peer::Said;
use end_to_end::registry::Registry;
use end_to_end::scene::{PRODUCT, Scene};
use serde_json::{Value, json};

/// A vendor, one lease that has started, opened its image and ended, and its bundle.
struct Bundled {
    scene: Scene,
    bundle: Value,
    root: String,
}

impl Bundled {
    async fn make() -> Self {
        let mut scene = Scene::set().await;
        assert_eq!(scene.run().code, 7);
        let leases = scene.vendor.sealift(["--output", "json", "lease", "list"]).succeeded().stdout;
        let leases: Value = serde_json::from_str(&leases).unwrap();
        let file = scene.scratch.path().join("bundle.json").display().to_string();
        let lease = leases[0]["id"].as_str().unwrap().to_owned();
        scene.vendor.sealift(["audit", "export", "--lease", &lease, "--image", &scene.sealed, &file]).succeeded();
        // What follows needs no service.
        scene.vendor.stop_service();
        let root = scene.vendor.home().join("service/simulated-platform/ark.der");
        let root = if root.exists() { root } else { scene.vendor.home().join("simulated-platform/ark.der") };
        let bundle = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        Self { bundle, root: root.display().to_string(), scene }
    }

    fn verify(&self, bundle: &Value, more: &[&str]) -> Said {
        let file = self.scene.scratch.path().join("judged.json");
        fs::write(&file, serde_json::to_vec(bundle).unwrap()).unwrap();
        let file = file.display().to_string();
        self.scene.vendor.sealift(["audit", "verify", &file].iter().chain(more))
    }

    /// Changes the bundle and says how it is refused.
    fn refused(&self, words: &str, change: impl FnOnce(&mut Value)) {
        let mut changed = self.bundle.clone();
        change(&mut changed);
        assert_ne!(changed, self.bundle, "nothing was changed");
        self.verify(&changed, &["--roots", &self.root]).failed(4, words);
    }
}

#[tokio::test]
async fn a_bundle_proves_a_lease_offline_and_nothing_in_it_can_be_changed() {
    let bundled = Bundled::make().await;
    let said = bundled.verify(&bundled.bundle, &["--roots", &bundled.root]).succeeded().stdout;
    for words in
        ["SIMULATED", "lease_granted", "key_released", "lease_ended", "1 decisions judged again", "image signed by"]
    {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    // Without the simulated platform's root, hardware is what is asked for.
    bundled.verify(&bundled.bundle, &[]).failed(4, "the evidence of entry");

    bundled.refused("one was dropped", |bundle| drop(bundle["entries"].as_array_mut().unwrap().remove(1)));
    bundled.refused("one was dropped", |bundle| drop(bundle["entries"].as_array_mut().unwrap().remove(0)));
    bundled.refused("rests on is missing", |bundle| bundle["attestations"] = json!([]));
    bundled.refused("no policy with the digest", |bundle| bundle["policies"] = json!(["package sealift.release"]));
    bundled.refused("rests on was altered", |bundle| bundle["attestations"][0]["policy_input"]["now"] = json!(1));
    bundled.refused("is not in the log", |bundle| bundle["entries"][0]["inclusion_proof"] = json!([]));
    bundled.refused("it was forked", |bundle| {
        let proof = bundle["consistency"].as_array_mut().unwrap();
        proof.reverse();
        proof.pop();
    });
    bundled.refused("only `sealift-evidence-bundle/1` is known", |bundle| bundle["format"] = json!("other/1"));
    bundled.refused("nobody's whom a guest named", |bundle| {
        let payload = bundle["signatures"][0]["payload"].as_str().unwrap().replace("cosign", "cosigN");
        bundle["signatures"][0]["payload"] = payload.into();
    });
    bundled.refused("is malformed", |bundle| bundle["lease"] = json!("other"));
}

/// Paths to every text and number in a document.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                leaves(value, &format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                leaves(value, &format!("{path}/{index}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[tokio::test]
async fn a_bundle_with_any_one_value_changed_proves_nothing() {
    let bundled = Bundled::make().await;
    let mut paths = Vec::new();
    leaves(&bundled.bundle, "", &mut paths);
    assert!(paths.len() > 50, "{paths:?}");
    for path in paths {
        let mut changed = bundled.bundle.clone();
        let value = changed.pointer_mut(&path).unwrap();
        *value = match value {
            Value::String(text) => {
                // The middle of it: the last characters of base64 may carry no bits.
                let middle = text.len() / 2;
                let other = if text.as_bytes().get(middle) == Some(&b'A') { "B" } else { "A" };
                let end = text.char_indices().map(|(at, _)| at).find(|at| *at > middle).unwrap_or(text.len());
                let start = text.char_indices().map(|(at, _)| at).rfind(|at| *at <= middle).unwrap_or(0);
                json!(format!("{}{other}{}", &text[..start], &text[end..]))
            }
            Value::Number(number) => json!(number.as_u64().unwrap_or(0) + 1),
            Value::Bool(flag) => json!(!*flag),
            _ => json!(0),
        };
        let said = bundled.verify(&changed, &["--roots", &bundled.root]);
        assert!([3, 4].contains(&said.code), "{path} was changed: {} {}", said.stdout, said.stderr);
    }
}

#[tokio::test]
async fn signatures_are_found_where_the_image_was_packed_to() {
    let scene = Scene::set().await;
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    let sealed = scene.vendor.pack(&scene.plain.reference("gzip"), &registry.reference("recipe:v2"), PRODUCT);
    assert_eq!(scene.vendor.guest(["run", &sealed, "--license", &scene.license]).code, 7);
    assert_eq!(scene.run().code, 7);
    let leases = scene.vendor.sealift(["--output", "json", "lease", "list"]).succeeded().stdout;
    let leases: Vec<Value> = serde_json::from_str(&leases).unwrap();
    let digest = sealed.rsplit('@').next().unwrap();
    let (pushed, kept): (Vec<&Value>, Vec<&Value>) =
        leases.iter().partition(|lease| lease["manifest_digest"] == digest);
    let export = |lease: &Value, name: &str, more: &[&str]| {
        let file = scene.scratch.path().join(name).display().to_string();
        let args = ["audit", "export", "--lease", lease["id"].as_str().unwrap(), &file];
        (scene.vendor.sealift(args.iter().chain(more)), file)
    };
    let (said, file) = export(pushed[0], "pushed.json", &[]);
    said.succeeded();
    let bundle: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(bundle["signatures"].as_array().unwrap().len(), 1);
    let (said, file) = export(kept[0], "kept.json", &[]);
    said.failed(3, "was not packed to a registry");
    assert!(!std::path::Path::new(&file).exists());
    export(kept[0], "kept.json", &["--without-signatures"]).0.succeeded();
}
