//! The images that are packed and opened.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use end_to_end::image::create;
use end_to_end::peer::peer;
use image_store::{Descriptor, Digest, Hasher, Manifest, Store, media_type};

use crate::stage::oci;

/// Makes an OCI layout with layers of random bytes, which nothing compresses; one file each.
pub(crate) async fn random(directory: &Path, layers: usize, mib: u32) {
    let mut bytes = File::open("/dev/urandom").expect("random bytes");
    let store = create(&oci(directory)).await;
    let mut made = Vec::new();
    for _ in 0..layers {
        made.push(one_file(&store, u64::from(mib) << 20, |block| bytes.read_exact(block).expect("random bytes")).await);
    }
    name(&store, made, "/data").await;
}

/// Makes an OCI layout with one layer of zeros, which take no room.
pub(crate) async fn empty(directory: &Path, mib: u32) {
    let store = create(&oci(directory)).await;
    let bytes = u64::from(mib) << 20;
    let header = header(bytes);
    let size = header.len() as u64 + bytes + END_OF_TAR.len() as u64;
    let zeros = vec![0; 1 << 20];
    let mut hasher = Hasher::default();
    hasher.update(&header);
    (0..mib).for_each(|_| hasher.update(&zeros));
    hasher.update(&END_OF_TAR);
    let digest = hasher.finish();
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("blobs");
    let mut file = File::create(blobs.join(digest.hex())).expect("layer");
    file.write_all(&header).expect("header");
    file.set_len(size).expect("zeros");
    name(&store, vec![(Descriptor::new(media_type::OCI_LAYER, digest, size), digest)], "/data").await;
}

/// Makes an OCI layout with a static busybox that ends at once, filled up to so many bytes.
pub(crate) async fn busybox(directory: &Path, bytes: u64) {
    let store = create(&oci(directory)).await;
    let program = std::fs::metadata("/bin/busybox").expect("busybox").len();
    let layer =
        layer_of(&store, peer("tar").args(["-C", "/bin", "--transform=s,busybox,true,", "-c", "busybox"])).await;
    let rest = one_file(&store, bytes - program, |block| block.fill(0x5a)).await;
    name(&store, vec![layer, rest], "/true").await;
}

/// Makes an OCI layout of the programs, libraries and documents below `root`, in five gzip layers: about 700 MB in 25,000
/// entries, most of them small, for which the documents are there several times. Gives their size, unpacked.
pub(crate) async fn application(directory: &Path, root: &Path) -> u64 {
    let store = create(&oci(directory)).await;
    let copies = directory.with_extension("copies");
    for number in 1..=5 {
        let copy = copies.join(format!("opt/{number}"));
        std::fs::create_dir_all(&copy).expect("folder of a copy");
        let documents = ["doc", "man", "perl5", "terminfo", "zoneinfo"].map(|name| root.join("usr/share").join(name));
        let copied = peer("cp").arg("--archive").args(documents).arg(&copy).status().expect("cp");
        assert!(copied.success(), "the documents could not be copied");
    }
    let parts: [(&Path, &[&str]); 5] = [
        (root, &["usr/lib"]),
        (root, &["usr/bin"]),
        (root, &["etc", "usr/share", "var/lib"]),
        (&copies, &["opt/1", "opt/2"]),
        (&copies, &["opt/3", "opt/4", "opt/5"]),
    ];
    let (mut layers, mut bytes) = (Vec::new(), 0);
    for (folder, part) in parts {
        let mut tar = peer("tar");
        tar.arg("-C").arg(folder).args(["--sort=name", "--format=posix", "-c"]).args(part);
        layers.push(gzip_of(&store, &mut tar, &mut bytes).await);
    }
    std::fs::remove_dir_all(&copies).expect("copies");
    name(&store, layers, "/usr/bin/true").await;
    bytes
}

/// Two empty blocks.
const END_OF_TAR: [u8; 1024] = [0; 1024];

/// A layer and the digest of its tar.
type Made = (Descriptor, Digest);

/// A tar with one file, `data`.
async fn one_file(store: &Store, bytes: u64, mut fill: impl FnMut(&mut [u8])) -> Made {
    let mut writer = store.begin_blob().await.expect("blob");
    writer.write(header(bytes).into()).await.expect("header");
    let mut rest = usize::try_from(bytes).expect("a size");
    while rest > 0 {
        let mut block = vec![0; rest.min(1 << 20)];
        fill(&mut block);
        rest -= block.len();
        writer.write(block.into()).await.expect("data");
    }
    let padding = usize::try_from(bytes.next_multiple_of(512) - bytes).expect("less than a block");
    writer.write(vec![0; padding + 1024].into()).await.expect("end");
    let (digest, size) = writer.complete().await.expect("blob");
    (Descriptor::new(media_type::OCI_LAYER, digest, size), digest)
}

/// What a command writes as a layer.
async fn layer_of(store: &Store, tar: &mut Command) -> Made {
    let mut child = tar.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("tar");
    let mut output = child.stdout.take().expect("output");
    let mut writer = store.begin_blob().await.expect("blob");
    loop {
        let mut block = Vec::with_capacity(1 << 20);
        if (&mut output).take(1 << 20).read_to_end(&mut block).expect("tar") == 0 {
            break;
        }
        writer.write(block.into()).await.expect("layer");
    }
    assert!(child.wait().expect("tar").success(), "{tar:?}");
    let (digest, size) = writer.complete().await.expect("blob");
    (Descriptor::new(media_type::OCI_LAYER, digest, size), digest)
}

/// The same, compressed; adds to the number of bytes before.
async fn gzip_of(store: &Store, tar: &mut Command, bytes: &mut u64) -> Made {
    let output = tar.stdin(Stdio::null()).output().expect("tar");
    assert!(output.status.success(), "{tar:?}: {}", String::from_utf8_lossy(&output.stderr));
    *bytes += output.stdout.len() as u64;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&output.stdout).expect("gzip");
    let layer = encoder.finish().expect("gzip");
    (store.put_blob(media_type::OCI_LAYER_GZIP, layer.into()).await.expect("layer"), Digest::of(&output.stdout))
}

/// Gives the store an image of these layers that runs one program.
async fn name(store: &Store, layers: Vec<Made>, program: &str) {
    let diff_ids: Vec<_> = layers.iter().map(|(_, digest)| digest.to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": [program]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = store.put_blob(media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await.expect("config");
    let layers = layers.into_iter().map(|(layer, _)| layer).collect();
    let manifest = Manifest::new(config, layers).to_bytes().expect("manifest");
    store.put_image(manifest, media_type::OCI_MANIFEST).await.expect("manifest");
}

/// The tar header of the file `data`.
fn header(bytes: u64) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..4].copy_from_slice(b"data");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    // From 8 GiB on the octal digits do not suffice, and GNU's base 256 takes their place.
    if bytes < 1 << 33 {
        header[124..136].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
    } else {
        header[124] = 0x80;
        header[128..136].copy_from_slice(&bytes.to_be_bytes());
    }
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
