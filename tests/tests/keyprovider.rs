//! Images that an unmodified skopeo encrypts through `sealift keyprovider`: they run once `pack --finish` has seen them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use end_to_end::debian13::Debian13;
use end_to_end::image::{PlainImage, create, manifest, open};
use end_to_end::peer::{Said, program, run};
use end_to_end::registry::{Registry, free_port};
use end_to_end::running::Running;
use end_to_end::vendor::Vendor;
use serde_json::{Value, json};
use tempfile::TempDir;

const PRODUCT: &str = "recipe";
/// What the image's script prints as root.
const OUTPUT: &str = "hello world from 0 in /opt\nupper\n";

/// A vendor whose home and program lie inside the box, for skopeo to run.
struct Scene {
    vendor: Vendor,
    plain: PlainImage,
    config: PathBuf,
    scratch: TempDir,
    debian13: Debian13,
}

impl Scene {
    async fn make() -> Self {
        let debian13 = Debian13::open();
        let scratch = debian13.scratch();
        let plain = PlainImage::make(&scratch.path().join("plain")).await;
        let vendor = Vendor::start(scratch.path(), &[PRODUCT]);
        let provider = scratch.path().join("sealift");
        std::fs::copy(program("sealift"), &provider).unwrap();
        let args = ["--home", &debian13.inside(vendor.home()), "keyprovider"].map(ToOwned::to_owned);
        let command = json!({"path": debian13.inside(&provider), "args": args});
        let config = scratch.path().join("keyprovider.json");
        let providers =
            ["attestation-agent", "sealift", "other"].map(|name| (name.to_owned(), json!({"cmd": command})));
        let text = json!({"key-providers": serde_json::Map::from_iter(providers)});
        std::fs::write(&config, text.to_string()).unwrap();
        Self { vendor, plain, config, scratch, debian13 }
    }

    /// `skopeo copy --encryption-key provider:PROVIDER` of a plain image; gives the digest that skopeo wrote, too.
    fn encrypt(&self, provider: &str, tag: &str, destination: &str, more: &[&str]) -> (Said, String) {
        let digest = self.scratch.path().join("digest");
        let source = format!("oci:{}:{tag}", self.debian13.inside(self.plain.directory()));
        let mut skopeo = self.debian13.command("skopeo");
        skopeo.args(["copy", "--insecure-policy", "--dest-tls-verify=false", "--encryption-key"]);
        skopeo.arg(format!("provider:{provider}")).arg("--digestfile").arg(self.debian13.inside(&digest));
        skopeo.args(more).args([&source, destination]);
        let said = run(skopeo.env("OCICRYPT_KEYPROVIDER_CONFIG", self.debian13.inside(&self.config)));
        (said, std::fs::read_to_string(digest).unwrap_or_default().trim().to_owned())
    }

    /// Lets every provider be asked at an address.
    fn ask_over_grpc(&self, address: &str) {
        let server = json!({"grpc": address});
        let text = json!({"key-providers": {"attestation-agent": server, "sealift": server}});
        std::fs::write(&self.config, text.to_string()).unwrap();
    }

    /// `skopeo copy --decryption-key` of a registry's image, with what `config` in the box says of key providers.
    fn decrypt(&self, sealed: &str, target: &str, config: &str) -> Command {
        let mut skopeo = self.debian13.command("skopeo");
        skopeo.args(["copy", "--insecure-policy", "--src-tls-verify=false", "--decryption-key"]);
        skopeo.args(["provider:attestation-agent:any", sealed, target]);
        skopeo.env("OCICRYPT_KEYPROVIDER_CONFIG", config);
        skopeo
    }

    /// A configuration whose provider is the shim in a simulated guest; the path as the box sees it.
    fn decrypting_config(&self) -> String {
        let inside = |name: &str| self.debian13.inside(&self.scratch.path().join(name));
        std::fs::copy(program("sealift-shim"), self.scratch.path().join("sealift-shim")).unwrap();
        let home = self.debian13.inside(self.vendor.home());
        let args = ["--home", &home, "simulate", "launch", "--initrd", &inside("sealift-shim"), "--", "keyprovider"];
        let command = json!({"path": inside("sealift"), "args": args});
        let text = json!({"key-providers": {"attestation-agent": {"cmd": command}}});
        std::fs::write(self.scratch.path().join("decrypt.json"), text.to_string()).unwrap();
        inside("decrypt.json")
    }

    fn finish(&self, reference: &str, more: &[&str]) -> Said {
        run(self.vendor.command(["pack", "--product", PRODUCT, "--finish", reference]).args(more))
    }

    fn layout(&self, name: &str) -> (String, String) {
        let path = self.scratch.path().join(name);
        (format!("oci:{}:v1", path.display()), format!("oci:{}:v1", self.debian13.inside(&path)))
    }

    fn run(&self, reference: &str, license: &Path) -> Said {
        self.vendor.guest(["run", reference, "--license", &license.display().to_string()])
    }
}

#[tokio::test]
async fn what_skopeo_encrypted_runs_once_it_is_finished_and_not_before() {
    let scene = Scene::make().await;
    let (_, license) = scene.vendor.license(PRODUCT, &[]);
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    let name = registry.reference("vendor/recipe:v1");
    let (said, digest) = scene.encrypt("attestation-agent:recipe", "mixed", &name, &[]);
    said.succeeded();
    let reference = format!("{name}@{digest}");

    scene.run(&reference, &license).failed(124, "is not signed");
    scene.finish(&name, &[]).failed(2, "names a tag");
    let other = ["pack", "--product", "bank", "--finish", &reference];
    scene.vendor.sealift(other).failed(3, "sealed to no key of this product");

    // Twice: it may have been interrupted.
    for _ in 0..2 {
        let finished = scene.finish(&reference, &[]).succeeded().stdout;
        assert_eq!(finished.trim(), reference.replace(":v1@", "@"), "the image's bytes stay as they are");
    }
    scene.vendor.sealift(["verify", &reference, "--deep"]).succeeded();
    let said = scene.run(&reference, &license);
    assert_eq!((said.code, said.stdout.as_str()), (7, OUTPUT), "{}", said.stderr);
    scene.vendor.assert_nothing_left();

    // The same layers under another manifest would be another image.
    let store = create(&name).await;
    let mut other = manifest(&store).await;
    other.annotations.insert("org.example.note".to_owned(), "another".to_owned());
    let digest = store.put_image(other.to_bytes().unwrap(), image_store::media_type::OCI_MANIFEST).await.unwrap();
    scene.finish(&format!("{name}@{digest}"), &[]).failed(3, "is bound to other manifests already");
}

#[tokio::test]
async fn what_the_provider_sealift_encrypts_is_finished_for_guests_that_know_another_name() {
    let scene = Scene::make().await;
    let (_, license) = scene.vendor.license(PRODUCT, &[]);
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    let name = registry.reference("vendor/recipe:v1");
    let (said, digest) = scene.encrypt("sealift:product=recipe", "mixed", &name, &[]);
    said.succeeded();
    let pushed = format!("{name}@{digest}");

    // Twice: it may have been interrupted.
    for _ in 0..2 {
        let said = scene.finish(&pushed, &[]).succeeded();
        assert!(said.stderr.contains("moved the key packets"), "{}", said.stderr);
        let finished = said.stdout.trim();
        assert_ne!(finished, pushed.replace(":v1@", "@"));
        scene.vendor.sealift(["verify", finished, "--deep"]).succeeded();
        let layers = manifest(&open(finished).await).await.layers;
        let at = |annotation| layers.iter().filter(|layer| layer.annotations.contains_key(annotation)).count();
        assert_eq!(at(ocicrypt::packet::ANNOTATION), layers.len());
        assert_eq!(at(ocicrypt::packet::OWN_ANNOTATION), 0);
        let tagged = open(&name).await.resolve().await.unwrap().digest.to_string();
        assert!(finished.ends_with(&tagged), "the tag moved with the image");
        let said = scene.run(finished, &license);
        assert_eq!((said.code, said.stdout.as_str()), (7, OUTPUT), "{}", said.stderr);
    }
    // What was pushed is neither signed nor bound to a key.
    scene.run(&pushed, &license).failed(124, "is not signed");

    // A tag that somebody has moved on since stays where it is.
    let (said, later) = scene.encrypt("attestation-agent:recipe", "gzip", &name, &[]);
    said.succeeded();
    scene.finish(&pushed, &[]).succeeded();
    assert_eq!(open(&name).await.resolve().await.unwrap().digest.to_string(), later);
}

#[tokio::test]
async fn skopeo_encrypts_and_decrypts_over_grpc() {
    let scene = Scene::make().await;
    let (_, license) = scene.vendor.license(PRODUCT, &["--seats", "1"]);
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    let name = registry.reference("vendor/recipe:v1");
    let address = format!("127.0.0.1:{}", free_port());
    scene.ask_over_grpc(&address);
    let log = scene.scratch.path().join("provider.log");
    let mut command = scene.vendor.command(["keyprovider", "--listen", &address]);
    let server = Running::start(&mut command, &log);
    let (said, digest) = scene.encrypt("sealift:product=recipe", "gzip", &name, &[]);
    said.succeeded();
    let (said, _) = scene.encrypt("sealift:product=bank", "gzip", &registry.reference("refused:v1"), &[]);
    assert!(said.code != 0 && said.stderr.contains("there is no product `bank`"), "{}", said.stderr);
    let sealed = scene.finish(&format!("{name}@{digest}"), &[]).succeeded().stdout.trim().to_owned();
    drop(server);

    // The other side on a socket of its owner's alone.
    let socket = scene.scratch.path().join("opening.sock");
    scene.ask_over_grpc(&format!("unix://{}", scene.debian13.inside(&socket)));
    let address = format!("unix:{}", socket.display());
    let mut command = scene.vendor.guest_command(&scene.vendor.shim(), ["keyprovider", "--listen", &address]);
    command.env("SEALIFT_IMAGE", &sealed).env("SEALIFT_LICENSE", &license);
    let _server = Running::start(&mut command, &log);
    let (outside, inside) = scene.layout("plain-again");
    run(&mut scene.decrypt(&sealed, &inside, &scene.debian13.inside(&scene.config))).succeeded();
    assert_eq!(layers(&outside).await, layers(&scene.plain.reference("gzip")).await);
    assert!(!scene.vendor.sealift(["lease", "list"]).succeeded().stdout.contains("live"), "the seats are given back");
}

#[tokio::test]
async fn a_server_ends_by_itself_when_told_and_listens_to_no_other_machine() {
    let scene = Scene::make().await;
    let far = scene.vendor.sealift(["keyprovider", "--listen", "0.0.0.0:0"]);
    far.failed(2, "can be reached by other machines");
    let socket = scene.scratch.path().join("provider.sock");
    let mut command = scene.vendor.command(["keyprovider", "--listen", &format!("unix:{}", socket.display())]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("unix:") && socket.exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn every_platform_of_an_index_is_finished() {
    let scene = Scene::make().await;
    let (_, license) = scene.vendor.license(PRODUCT, &[]);
    for provider in ["attestation-agent:recipe", "sealift:recipe"] {
        let (reference, inside) = scene.layout(&provider.replace(':', "-"));
        scene.encrypt(provider, "multi", &inside, &["--all"]).0.succeeded();
        finish_both_platforms(&scene, &reference, &license);
    }
}

fn finish_both_platforms(scene: &Scene, reference: &str, license: &Path) {
    let mut finish = scene.vendor.command(["--output", "json", "pack", "--product", PRODUCT, "--finish", reference]);
    let finished: Value = serde_json::from_str(&run(&mut finish).succeeded().stdout).unwrap();
    let platforms: Vec<_> = finished["manifests"].as_array().unwrap().iter().map(|one| &one["platform"]).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    let said = scene.run(reference, license);
    assert_eq!((said.code, said.stdout.as_str()), (7, OUTPUT), "{}", said.stderr);
}

#[tokio::test]
async fn a_layer_that_skopeo_left_plain_is_not_signed_unless_the_layers_are_named() {
    let scene = Scene::make().await;
    let (reference, inside) = scene.layout("partly");
    scene.encrypt("attestation-agent:recipe", "gzip", &inside, &["--encrypt-layer", "1"]).0.succeeded();
    scene.finish(&reference, &[]).failed(3, "is plain");
    scene.vendor.sealift(["verify", &reference]).failed(4, "is not signed");
    scene.finish(&reference, &["--layers", "1"]).succeeded();
    scene.vendor.sealift(["verify", &reference]).succeeded();
}

#[tokio::test]
async fn a_provider_of_another_name_or_without_a_product_wraps_nothing() {
    let scene = Scene::make().await;
    for (number, (provider, words)) in [
        ("other:recipe", "the key provider is named neither `sealift` nor `attestation-agent`"),
        ("attestation-agent", "the key provider is told no product"),
        ("attestation-agent:bank", "there is no product `bank`"),
    ]
    .into_iter()
    .enumerate()
    {
        let (said, _) = scene.encrypt(provider, "gzip", &scene.layout(&format!("refused-{number}")).1, &[]);
        assert_ne!(said.code, 0, "{provider}");
        assert!(said.stderr.contains(words), "{provider}: {}", said.stderr);
    }
    let mut unwrap =
        scene.vendor.command(["keyprovider"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    unwrap.stdin.take().unwrap().write_all(br#"{"op":"keyunwrap","keyunwrapparams":{"annotation":"e30="}}"#).unwrap();
    Said::from(unwrap.wait_with_output().unwrap()).failed(3, "cannot answer the request");
}

#[tokio::test]
async fn skopeo_decrypts_in_a_guest_what_its_licence_opens_and_no_other_image() {
    let scene = Scene::make().await;
    let (_, license) = scene.vendor.license(PRODUCT, &["--seats", "1"]);
    let registry = Registry::start(&scene.scratch.path().join("registry"));
    let sealed = ["one", "two"].map(|name| {
        let name = registry.reference(&format!("{name}:v1"));
        let (said, digest) = scene.encrypt("attestation-agent:recipe", "gzip", &name, &[]);
        said.succeeded();
        scene.finish(&format!("{name}@{digest}"), &[]).succeeded().stdout.trim().to_owned()
    });
    let decrypt = |image: &str, target: &str, license: &Path| {
        let mut skopeo = scene.decrypt(&sealed[0], target, &scene.decrypting_config());
        run(skopeo.env("SEALIFT_IMAGE", image).env("SEALIFT_LICENSE", scene.debian13.inside(license)))
    };
    let (outside, inside) = scene.layout("plain-again");
    // From a registry, skopeo asks for all layers at once; there is one seat.
    decrypt(&sealed[0], &inside, &license).succeeded();
    assert_eq!(layers(&outside).await, layers(&scene.plain.reference("gzip")).await);

    let refused = scene.layout("refused").1;
    let said = decrypt(&sealed[1], &refused, &license);
    assert!(said.code != 0 && said.stderr.contains("has the key packet"), "{}", said.stderr);
    let (id, revoked) = scene.vendor.license(PRODUCT, &[]);
    scene.vendor.sealift(["license", "revoke", &id, "--reason", "contract ended"]).succeeded();
    let said = decrypt(&sealed[0], &refused, &revoked);
    assert!(said.code != 0 && said.stderr.contains("revoked"), "{}", said.stderr);
    assert!(!scene.vendor.sealift(["lease", "list"]).succeeded().stdout.contains("live"), "the seats are given back");
}

async fn layers(reference: &str) -> Vec<String> {
    manifest(&open(reference).await).await.layers.iter().map(|layer| layer.digest.to_string()).collect()
}
