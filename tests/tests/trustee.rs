//! Images whose keys a Trustee key broker holds: opened without a licence, by the signer that the operator names.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use end_to_end::image::{create, manifest};
use end_to_end::peer::{Said, peer, run};
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::trustee::Trustee;
use image_store::{Place, media_type};
use jose::jwe::DecryptionKey;
use jose::signing::SigningKey;
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::layer::{LayerAnnotations, SealedLayer, is_encryption_annotation};
use ocicrypt::options::{self, PublicOptions};
use ocicrypt::packet::Kid;

const KEK: [u8; 32] = *b"a key that Trustee has in store!";
const KEY_PATH: &str = "default/key/app1";

/// The vendor of an image whose key is a resource of Trustee's: the same layers, the same packet.
struct Site {
    scene: Scene,
    image: String,
    signer: String,
}

impl Site {
    async fn set() -> Self {
        let scene = Scene::set().await;
        let scratch = scene.scratch.path().to_owned();
        let (private, public) = (scratch.join("escrow.key"), scratch.join("escrow.pub"));
        run(peer("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&private))
        .succeeded();
        run(peer("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public)).succeeded();
        let image = format!("oci:{}:v1", scratch.join("brokered").display());
        let recipient = format!("jwe:{}", public.display());
        let plain = scene.plain.reference("mixed");
        scene.vendor.sealift(["pack", &plain, &image, "--product", PRODUCT, "--recipient", &recipient]).succeeded();
        let escrow = DecryptionKey::from_pem(&std::fs::read_to_string(private).unwrap()).unwrap();
        let signing = SigningKey::generate().unwrap();
        let signer = scratch.join("signer.pub");
        std::fs::write(&signer, signing.verifying_key().to_spki_pem().unwrap()).unwrap();
        give_to_broker(&image, &escrow, &signing).await;
        Self { scene, image, signer: signer.display().to_string() }
    }

    fn run(&self, broker: &Trustee, signer: &str, more: &[&str]) -> Said {
        let mut shim = self.scene.vendor.bare_shim();
        shim.env("SEALIFT_SIMULATED_PLATFORM", "sample").args(["run", &self.image, "--kbs", "trustee"]);
        let said = run(shim.args(["--kbs-url", broker.url(), "--signer", signer]).args(more));
        self.scene.vendor.assert_nothing_left();
        said
    }
}

/// Wraps the layers' keys by a key of the broker's alone, and signs.
async fn give_to_broker(image: &str, escrow: &DecryptionKey, signing: &SigningKey) {
    let store = create(image).await;
    let mut manifest = manifest(&store).await;
    let kid: Kid = format!("kbs:///{KEY_PATH}").parse().unwrap();
    for layer in &mut manifest.layers {
        let private = SealedLayer::parse(&layer.annotations).unwrap().open_with_key(escrow).unwrap();
        let public = PublicOptions::from_annotation(&layer.annotations[options::ANNOTATION]).unwrap();
        layer.annotations.retain(|name, _| !is_encryption_annotation(name));
        let kek = KeyEncryptionKey::try_init(|key| {
            key.copy_from_slice(&KEK);
            Ok::<_, ()>(())
        })
        .unwrap();
        layer
            .annotations
            .extend(LayerAnnotations::new(public, &private).with_kek(&kid, &kek).unwrap().build().unwrap());
    }
    let digest = store.put_image(manifest.to_bytes().unwrap(), media_type::OCI_MANIFEST).await.unwrap();
    let digest = digest.to_string();
    let artifact = image_signature::sign(&digest, "localhost/app:v1", signing).unwrap();
    for payload in artifact.payloads {
        store.put_blob(image_signature::PAYLOAD_MEDIA_TYPE, payload.bytes.into()).await.unwrap();
    }
    store.put_blob(image_signature::CONFIG_MEDIA_TYPE, artifact.config.bytes.into()).await.unwrap();
    let place = Place::Tag(image_signature::signature_tag(&digest).unwrap());
    store.put_manifest(artifact.manifest.into(), image_signature::MANIFEST_MEDIA_TYPE, place).await.unwrap();
    store.commit().await.unwrap();
}

#[tokio::test]
async fn an_image_whose_key_trustee_holds_runs_and_says_that_nothing_stops_it() {
    let site = Site::set().await;
    let broker = Trustee::start(&[(KEY_PATH, &KEK), ("default/config/greeting", b"from Trustee\n")]);
    let secret = ["--secret", "config/greeting=/opt/opaque/upper"];
    let said = site.run(&broker, &site.signer, &secret);
    assert_eq!(said.code, 7, "{}", said.stderr);
    assert!(said.stdout.contains("from Trustee"), "{}", said.stdout);
    for words in ["the evidence is a SAMPLE", "attested (SIMULATED platform) to a Trustee key broker; no lease"] {
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
    let expected = [
        "POST /kbs/v0/auth",
        "POST /kbs/v0/attest",
        "GET /kbs/v0/resource/default/key/app1",
        "GET /kbs/v0/resource/default/config/greeting",
    ];
    assert_eq!(broker.seen(), expected);
}

#[tokio::test]
async fn without_the_key_or_the_signer_nothing_starts() {
    let site = Site::set().await;
    let broker = Trustee::start(&[]);
    site.run(&broker, &site.signer, &[]).failed(125, "the service does not give what it is asked for");
    let wrong = Trustee::start(&[(KEY_PATH, &[7; 32])]);
    site.run(&wrong, &site.signer, &[]).failed(124, "the released key does not open the layer");
    // Another's signature: the broker is not asked at all.
    let other = site.scene.scratch.path().join("other.pub");
    std::fs::write(&other, SigningKey::generate().unwrap().verifying_key().to_spki_pem().unwrap()).unwrap();
    let unasked = Trustee::start(&[(KEY_PATH, &KEK)]);
    site.run(&unasked, &other.display().to_string(), &[]).failed(124, "is signed by none of the keys");
    assert!(unasked.seen().is_empty());
}

#[tokio::test]
async fn a_broker_is_named_with_its_signer_and_its_authority() {
    let scene = Scene::set().await;
    let shim = |more: &[&str]| {
        let mut shim = scene.vendor.bare_shim();
        run(shim
            .env("SEALIFT_SIMULATED_PLATFORM", "sample")
            .args(["run", &scene.sealed, "--kbs", "trustee"])
            .args(more))
    };
    shim(&["--kbs-url", "http://127.0.0.1:1"]).failed(122, "--signer");
    shim(&["--kbs-url", "http://127.0.0.1:1", "--signer", "k", "--license", &scene.license]).failed(122, "--license");
    let key = scene.vendor.home().join("signing.pub").display().to_string();
    shim(&["--kbs-url", "http://kbs.example", "--signer", &key]).failed(122, "nothing says whose certificate");
    shim(&["--kbs-url", "http://127.0.0.1:1", "--signer", &scene.license]).failed(123, "is no public key of a signer");
}
