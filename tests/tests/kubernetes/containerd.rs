//! A pod of the runtime class on a node that the chart's `DaemonSet` has set up: containerd of Debian 13, driven by CRI.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use end_to_end::chart::{container, texts};
use end_to_end::image_build::build_image;
use end_to_end::peer::run;
use end_to_end::pod::{Container, Objects, Pod};
use end_to_end::running::Running;
use end_to_end::site::{Decoder, PRODUCT, Sealer, Site};
use serde_json::json;

use crate::helm;

/// Starts the agent's container as the guest of a simulated launch: what is measured is the script that starts it.
fn start_agent(site: &Site, agent: &Container) -> Running {
    let words = agent.command();
    let words: Vec<_> = words.get_args().map(|word| format!("'{}'", word.display())).collect();
    let script = format!(
        "#!/bin/sh\nsed -i \"s#/LAUNCH#${{SEALIFT_SIMULATED_PLATFORM%/*}}#g\" '{}'\nexec runc {}\n",
        agent.bundle.join("config.json").display(),
        words.join(" ")
    );
    let file = site.path("guest.sh");
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let measurement = site.vendor.measurement(&file);
    site.vendor.sealift(["reference", "add", "--product", PRODUCT, "--digest", &measurement]).succeeded();
    Running::start(&mut site.vendor.guest_command(&file, [""; 0]), &site.path("agent.log"))
}

#[tokio::test]
async fn a_pod_of_the_runtime_class_runs_on_a_node_that_the_chart_has_set_up() {
    let mut site = Site::make().await;
    let image = build_image(&site.debian13, site.scratch.path(), "sealift-shim");
    let sealed = site.seal(Sealer::Pack).unwrap();
    let (id, license) = site.vendor.license(PRODUCT, &["--lease", "1h"]);
    site.configure_containerd();
    let version = run(site.debian13.machine("containerd").arg("--version")).succeeded().stdout;
    let version = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap();
    let program = site.inside("opt/sealift-shim");
    let documents = helm().render(&json!({
        "service": {"enabled": false},
        "node": {"enabled": true, "engine": {"version": version}, "program": program, "images": [sealed]},
    }));
    let spec = &documents.get("DaemonSet")["spec"]["template"]["spec"];
    // The box is the node; what is written goes where the box's containerd will find it, and the rest beside it.
    let opt = site.inside("opt");
    let node = |path: &str| -> PathBuf {
        match path {
            "/usr" | "/lib" | "/lib64" => site.debian13.root().join(path.trim_start_matches('/')),
            path if path == opt => site.path("opt"),
            path => site.path("system").join(path.trim_start_matches('/')),
        }
    };
    for folder in ["/etc", "/usr/local", "/sys/kernel/config"] {
        std::fs::create_dir_all(node(folder)).unwrap();
    }
    let licenses = [("customer.license".to_owned(), std::fs::read(license).unwrap())].into();
    let objects = Objects::from([("sealift-licenses".to_owned(), licenses)]);
    let pod = Pod::new(spec, &objects, node)
        .image("sealift-shim:0.1.0", &image)
        .variable("SEALIFT_SIMULATED_PLATFORM=/LAUNCH/report")
        .mount("/LAUNCH", std::path::Path::new("/LAUNCH"));
    pod.initialize();
    let agent = pod.container("agent");
    let _running = start_agent(&site, &agent);
    let probe = texts(&container(spec, "agent")["readinessProbe"]["exec"]["command"]);
    agent.exec(&probe).succeeded();
    // The runtime by which it kills is the node's, with the node's libraries.
    agent.exec(&["/usr/bin/runc", "--version"]).succeeded();

    let mut cri = site.start_containerd(Decoder::Shim).await;
    let name = sealed.strip_prefix("docker://").unwrap();
    let (logs, handler) = (site.inside("logs"), documents.get("RuntimeClass")["handler"].as_str().unwrap());
    cri.pull(name).await.unwrap();
    let first = cri.create("first", name, &["wait"], &logs, handler).await.unwrap();
    cri.start(&first).await.unwrap();
    assert!(agent.exec(&probe).succeeded().stdout.contains(&first.container[..12]), "{}", site.agent_log());
    site.vendor.sealift(["license", "revoke", &id, "--reason", "contract ended"]).succeeded();
    let code = cri.wait(&first).await.unwrap();
    // 128 + SIGTERM where the workload had not come to listen to it yet.
    assert!(matches!(code, 0 | 137 | 143), "{code}");
    let again = cri.create("again", name, &["wait"], &logs, handler).await.unwrap();
    let refused = cri.start(&again).await.unwrap_err();
    assert!(refused.message().contains("contract ended"), "{}", refused.message());
    for pod in [first, again] {
        cri.remove(pod).await.unwrap();
    }
}
