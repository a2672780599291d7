//! skopeo with a `sigstoreSigned` policy, which is what podman and CRI-O use as well, accepts our
//! signatures and refuses what is not signed. The image and its signature are served from memory.
//! Debian 12 builds its skopeo without these policies, so the one of `tests/debian13-box` runs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use image_signature::{Appended, MANIFEST_MEDIA_TYPE, SignatureArtifact, append, sign, signature_tag};
use jose::jws::SigningKey;
use serde_json::json;

/// The parts of the registry protocol that a pull needs, over a fixed set of blobs and manifests.
struct Registry {
    address: String,
}

/// Blobs by digest, manifests by digest and tag.
type Content = BTreeMap<String, Vec<u8>>;

impl Registry {
    fn serve(listener: TcpListener, content: Content) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let content = Arc::new(content);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let content = Arc::clone(&content);
                std::thread::spawn(move || answer(stream, &content));
            }
        });
        Self { address }
    }
}

fn answer(mut stream: TcpStream, content: &Content) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    lines.map_while(Result::ok).find(String::is_empty)?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let name = path.rsplit('/').next()?;
    let (status, body) = match content.get(name) {
        Some(body) => ("200 OK", body.as_slice()),
        None if path == "/v2/" => ("200 OK", &b"{}"[..]),
        None => ("404 Not Found", &br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#[..]),
    };
    let media_type = if path.contains("/manifests/") { MANIFEST_MEDIA_TYPE } else { "application/octet-stream" };
    let len = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    if method != "HEAD" {
        stream.write_all(body).ok()?;
    }
    stream.flush().ok()
}

fn digest(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = hash.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("sha256:{hex}")
}

/// An image without layers, tagged `latest`: its content and digest.
fn image() -> (Content, String) {
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] }
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config),
            "size": config.len(),
        },
        "layers": [],
    })
    .to_string()
    .into_bytes();
    let manifest_digest = digest(&manifest);
    let content = BTreeMap::from([
        (digest(&config), config),
        (manifest_digest.clone(), manifest.clone()),
        ("latest".to_owned(), manifest),
    ]);
    (content, manifest_digest)
}

fn store(content: &mut Content, artifact: &SignatureArtifact, manifest_digest: &str) {
    for blob in artifact.payloads.iter().chain([&artifact.config]) {
        content.insert(blob.digest.clone(), blob.bytes.clone());
    }
    content.insert(signature_tag(manifest_digest).unwrap(), artifact.manifest.clone());
}

/// The folder with Debian 13 and its skopeo, made when it is not there yet.
fn debian13_box() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/debian13-box");
    let output = Command::new(&script).output().unwrap();
    assert!(
        output.status.success(),
        "this test needs skopeo 1.13 or later; {} did not provide it: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Copies `reference` out of the registry under a policy that demands a signature of `key`.
fn accepted(registry: &Registry, reference: &str, key: &SigningKey, identity: &str) -> Result<(), String> {
    let debian13 = debian13_box();
    let folder = tempfile::tempdir_in(debian13.join("tmp")).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // The same file as skopeo sees it.
    let inner = |name: &str| path(name).replacen(debian13.to_str().unwrap(), "", 1);
    fs::write(path("key.pub"), key.verifying_key().to_spki_pem().unwrap()).unwrap();
    let demand =
        json!({ "type": "sigstoreSigned", "keyPath": inner("key.pub"), "signedIdentity": { "type": identity } });
    let policy =
        json!({ "default": [{ "type": "reject" }], "transports": { "docker": { &registry.address: [demand] } } });
    fs::write(path("policy.json"), policy.to_string()).unwrap();
    fs::create_dir(path("registries.d")).unwrap();
    let lookup = format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", registry.address);
    fs::write(path("registries.d/local.yaml"), lookup).unwrap();
    let output = Command::new("chroot")
        .arg(&debian13)
        .args(["skopeo", "--policy", &inner("policy.json"), "--registries.d", &inner("registries.d")])
        .args(["copy", "--quiet", "--src-tls-verify=false", "--remove-signatures"])
        .arg(format!("docker://{}/app{reference}", registry.address))
        .arg(format!("dir:{}", inner("out")))
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn skopeo_accepts_a_signed_image_by_digest_and_by_tag() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/app", listener.local_addr().unwrap());
    let (mut content, manifest_digest) = image();
    let keys = [SigningKey::generate().unwrap(), SigningKey::generate().unwrap()];
    let first = sign(&manifest_digest, &format!("{name}:latest"), &keys[0]).unwrap();
    store(&mut content, &first, &manifest_digest);
    let Appended::Signed(second) = append(&first.manifest, &manifest_digest, &name, &keys[1]).unwrap() else {
        panic!("a new signature")
    };
    store(&mut content, &second, &manifest_digest);
    let registry = Registry::serve(listener, content);
    let by_digest = format!("@{manifest_digest}");
    for reference in [&by_digest, ":latest"] {
        for key in &keys {
            assert_eq!(accepted(&registry, reference, key, "matchRepository"), Ok(()));
        }
        // The default of these policies demands a tag in the signature.
        assert_eq!(accepted(&registry, reference, &keys[0], "matchRepoDigestOrExact"), Ok(()));
        assert!(accepted(&registry, reference, &keys[1], "matchRepoDigestOrExact").is_err());
    }
    let stranger = SigningKey::generate().unwrap();
    let refused = accepted(&registry, ":latest", &stranger, "matchRepository").unwrap_err();
    assert!(refused.contains("ignature"), "{refused}");
}

#[test]
fn skopeo_refuses_a_manifest_that_is_not_the_signed_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/app", listener.local_addr().unwrap());
    let (mut content, manifest_digest) = image();
    let key = SigningKey::generate().unwrap();
    let artifact = sign(&manifest_digest, &name, &key).unwrap();
    // Another manifest, with the signature moved to its tag.
    let mut other = content["latest"].clone();
    other.push(b'\n');
    store(&mut content, &artifact, &digest(&other));
    content.insert("latest".to_owned(), other);
    let registry = Registry::serve(listener, content);
    let refused = accepted(&registry, ":latest", &key, "matchRepository").unwrap_err();
    assert!(refused.contains(&manifest_digest), "{refused}");
}

#[test]
fn skopeo_refuses_an_image_without_signature() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (content, _) = image();
    let registry = Registry::serve(listener, content);
    let key = SigningKey::generate().unwrap();
    let refused = accepted(&registry, ":latest", &key, "matchRepository").unwrap_err();
    assert!(refused.contains("signature"), "{refused}");
}
