//! Bills of materials beside sealed images: attached, signed, carried to another customer's image, demanded by a policy.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::PathBuf;

use end_to_end::peer::{peer, run};
use end_to_end::registry::Registry;
use end_to_end::scene::{PRODUCT, Scene};
use serde_json::{Value, json};

/// A policy that allows nothing without a bill of materials in SPDX.
const DEMANDING: &str = r#"package sealift.release
import rego.v1
default allow := false
allow if count(deny) == 0
deny contains "there is no bill of materials" if input.sbom == null
deny contains "the bill of materials is not in SPDX" if {
	input.sbom != null
	input.sbom.media_type != "application/spdx+json"
}
"#;

fn json(scene: &Scene, args: &[&str]) -> Value {
    let said = scene.vendor.sealift([&["--output", "json"], args].concat()).succeeded();
    serde_json::from_str(&said.stdout).unwrap()
}

fn file(scene: &Scene, name: &str, text: &str) -> String {
    let path: PathBuf = scene.scratch.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn spdx(scene: &Scene) -> String {
    file(scene, "shop.spdx.json", &json!({"spdxVersion": "SPDX-2.3", "name": "shop", "packages": []}).to_string())
}

fn pack(scene: &Scene, plain: &str, target: &str, more: &[&str]) -> Value {
    let plain = scene.plain.reference(plain);
    json(scene, &[&["pack", &plain, target, "--product", PRODUCT], more].concat())
}

#[tokio::test]
async fn a_bill_of_materials_stands_signed_beside_every_platform_and_goes_along_to_another_customer() {
    let scene = Scene::set().await;
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    let (ours, theirs) = (registry.reference("app:v1"), registry.reference("app:customer-b"));
    let packed = pack(&scene, "multi", &ours, &["--sbom", &spdx(&scene)]);
    assert_eq!(packed["manifests"].as_array().unwrap().len(), 2);
    for manifest in packed["manifests"].as_array().unwrap() {
        assert_eq!(manifest["sbom"]["media_type"], "application/spdx+json");
    }
    json(&scene, &["rewrap", &ours, &theirs, "--product", PRODUCT]);
    for image in [&ours, &theirs] {
        for platform in json(&scene, &["verify", image, "--require-sbom"])["verified"].as_array().unwrap() {
            let sboms = platform["sboms"].as_array().unwrap();
            assert_eq!((sboms.len(), sboms[0]["signers"].as_array().unwrap().len()), (1, 1), "{sboms:?}");
            assert_eq!(sboms[0]["digest"], packed["manifests"][0]["sbom"]["digest"]);
        }
    }
    // Any tool reads it: it is a manifest with one layer.
    let name = ours.rsplit_once(':').unwrap().0;
    let attached = format!("{name}@{}", packed["manifests"][0]["sbom"]["manifest"].as_str().unwrap());
    let raw = run(peer("skopeo").args(["inspect", "--raw", "--tls-verify=false", &attached])).succeeded().stdout;
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["subject"]["digest"], packed["manifests"][0]["digest"]);
    assert_eq!(manifest["artifactType"], "application/spdx+json");
}

#[tokio::test]
async fn a_policy_may_demand_one() {
    let scene = Scene::set().await;
    let policy = file(&scene, "demanding.rego", DEMANDING);
    scene.vendor.sealift(["policy", "set", "--product", PRODUCT, &policy]).succeeded();
    let (_, license) = scene.vendor.license(PRODUCT, &[]);
    let license = license.display().to_string();
    let verify = |image: &str| scene.vendor.guest(["unpack", "--verify-only", image, "--license", &license]);
    verify(&scene.sealed).failed(5, "there is no bill of materials");
    let layout = |name: &str| format!("oci:{}:v1", scene.scratch.path().join(name).display());
    let cyclonedx = file(&scene, "shop.cdx.json", r#"{"bomFormat": "CycloneDX", "specVersion": "1.6"}"#);
    pack(&scene, "mixed", &layout("cyclonedx"), &["--sbom", &cyclonedx]);
    verify(&layout("cyclonedx")).failed(5, "is not in SPDX");
    pack(&scene, "mixed", &layout("spdx"), &["--sbom", &spdx(&scene)]);
    verify(&layout("spdx")).succeeded();
}

#[tokio::test]
async fn what_nobody_known_signed_is_no_bill_of_materials() {
    let scene = Scene::set().await;
    let target = format!("oci:{}:v1", scene.scratch.path().join("sealed-again").display());
    let packed = pack(&scene, "mixed", &target, &["--sbom", &spdx(&scene)]);
    let verify = |args: &[&str]| scene.vendor.sealift([&["verify", target.as_str()], args].concat());
    verify(&["--require-sbom"]).succeeded();
    // Its signature is taken away.
    let attached = packed["manifests"][0]["sbom"]["manifest"].as_str().unwrap().replace(':', "-");
    let index = scene.scratch.path().join("sealed-again/index.json");
    let mut listed: Value = serde_json::from_str(&fs::read_to_string(&index).unwrap()).unwrap();
    let entries = listed["manifests"].as_array_mut().unwrap();
    let before = entries.len();
    entries.retain(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] != format!("{attached}.sig"));
    assert_eq!(entries.len(), before - 1);
    fs::write(&index, listed.to_string()).unwrap();
    let said = verify(&[]).succeeded();
    assert!(said.stderr.contains("nobody known signed the bill of materials"), "{}", said.stderr);
    verify(&["--require-sbom"]).failed(4, "no bill of materials that a given key signed");
}

#[tokio::test]
async fn what_is_no_bill_of_materials_is_refused_before_anything_is_written() {
    let scene = Scene::set().await;
    let target = scene.scratch.path().join("never");
    let reference = format!("oci:{}:v1", target.display());
    for (name, text) in [("empty.json", "{}"), ("tag-value.spdx", "SPDXVersion: SPDX-2.3")] {
        let sbom = file(&scene, name, text);
        let plain = scene.plain.reference("mixed");
        let pack = ["pack", &plain, &reference, "--product", PRODUCT, "--sbom", &sbom];
        scene.vendor.sealift(pack).failed(3, "is no bill of materials that is known here");
        assert!(!target.exists());
    }
    scene
        .vendor
        .sealift(["pack", &scene.plain.reference("mixed"), &reference, "--product", PRODUCT, "--sbom", "missing.json"])
        .failed(3, "cannot read the bill of materials `missing.json`");
}
