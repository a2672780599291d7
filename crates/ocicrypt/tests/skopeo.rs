//! Both ways with skopeo, that is with Go's ocicrypt: what it encrypts is opened here, what is
//! encrypted here it decrypts. RSA and elliptic curve keys, one recipient and two, tar, gzip and
//! zstd layers. Another skopeo than the one in the path is taken from the variable `SKOPEO`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ocicrypt::cipher::{AES_256_CTR_HMAC_SHA256, Digest, by_name};
use ocicrypt::jwe::{DecryptionKey, Recipient};
use ocicrypt::layer::{LayerAnnotations, SealedLayer};
use ocicrypt::media_type;
use serde_json::{Value, json};

const RSA: &str = include_str!("data/rsa.pem");
/// Without it skopeo compresses plain tar on the way.
const KEEP_PLAIN_TAR: &str = "--dest-oci-accept-uncompressed-layers";
const EC: &str = include_str!("data/ec-p256.pem");

/// A test's folder with its keys.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a key pair, gives the paths of its private and public halves.
    fn key_files(&self, name: &str, private: &str) -> (String, String) {
        let key = DecryptionKey::from_pem(private).unwrap();
        let paths = [format!("{name}.pem"), format!("{name}.pub.pem")].map(|name| self.path(&name));
        fs::write(&paths[0], private).unwrap();
        fs::write(&paths[1], key.public_key().to_spki_pem().unwrap()).unwrap();
        let [private, public] = paths.map(|path| path.to_str().unwrap().to_owned());
        (private, public)
    }

    fn skopeo(&self, options: &[String], source: &str, target: &str) -> Output {
        let program = std::env::var_os("SKOPEO").unwrap_or_else(|| "skopeo".into());
        let mut command = Command::new(program);
        command.args(["--insecure-policy", "copy", "--quiet"]).args(options);
        for layout in [source, target] {
            command.arg(format!("oci:{}:test", self.path(layout).display()));
        }
        command.output().unwrap_or_else(|error| {
            panic!("skopeo does not start ({error}); this test needs it: apt-get install -y skopeo")
        })
    }

    fn skopeo_ok(&self, options: &[String], source: &str, target: &str) {
        let output = self.skopeo(options, source, target);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// An OCI image layout in a folder.
struct Layout(PathBuf);

impl Layout {
    fn create(path: &Path) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(path.to_owned())
    }

    fn put(&self, media_type: &str, blob: &[u8]) -> Value {
        let digest = Digest::of(blob).to_string();
        fs::write(self.blob(&digest), blob).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": blob.len() })
    }

    fn finish(&self, config: &Value, layers: &[Value]) {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers
        });
        let mut descriptor = self.put(media_type, manifest.to_string().as_bytes());
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "test" });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    fn manifest(&self) -> Value {
        let index: Value = serde_json::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap();
        serde_json::from_slice(&self.get(&index["manifests"][0])).unwrap()
    }

    fn layers(&self) -> Vec<Value> {
        self.manifest()["layers"].as_array().unwrap().clone()
    }

    fn get(&self, descriptor: &Value) -> Vec<u8> {
        fs::read(self.blob(descriptor["digest"].as_str().unwrap())).unwrap()
    }

    fn contents(&self) -> Vec<(Value, Vec<u8>)> {
        self.layers().iter().map(|layer| (layer["mediaType"].clone(), self.get(layer))).collect()
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("blobs").join(digest.replace(':', "/"))
    }
}

/// An image of three layers: tar, gzip, zstd.
fn plain_image(bench: &Bench) -> Layout {
    let layout = Layout::create(&bench.path("plain"));
    let tars = ["one", "two", "three"].map(|name| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(40_000);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &name.repeat(40_000).as_bytes()[..40_000]).unwrap();
        archive.into_inner().unwrap()
    });
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tars[1]).unwrap();
    let layers = [
        layout.put("application/vnd.oci.image.layer.v1.tar", &tars[0]),
        layout.put("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish().unwrap()),
        layout.put("application/vnd.oci.image.layer.v1.tar+zstd", &zstd::encode_all(&tars[2][..], 1).unwrap()),
    ];
    let diff_ids = tars.map(|tar| Digest::of(&tar).to_string());
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids }
    });
    let config = layout.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    layout.finish(&config, &layers);
    layout
}

/// Encrypts an image as the packager does.
fn encrypt(bench: &Bench, plain: &Layout, recipients: &[Recipient]) -> Layout {
    let sealed = Layout::create(&bench.path("sealed"));
    let manifest = plain.manifest();
    let config = sealed.put(manifest["config"]["mediaType"].as_str().unwrap(), &plain.get(&manifest["config"]));
    let layers: Vec<_> = plain
        .layers()
        .iter()
        .map(|descriptor| {
            let mut layer = plain.get(descriptor);
            let digest = Digest::of(&layer);
            let mut encryptor = by_name(AES_256_CTR_HMAC_SHA256).unwrap().encryptor().unwrap();
            // Odd chunks, so that the key stream is entered in the middle of blocks.
            layer.chunks_mut(4_099).for_each(|chunk| encryptor.apply(chunk).unwrap());
            let (public, private) = encryptor.finish(digest);
            let annotations =
                LayerAnnotations::new(public, &private).with_recipients(recipients).unwrap().build().unwrap();
            let media_type = media_type::encrypted(descriptor["mediaType"].as_str().unwrap()).unwrap();
            let mut descriptor = sealed.put(&media_type, &layer);
            descriptor["annotations"] = json!(annotations);
            descriptor
        })
        .collect();
    sealed.finish(&config, &layers);
    sealed
}

/// Decrypts every layer with `key`: media types and contents of the plain image.
fn decrypt(sealed: &Layout, key: &DecryptionKey) -> Vec<(Value, Vec<u8>)> {
    let open = |descriptor: &Value| {
        let annotations: BTreeMap<String, String> = serde_json::from_value(descriptor["annotations"].clone()).unwrap();
        let layer = SealedLayer::parse(&annotations).unwrap();
        let private = layer.open_with_key(key).unwrap();
        let mut bytes = sealed.get(descriptor);
        let mut decryptor = layer.decryptor(private).unwrap();
        bytes.chunks_mut(1_021).for_each(|chunk| decryptor.apply(chunk).unwrap());
        let promised = decryptor.finish().expect("the HMAC");
        assert_eq!(promised, Digest::of(&bytes));
        let media_type = media_type::plain(descriptor["mediaType"].as_str().unwrap()).unwrap();
        (json!(media_type), bytes)
    };
    sealed.layers().iter().map(open).collect()
}

#[test]
fn what_skopeo_encrypts_is_opened() {
    for privates in [&[RSA][..], &[EC], &[RSA, EC]] {
        let bench = Bench::new();
        let plain = plain_image(&bench);
        let mut options = vec![KEEP_PLAIN_TAR.to_owned()];
        for (index, private) in privates.iter().enumerate() {
            let (_, public) = bench.key_files(&index.to_string(), private);
            options.extend(["--encryption-key".to_owned(), format!("jwe:{public}")]);
        }
        bench.skopeo_ok(&options, "plain", "theirs");
        let theirs = Layout(bench.path("theirs"));
        for private in privates {
            let key = DecryptionKey::from_pem(private).unwrap();
            assert_eq!(decrypt(&theirs, &key), plain.contents());
        }
    }
}

/// So a reader that finds another digest than the promised one has to look at the uncompressed
/// layer before it gives up.
#[test]
fn skopeo_promises_the_digest_of_what_it_read_even_where_it_compressed() {
    let bench = Bench::new();
    let plain = plain_image(&bench);
    let (_, public) = bench.key_files("rsa", RSA);
    bench.skopeo_ok(&["--encryption-key".to_owned(), format!("jwe:{public}")], "plain", "theirs");
    let theirs = Layout(bench.path("theirs"));
    let descriptor = &theirs.layers()[0];
    assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    let annotations: BTreeMap<String, String> = serde_json::from_value(descriptor["annotations"].clone()).unwrap();
    let layer = SealedLayer::parse(&annotations).unwrap();
    let private = layer.open_with_key(&DecryptionKey::from_pem(RSA).unwrap()).unwrap();
    let mut bytes = theirs.get(descriptor);
    let mut decryptor = layer.decryptor(private).unwrap();
    decryptor.apply(&mut bytes).unwrap();
    let promised = decryptor.finish().unwrap();
    assert_ne!(promised, Digest::of(&bytes));
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
    assert_eq!(promised, Digest::of(&tar));
    assert_eq!(promised.to_string(), plain.layers()[0]["digest"].as_str().unwrap());
}

#[test]
fn what_is_encrypted_here_skopeo_decrypts() {
    for privates in [&[RSA][..], &[EC], &[RSA, EC]] {
        let bench = Bench::new();
        let plain = plain_image(&bench);
        let recipient = |pem: &&str| Recipient::new(DecryptionKey::from_pem(pem).unwrap().public_key().clone());
        let recipients: Vec<_> = privates.iter().map(recipient).collect();
        encrypt(&bench, &plain, &recipients);
        for (index, private) in privates.iter().enumerate() {
            let (private, _) = bench.key_files(&index.to_string(), private);
            let target = format!("theirs-{index}");
            let options = [KEEP_PLAIN_TAR, "--decryption-key", &private].map(str::to_owned);
            bench.skopeo_ok(&options, "sealed", &target);
            assert_eq!(Layout(bench.path(&target)).contents(), plain.contents());
        }
    }
}

#[test]
fn skopeo_refuses_a_layer_whose_hmac_does_not_match() {
    let bench = Bench::new();
    let plain = plain_image(&bench);
    let key = DecryptionKey::from_pem(RSA).unwrap();
    let sealed = encrypt(&bench, &plain, &[Recipient::new(key.public_key().clone())]);
    let mut layers = sealed.layers();
    let mut bytes = sealed.get(&layers[0]);
    bytes[20_000] ^= 1;
    let changed = sealed.put("", &bytes);
    layers[0]["digest"] = changed["digest"].clone();
    sealed.finish(&sealed.manifest()["config"], &layers);
    let (private, _) = bench.key_files("rsa", RSA);
    let output = bench.skopeo(&["--decryption-key".to_owned(), private], "sealed", "theirs");
    assert!(!output.status.success());
}
