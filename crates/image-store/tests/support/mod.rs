//! What the tests of this crate share: an image of known bytes, Debian's registry and skopeo, a proxy that cuts.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]

pub mod server;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use image_store::{Descriptor, Digest, Document, Manifest, RawManifest, RetryPolicy, Store, StoreOptions, media_type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that do not compress and are the same in each run (xorshift64).
pub fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A tar layer with one file.
pub fn layer_tar(name: &str, content: &[u8]) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap().into()
}

pub fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

/// An image that other tools accept: a plain layer, a gzip layer, a config with their `diff_id`s.
pub struct TestImage {
    pub config: Bytes,
    pub layers: Vec<(&'static str, Bytes)>,
    pub manifest: Manifest,
}

impl TestImage {
    pub fn new(seed: u64) -> Self {
        Self::with_layer_bytes(seed, 300_000)
    }

    pub fn with_layer_bytes(seed: u64, layer_bytes: usize) -> Self {
        let plain = layer_tar("a", &noise(layer_bytes, seed));
        let second = layer_tar("b", &noise(100_000, seed + 1));
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["/a"] },
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(&plain), Digest::of(&second)] },
        });
        let config = Bytes::from(config.to_string());
        let layers = vec![(media_type::OCI_LAYER, plain), (media_type::OCI_LAYER_GZIP, gzip(&second))];
        let descriptors = layers.iter().map(|(media_type, bytes)| Descriptor::of(*media_type, bytes)).collect();
        let manifest = Manifest::new(Descriptor::of(media_type::OCI_CONFIG, &config), descriptors);
        Self { config, layers, manifest }
    }

    pub fn bytes(&self) -> Bytes {
        self.manifest.to_bytes().unwrap()
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes())
    }

    /// Streams the layers in, then writes config and manifest under the store's own reference.
    pub async fn write_to(&self, store: &Store) -> Digest {
        for (_, bytes) in &self.layers {
            let mut writer = store.begin_blob().await.unwrap();
            for chunk in bytes.chunks(70_000) {
                writer.write(bytes.slice_ref(chunk)).await.unwrap();
            }
            writer.finish(Digest::of(bytes), bytes.len() as u64).await.unwrap();
        }
        store.put_blob(media_type::OCI_CONFIG, self.config.clone()).await.unwrap();
        let digest = store.put_image(self.bytes(), media_type::OCI_MANIFEST).await.unwrap();
        store.commit().await.unwrap();
        digest
    }
}

/// Reads an image whole, which verifies every blob.
pub async fn read_all(store: &Store) -> (RawManifest, Manifest, Vec<Bytes>) {
    let raw = store.resolve().await.unwrap();
    let Document::Manifest(manifest) = raw.parse().unwrap() else { panic!("an index") };
    let mut blobs = Vec::new();
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        blobs.push(store.small_blob(descriptor, 1 << 30).await.unwrap());
    }
    (raw, manifest, blobs)
}

pub async fn open(reference: &str) -> Store {
    Store::open(&reference.parse().unwrap(), &options()).await.unwrap()
}

pub async fn create(reference: &str) -> Store {
    Store::create(&reference.parse().unwrap(), &options()).await.unwrap()
}

/// Options that read no credentials of this machine and retry at once.
pub fn options() -> StoreOptions {
    StoreOptions {
        plain_http: true,
        auth_file: Some(no_credentials()),
        retry: RetryPolicy {
            attempts: 4,
            first_delay: Duration::from_millis(1),
            longest_delay: Duration::from_millis(20),
        },
        ..StoreOptions::default()
    }
}

fn no_credentials() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("no-credentials-{}.json", std::process::id()));
    if !path.exists() {
        std::fs::write(&path, "{}").unwrap();
    }
    path
}

/// Runs skopeo, which has to succeed.
pub fn skopeo(arguments: &[&str]) -> Output {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .expect("skopeo runs: install the Debian package `skopeo`");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Debian's registry on a loopback port, its storage in a directory of its own.
pub struct DebianRegistry {
    process: Child,
    directory: tempfile::TempDir,
    address: SocketAddr,
}

impl DebianRegistry {
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// `user` with the password `open sesame`.
    pub fn start_with_password() -> Self {
        Self::start_with(|directory| {
            let path = directory.join("htpasswd");
            std::fs::write(&path, format!("user:{BCRYPT}\n")).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", path.display())
        })
    }

    /// Starts it on a free port; on another one when that was taken in the meantime.
    fn start_with(more: impl Fn(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let configuration = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let more = more(directory.path());
        for _ in 0..10 {
            let address = free_address();
            std::fs::write(
                &configuration,
                format!(
                    "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
                     http: {{addr: '{address}', secret: test}}\n{more}",
                    storage.display()
                ),
            )
            .unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(&configuration)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry runs: install the Debian package `docker-registry`");
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() && process.try_wait().unwrap().is_none() {
                    return Self { process, directory, address };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("docker-registry does not start");
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `docker://` reference of a name in it.
    pub fn reference(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// The file in which it keeps a blob.
    pub fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.storage().join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// The directory of upload sessions of a repository.
    pub fn uploads(&self, repository: &str) -> PathBuf {
        self.storage().join(format!("repositories/{repository}/_uploads"))
    }

    fn storage(&self) -> PathBuf {
        self.directory.path().join("storage/docker/registry/v2")
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A proxy that cuts each connection after so many bytes in one direction, until the list of cuts is used up.
pub struct CuttingProxy {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// Which direction a proxy counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Download,
    Upload,
}

impl CuttingProxy {
    pub async fn start(server: SocketAddr, direction: Cut, cuts: Vec<usize>) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let cut = cuts.get(number).copied().unwrap_or(usize::MAX);
                tokio::spawn(async move {
                    let server = tokio::net::TcpStream::connect(server).await.unwrap();
                    let (from_server, to_server) = server.into_split();
                    let (from_client, to_client) = client.into_split();
                    let limit = |counted| if direction == counted { cut } else { usize::MAX };
                    tokio::select! {
                        () = forward(from_client, to_server, limit(Cut::Upload)) => (),
                        () = forward(from_server, to_client, limit(Cut::Download)) => (),
                    }
                });
            }
        });
        Self { address, connections }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut left: usize) {
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let Ok(bytes) = from.read(&mut buffer).await else { return };
        let bytes = bytes.min(left);
        if bytes == 0 || to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
        left -= bytes;
    }
}

/// All files below a directory, by their path from it.
pub fn files_below(directory: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.push(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    files.sort();
    files
}

pub fn flip_byte(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// bcrypt of `open sesame`, cost 4.
const BCRYPT: &str = "$2b$04$4lq.UBzmrMrzhTu2q.dRdecpchUwe3JYE.AjVBaq6m9ixGlOEtlp6";
