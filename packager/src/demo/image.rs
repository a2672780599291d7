//! The demo's image, built from files at hand: a shell with the libraries it needs, and a small "model" to protect.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use flate2::Compression;
use flate2::write::GzEncoder;
use image_store::{Manifest, Store, StoreOptions, media_type};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// What must never be readable outside the guest.
pub(crate) const SECRET: &str = "the vendor's secret recipe: two parts patience, one part salt";

/// Writes the plain image into an OCI layout at `directory`, tag `demo`.
pub(crate) async fn build(directory: &Path) -> Result<(), Failure> {
    let cannot = || "cannot build the demo's image".to_owned();
    let base = base_layer().or_fail(ExitCode::Other, cannot)?;
    let application = application_layer().or_fail(ExitCode::Other, cannot)?;
    let reference = format!("oci:{}:demo", directory.display());
    let reference = reference.parse().or_fail(ExitCode::Other, cannot)?;
    let store =
        Store::create(&reference, &StoreOptions::default()).await.map_err(|error| store_failure(cannot(), &error))?;
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for tar in [base, application] {
        diff_ids.push(format!("sha256:{}", hex::encode(Sha256::digest(&tar))));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let bytes = gzip.write_all(&tar).and_then(|()| gzip.finish()).or_fail(ExitCode::Other, cannot)?;
        let layer = store.put_blob(media_type::OCI_LAYER_GZIP, bytes.into()).await;
        layers.push(layer.map_err(|error| store_failure(cannot(), &error))?);
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/sh", "/app/main.sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = store.put_blob(media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await;
    let config = config.map_err(|error| store_failure(cannot(), &error))?;
    let manifest = Manifest::new(config, layers).to_bytes().or_fail(ExitCode::Other, cannot)?;
    store.put_image(manifest, media_type::OCI_MANIFEST).await.map_err(|error| store_failure(cannot(), &error))?;
    store.commit().await.map_err(|error| store_failure(cannot(), &error))
}

const PROGRAM: &str = r#"# The demo's workload: it can read the recipe, so it runs inside the guest.
read recipe < /app/recipe
echo "hello from inside the guest; my recipe has ${#recipe} letters"
if [ "$1" = "serve" ]; then
    while true; do read line < /app/clock || exit 1; done
fi
"#;

fn application_layer() -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    add_directory(&mut tar, Path::new("app"))?;
    add_file(&mut tar, Path::new("app/main.sh"), PROGRAM.as_bytes(), 0o644)?;
    add_file(&mut tar, Path::new("app/recipe"), format!("{SECRET}\n").as_bytes(), 0o600)?;
    // Reading a FIFO that nobody writes to waits for ever without a program for it.
    let mut header = header(0o600, 0);
    header.set_entry_type(tar::EntryType::Fifo);
    tar.append_data(&mut header, "app/clock", std::io::empty())?;
    tar.into_inner()
}

/// A static busybox where there is one, else the shell with its libraries.
fn base_layer() -> std::io::Result<Vec<u8>> {
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let shell = ["/bin/busybox", "/bin/sh"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let shell = shell.ok_or_else(|| std::io::Error::other("there is neither /bin/busybox nor /bin/sh here"))?;
    files.insert(PathBuf::from("/bin/sh"), shell.clone());
    for library in libraries(&shell)? {
        files.insert(library.clone(), library);
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut directories = BTreeSet::new();
    for name in ["tmp", "proc", "dev", "sys", "etc"] {
        directories.insert(PathBuf::from(name));
    }
    for path in files.keys() {
        directories.extend(relative(path).ancestors().skip(1).map(Path::to_owned));
    }
    for directory in directories.iter().filter(|directory| !directory.as_os_str().is_empty()) {
        add_directory(&mut tar, directory)?;
    }
    for (path, source) in &files {
        add_file(&mut tar, relative(path), &std::fs::read(source)?, 0o755)?;
    }
    tar.into_inner()
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The shared libraries of a program with its loader, as `ldd` lists them; none for a static one.
fn libraries(program: &Path) -> std::io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    // `ldd` fails for static programs.
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect())
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn add_directory(tar: &mut tar::Builder<Vec<u8>>, path: &Path) -> std::io::Result<()> {
    let mut header = header(0o755, 0);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, path, std::io::empty())
}

fn add_file(tar: &mut tar::Builder<Vec<u8>>, path: &Path, contents: &[u8], mode: u32) -> std::io::Result<()> {
    tar.append_data(&mut header(mode, contents.len() as u64), path, contents)
}
