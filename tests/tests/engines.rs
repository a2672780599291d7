//! Every tool that seals an image for the vendor × every engine that opens it for the customer: programs of Debian 13, as
//! `sealift-shim install` sets them up, with an agent in a simulated guest. Prints the matrix.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use end_to_end::cri::Cri;
use end_to_end::image::{manifest, open, plain_digests};
use end_to_end::peer::run;
use end_to_end::site::{Decoder, Sealer, Site, ok};

/// What the image's script prints as root.
const OUTPUT: &str = "hello world from 0 in /opt\nupper\n";

/// The customer's engines.
const OPENERS: [&str; 5] = ["sealift-shim", "skopeo", "podman", "containerd", "containerd with ctd-decoder"];

/// One cell of the matrix: nothing, or why it did not work.
type Cell = Result<(), String>;

#[tokio::test]
async fn what_any_tool_sealed_any_engine_opens() {
    let mut site = Site::make().await;
    let (_, license) = site.vendor.license("recipe", &["--seats", "1"]);
    site.install("podman");
    let sealed: Vec<(Sealer, Option<Result<String, String>>)> =
        Sealer::ALL.map(|sealer| (sealer, is_wanted(sealer.name()).then(|| site.seal(sealer)))).into();
    if is_wanted("containerd") {
        site.configure_containerd();
        site.install("containerd");
    }
    let mut failures = Vec::new();
    println!("{:>12} {}", "", OPENERS.map(|opener| format!("{opener:<13}")).join(" "));
    for (sealer, image) in &sealed {
        let mut row = vec![format!("{:>12}", sealer.name())];
        for opener in OPENERS {
            let cell = match image {
                Some(image) if is_wanted(opener.split(' ').next().unwrap()) => Some(match image {
                    Ok(image) => opened(&mut site, opener, image, &license).await,
                    Err(why) => Err(format!("not sealed: {why}")),
                }),
                _ => None,
            };
            let word = match &cell {
                None => "left out",
                Some(Ok(())) => "opened",
                Some(Err(_)) => "FAILED",
            };
            row.push(format!("{word:<13}"));
            if let Some(Err(why)) = cell {
                failures.push(format!("{} sealed, {opener} did not open: {why}", sealer.name()));
            }
        }
        println!("{}", row.join(" "));
    }
    assert!(failures.is_empty(), "{}\nagent: {}", failures.join("\n\n"), site.agent_log());
    let leases = site.vendor.sealift(["lease", "list"]).succeeded().stdout;
    assert!(!leases.contains("live"), "the seats are given back: {leases}");
}

#[tokio::test]
async fn a_revoked_licence_opens_no_layer_for_any_engine() {
    let mut site = Site::make().await;
    let (id, license) = site.vendor.license("recipe", &[]);
    let image = site.seal(Sealer::Pack).unwrap();
    site.install("podman");
    site.start_agent(&license, std::slice::from_ref(&image));
    site.vendor.sealift(["license", "revoke", &id, "--reason", "contract ended"]).succeeded();
    let why = skopeo(&site, &image).await.unwrap_err();
    assert!(why.contains("contract ended"), "{why}");
    if is_wanted("podman") {
        let why = podman(&site, &image).unwrap_err();
        assert!(why.contains("contract ended"), "{why}");
    }
    if is_wanted("containerd") {
        site.configure_containerd();
        site.install("containerd");
        for decoder in [Decoder::Shim, Decoder::CtdDecoder] {
            let mut cri = site.start_containerd(decoder).await;
            let why = containerd(&mut cri, &site, &image, "").await.unwrap_err();
            assert!(why.starts_with("pull: ") && why.contains("contract ended"), "{decoder:?}: {why}");
        }
    }
}

/// Whether a program was not left out by its name.
fn is_wanted(name: &str) -> bool {
    let without = std::env::var("SEALIFT_TESTS_WITHOUT").unwrap_or_default();
    !without.split(',').any(|left_out| left_out == name)
}

async fn opened(site: &mut Site, opener: &str, image: &str, license: &std::path::Path) -> Cell {
    match opener {
        "sealift-shim" => {
            let said = site.vendor.guest(["run", image, "--license", &license.display().to_string()]);
            let as_expected = (said.code, said.stdout.as_str()) == (7, OUTPUT);
            if as_expected { Ok(()) } else { Err(format!("{said:?}")) }
        }
        "skopeo" => {
            site.start_agent(license, &[image.to_owned()]);
            skopeo(site, image).await
        }
        "podman" => {
            site.start_agent(license, &[image.to_owned()]);
            podman(site, image)
        }
        _ => {
            // CRI says which image it pulls; nobody else has to. ctd-decoder does not pass that on.
            let (decoder, images) = match opener {
                "containerd" => (Decoder::Shim, None),
                _ => (Decoder::CtdDecoder, Some(image.to_owned())),
            };
            site.start_agent(license, images.as_slice());
            let mut cri = site.start_containerd(decoder).await;
            // By itself, and as a runtime class that sees to a lease.
            let mut result = containerd(&mut cri, site, image, "").await;
            if result.is_ok() {
                result = containerd(&mut cri, site, image, "sealift").await;
            }
            result.map_err(|why| format!("{why}\ncontainerd: {}", last_lines(&site.containerd_log())))
        }
    }
}

/// Decrypted, every layer's tar is the one that the config names.
async fn skopeo(site: &Site, image: &str) -> Cell {
    let target = format!("decrypted-{}", image.rsplit('/').next().unwrap().split('@').next().unwrap());
    let mut skopeo = site.debian13.command("skopeo");
    skopeo.args(["copy", "--insecure-policy", "--src-tls-verify=false", "--decryption-key", "provider:sealift", image]);
    skopeo.arg(format!("oci:{}:v1", site.inside(&target))).env("OCICRYPT_KEYPROVIDER_CONFIG", site.opening());
    ok(run(&mut skopeo))?;
    let store = open(&format!("oci:{}:v1", site.path(&target).display())).await;
    let manifest = manifest(&store).await;
    let config = store.small_blob(&manifest.config, 1 << 20).await.unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let expected: Vec<&str> =
        config["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let found = plain_digests(&store, &manifest).await;
    if found == expected { Ok(()) } else { Err(format!("the layers are {found:?}, not {expected:?}")) }
}

/// By the image's tag: podman decrypts nothing that is named by digest.
fn podman(site: &Site, image: &str) -> Cell {
    let image = format!("{}:v1", image.split('@').next().unwrap());
    let name = image.strip_prefix("docker://").unwrap();
    let mut pull = site.storage("podman");
    pull.args(["pull", "--quiet", "--tls-verify=false", "--decryption-key", "provider:sealift", &image]);
    ok(run(pull.env("OCICRYPT_KEYPROVIDER_CONFIG", site.opening())))?;
    let mut podman = site.storage("podman");
    // What this kind of machine allows: no network of its own, limits that it can set.
    podman.args(["--runtime", "sealift"]);
    podman.args(["run", "--rm", "--network=host", "--ulimit=nofile=20000:20000", "--ulimit=nproc=1000:1000", name]);
    let said = run(&mut podman);
    let removed = ok(run(site.storage("podman").args(["rmi", "--force", name])));
    if (said.code, said.stdout.as_str()) == (7, OUTPUT) { removed.map(drop) } else { Err(format!("{said:?}")) }
}

/// As a kubelet does it: sandbox, pull, create, start, logs, exec, stop, remove.
async fn containerd(cri: &mut Cri, site: &Site, image: &str, class: &str) -> Cell {
    let name = image.strip_prefix("docker://").unwrap();
    let status = |what: &'static str| move |status: tonic::Status| format!("{what}: {}", status.message());
    cri.pull(name).await.map_err(status("pull"))?;
    let pod = cri.create("demo", name, &["wait"], &site.inside("logs"), class).await.map_err(status("create"))?;
    cri.start(&pod).await.map_err(status("start"))?;
    let log = site.debian13.root().join(pod.log().trim_start_matches('/'));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("ready") {
        if std::time::Instant::now() > until {
            return Err(format!("the log has no `ready`: {:?}", std::fs::read_to_string(&log)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let text = std::fs::read_to_string(&log).unwrap();
    for line in OUTPUT.lines() {
        if !text.contains(&format!("stdout F {line}")) {
            return Err(format!("the log has no {line:?}: {text}"));
        }
    }
    let executed = cri.exec(&pod, &["/bin/cat", "/opt/kept"]).await.map_err(status("exec"))?;
    if executed != (0, "keep\n".to_owned()) {
        return Err(format!("exec gave {executed:?}"));
    }
    let leases = site.vendor.sealift(["lease", "list"]).succeeded().stdout;
    if leases.contains("live") == class.is_empty() {
        return Err(format!("under the runtime class {class:?} the leases are {leases}"));
    }
    cri.stop(&pod).await.map_err(status("stop"))?;
    let code = cri.wait(&pod).await.map_err(status("status"))?;
    cri.remove(pod).await.map_err(status("remove"))?;
    if code == 0 { Ok(()) } else { Err(format!("the container ended with {code}")) }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("level=error") || line.contains("level=warn")).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
