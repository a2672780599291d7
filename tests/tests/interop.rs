//! The vendor's format against the tools of others: skopeo decrypts what we pack, we read what skopeo encrypts, and a
//! `sigstoreSigned` policy accepts our signature.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use end_to_end::debian13::Debian13;
use end_to_end::image::{PlainImage, create, manifest, open};
use end_to_end::peer::{peer, run};
use end_to_end::registry::Registry;
use end_to_end::vendor::Vendor;

const PRODUCT: &str = "recipe";

fn key_pair(directory: &Path, name: &str, algorithm: &[&str]) -> (String, String) {
    let private = directory.join(format!("{name}.key")).display().to_string();
    let public = directory.join(format!("{name}.pub")).display().to_string();
    run(peer("openssl").arg("genpkey").args(algorithm).args(["-out", &private])).succeeded();
    run(peer("openssl").args(["pkey", "-in", &private, "-pubout", "-out", &public])).succeeded();
    (private, public)
}

const RSA: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const EC: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// The digests of the plain layers of `mixed`, which decryption must give back.
async fn plain_layers(image: &PlainImage) -> Vec<String> {
    let manifest = manifest(&open(&image.reference("mixed")).await).await;
    manifest.layers.iter().map(|layer| layer.digest.to_string()).collect()
}

async fn layers(reference: &str) -> Vec<String> {
    manifest(&open(reference).await).await.layers.iter().map(|layer| layer.digest.to_string()).collect()
}

#[tokio::test]
async fn skopeo_of_debian_12_and_13_decrypts_what_pack_wrote_for_one_and_two_recipients() {
    let debian13 = Debian13::open();
    let scratch = debian13.scratch();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let expected = plain_layers(&plain).await;
    let (rsa, rsa_public) = key_pair(scratch.path(), "rsa", &RSA);
    let (ec, ec_public) = key_pair(scratch.path(), "ec", &EC);
    let one = format!("oci:{}:v1", scratch.path().join("one").display());
    let two = format!("oci:{}:v1", scratch.path().join("two").display());
    let recipients = [format!("jwe:{rsa_public}"), format!("jwe:{ec_public}")];
    let mixed = plain.reference("mixed");
    vendor.sealift(["pack", &mixed, &one, "--product", PRODUCT, "--recipient", &recipients[0]]).succeeded();
    let args =
        ["pack", &mixed, &two, "--product", PRODUCT, "--recipient", &recipients[0], "--recipient", &recipients[1]];
    vendor.sealift(args).succeeded();
    let cases = [(&one, &rsa, "rsa of one"), (&two, &rsa, "rsa of two"), (&two, &ec, "ec of two")];
    for (number, (sealed, key, what)) in cases.into_iter().enumerate() {
        // Both see the layout by a path of their own.
        let target = scratch.path().join(format!("decrypted-12-{number}"));
        let destination = format!("oci:{}:v1", target.display());
        run(peer("skopeo").args(["copy", "--decryption-key", key, sealed, &destination])).succeeded();
        assert_eq!(layers(&destination).await, expected, "Debian 12, {what}");

        let target = scratch.path().join(format!("decrypted-13-{number}"));
        let inside = |text: &str| text.replace(&debian13.root().display().to_string(), "");
        let destination = format!("oci:{}:v1", debian13.inside(&target));
        debian13.skopeo(&["copy", "--decryption-key", &inside(key), &inside(sealed), &destination]).succeeded();
        assert_eq!(layers(&format!("oci:{}:v1", target.display())).await, expected, "Debian 13, {what}");
    }
}

#[tokio::test]
async fn inspect_and_the_decrypter_read_what_skopeo_encrypted() {
    let scratch = tempfile::tempdir().unwrap();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let (private, public) = key_pair(scratch.path(), "rsa", &RSA);
    let sealed = format!("oci:{}:v1", scratch.path().join("sealed").display());
    let recipient = format!("jwe:{public}");
    run(peer("skopeo").args(["copy", "--encryption-key", &recipient, &plain.reference("gzip"), &sealed])).succeeded();
    let vendor = Vendor::start(scratch.path(), &[]);
    let inspected = vendor.sealift(["inspect", &sealed]).succeeded().stdout;
    assert!(
        inspected.contains("org.opencontainers.image.enc.keys.jwe") && inspected.contains("NOT SIGNED"),
        "{inspected}"
    );
    vendor.sealift(["verify", &sealed]).failed(4, "is not signed");

    let key = ocicrypt::layer::SealedLayer::parse;
    let private = jose::jwe::DecryptionKey::from_pem(&std::fs::read_to_string(private).unwrap()).unwrap();
    let store = open(&sealed).await;
    let expected = manifest(&open(&plain.reference("gzip")).await).await;
    let encrypted = manifest(&store).await;
    assert_eq!(encrypted.layers.len(), 4);
    for (layer, plain) in encrypted.layers.iter().zip(&expected.layers) {
        let layer_keys = key(&layer.annotations).unwrap();
        let mut decryptor = layer_keys.decryptor(layer_keys.open_with_key(&private).unwrap()).unwrap();
        let mut bytes = store.small_blob(layer, 64 << 20).await.unwrap().to_vec();
        decryptor.apply(&mut bytes).unwrap();
        decryptor.finish().unwrap();
        assert_eq!(image_store::Digest::of(&bytes), plain.digest);
    }
}

#[tokio::test]
async fn a_sigstore_policy_accepts_our_signature_and_refuses_a_tampered_manifest() {
    let debian13 = Debian13::open();
    let scratch = debian13.scratch();
    let plain = PlainImage::make(&scratch.path().join("plain")).await;
    let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
    let registry = Registry::start(&scratch.path().join("registry"));
    let name = registry.reference("vendor/recipe:v1");
    vendor.pack(&plain.reference("mixed"), &name, PRODUCT);
    let (policy, registries) = sigstore_files(&debian13, scratch.path(), &vendor, registry.port());
    let copy = |source: &str, target: &str| {
        let target = format!("dir:{}", debian13.inside(&scratch.path().join(target)));
        debian13.skopeo(&[
            "--policy",
            &policy,
            "--registries.d",
            &registries,
            "copy",
            "--src-tls-verify=false",
            source,
            &target,
        ])
    };
    copy(&name, "accepted").succeeded();

    // The same layers under a manifest with one annotation more, in the place of the signed one.
    let store = create(&name).await;
    let mut tampered = manifest(&store).await;
    tampered.annotations.insert("org.example.note".to_owned(), "tampered".to_owned());
    store.put_image(tampered.to_bytes().unwrap(), image_store::media_type::OCI_MANIFEST).await.unwrap();
    let refused = copy(&name, "refused");
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("signature"), "{}", refused.stderr);
    vendor.sealift(["verify", &name]).failed(4, "is not signed");
}

fn sigstore_files(debian13: &Debian13, scratch: &Path, vendor: &Vendor, port: u16) -> (String, String) {
    let key = scratch.join("signing.pub");
    std::fs::copy(vendor.home().join("signing.pub"), &key).unwrap();
    let rule = serde_json::json!([{"type": "sigstoreSigned", "keyPath": debian13.inside(&key)}]);
    let policy = serde_json::json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {format!("127.0.0.1:{port}"): rule}},
    });
    let policy_path = scratch.join("policy.json");
    std::fs::write(&policy_path, policy.to_string()).unwrap();
    let registries = scratch.join("registries.d");
    std::fs::create_dir(&registries).unwrap();
    let text = format!("docker:\n  127.0.0.1:{port}:\n    use-sigstore-attachments: true\n");
    std::fs::write(registries.join("loopback.yaml"), text).unwrap();
    (debian13.inside(&policy_path), debian13.inside(&registries))
}
