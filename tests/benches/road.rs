//! Pack, verify and unpack of one incompressible layer, `oci:` to `oci:`, against Debian 13's skopeo on the same files.
//! Prints CPU seconds, wall seconds and peak memory of whole processes, and the ratios; medians of several runs.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a failed step ends the measurement; its figures go to stdout"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use end_to_end::image::create;
use end_to_end::peer::{fixture, program, run};
use end_to_end::process::{cpu_seconds, memory, stat};
use end_to_end::vendor::Vendor;
use image_store::{Descriptor, Manifest, media_type};

const RUNS: usize = 3;

/// One process's cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_seconds: f64,
    wall_seconds: f64,
    peak_mib: u64,
}

#[tokio::main]
async fn main() {
    // `cargo test` runs benches once to see that they work; this one takes minutes.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mib: u32 = std::env::var("SIZE_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let debian13 = run(&mut Command::new(fixture("../debian13-box"))).succeeded();
    let debian13 = PathBuf::from(debian13.stdout.trim());
    let scratch = tempfile::Builder::new().prefix("sealift-bench-").tempdir_in(debian13.join("tmp")).expect("scratch");
    let vendor = Vendor::start(scratch.path(), &["bench"]);
    let (_, license) = vendor.license("bench", &["--seats", "100"]);
    let key = scratch.path().join("recipient");
    let public = scratch.path().join("recipient.pub");
    run(Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
        .arg(&key))
    .succeeded();
    run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public)).succeeded();

    for mib in [mib / 8, mib] {
        let plain = scratch.path().join(format!("plain-{mib}"));
        make_layer(&plain, mib).await;
        let pack = measure(|number| {
            let target = scratch.path().join(format!("sealed-{mib}-{number}"));
            vendor.command(["pack", &oci(&plain), &oci(&target), "--product", "bench", "--no-progress"])
        });
        let sealed = scratch.path().join(format!("sealed-{mib}-0"));
        let unpack = measure(|number| {
            let target = scratch.path().join(format!("bundle-{mib}-{number}"));
            let mut command = Command::new(program("sealift"));
            command
                .arg("--home")
                .arg(vendor.home())
                .args(["simulate", "launch", "--initrd"])
                .arg(program("sealift-shim"));
            command.args(["--", "unpack", &oci(&sealed)]).arg(target).arg("--license").arg(&license);
            command
        });
        let inside = |path: &Path| format!("/{}", path.strip_prefix(&debian13).expect("inside").display());
        let skopeo = measure(|number| {
            let target = scratch.path().join(format!("skopeo-{mib}-{number}"));
            let mut command = Command::new("chroot");
            command.arg(&debian13).args(["skopeo", "copy", "--encryption-key"]).arg(format!("jwe:{}", inside(&public)));
            command.arg(format!("oci:{}:v1", inside(&plain))).arg(format!("oci:{}:v1", inside(&target)));
            command
        });
        println!("{mib} MiB, one incompressible layer, medians of {RUNS} runs");
        print("sealift pack", pack);
        print("sealift-shim unpack", unpack);
        print("skopeo copy --encryption-key", skopeo);
        println!(
            "pack / skopeo: CPU {:.2}, wall {:.2}",
            pack.cpu_seconds / skopeo.cpu_seconds,
            pack.wall_seconds / skopeo.wall_seconds
        );
    }
}

fn oci(directory: &Path) -> String {
    format!("oci:{}:v1", directory.display())
}

fn print(what: &str, cost: Cost) {
    println!(
        "  {what:<30} CPU {:>6.2} s  wall {:>6.2} s  peak {:>4} MiB",
        cost.cpu_seconds, cost.wall_seconds, cost.peak_mib
    );
}

/// A tar with one file of random bytes.
async fn make_layer(directory: &Path, mib: u32) {
    use std::io::Read as _;
    let store = create(&oci(directory)).await;
    let mut writer = store.begin_blob().await.expect("blob");
    let mut header = vec![0_u8; 512];
    header[..4].copy_from_slice(b"data");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", u64::from(mib) << 20).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    writer.write(header.into()).await.expect("header");
    let mut random = std::fs::File::open("/dev/urandom").expect("random bytes");
    for _ in 0..mib {
        let mut block = vec![0; 1 << 20];
        random.read_exact(&mut block).expect("random bytes");
        writer.write(block.into()).await.expect("data");
    }
    writer.write(vec![0; 1024].into()).await.expect("end");
    let (digest, size) = writer.complete().await.expect("blob");
    let layer = Descriptor::new(media_type::OCI_LAYER, digest, size);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/data"]},
        "rootfs": {"type": "layers", "diff_ids": [digest.to_string()]},
    });
    let config = store.put_blob(media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await.expect("config");
    let manifest = Manifest::new(config, vec![layer]).to_bytes().expect("manifest");
    store.put_image(manifest, media_type::OCI_MANIFEST).await.expect("manifest");
}

fn measure(mut command: impl FnMut(usize) -> Command) -> Cost {
    let mut costs: Vec<Cost> = (0..RUNS).map(|number| measure_once(&mut command(number))).collect();
    costs.sort_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds));
    costs[RUNS / 2]
}

fn measure_once(command: &mut Command) -> Cost {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start");
    let mut peak_kib = 0;
    while !has_ended(&child) {
        peak_kib = peak_kib.max(tree_peak_kib(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    }
    let wall_seconds = started.elapsed().as_secs_f64();
    // A process that has ended keeps its times until it is waited for.
    let cpu_seconds = cpu_seconds(child.id());
    assert!(child.wait().expect("wait").success(), "{command:?} failed");
    Cost { cpu_seconds, wall_seconds, peak_mib: peak_kib >> 10 }
}

fn has_ended(child: &Child) -> bool {
    stat(child.id()).is_none_or(|fields| fields[0] == "Z")
}

/// The largest peak of the process and its children.
fn tree_peak_kib(pid: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let of_children = children.split_whitespace().filter_map(|child| child.parse().ok()).map(tree_peak_kib).max();
    memory(pid).peak_kib.max(of_children.unwrap_or(0))
}
