//! The pods of the chart, run from the images of the Containerfile.

use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use end_to_end::chart::container;
use end_to_end::debian13::Debian13;
use end_to_end::image_build::{build_image, static_programs};
use end_to_end::peer::{peer, program, run};
use end_to_end::pod::{Objects, Pod};
use end_to_end::postgres::Cluster;
use end_to_end::registry::free_port;
use end_to_end::vendor::Vendor;
use serde_json::{Value, json};

use super::{helm, node_folder};

#[path = "containerd.rs"]
mod containerd;

#[test]
fn the_static_programs_need_no_library_and_tell_the_whole_story() {
    let folder = static_programs();
    for name in ["sealift", "sealift-shim"] {
        let said = run(peer("ldd").arg(folder.join(name)));
        assert!((said.stdout + &said.stderr).contains("statically linked"), "{name}");
    }
    let said = run(Command::new(folder.join("sealift")).arg("demo").env_remove("SEALIFT_LOG")).succeeded();
    assert!(said.stderr.contains("was stopped after"), "{}", said.stderr);
}

/// Answers every question for an address with loopback's, as the DNS of a cluster does with its services': on an address of
/// loopback that is its own.
struct Names {
    address: Ipv4Addr,
}

impl Names {
    fn serve() -> Self {
        let byte = || u8::try_from(free_port() % 250).unwrap() + 2;
        let address = Ipv4Addr::new(127, 53, byte(), byte());
        let socket = UdpSocket::bind((address, 53)).unwrap();
        // It ends with the test's process.
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let mut answer = buffer[..length].to_vec();
                // One question, a root label after its names, and two bytes for each of type and class.
                let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                let is_for_an_address = answer[end - 4..end - 2] == [0, 1];
                answer.truncate(end);
                answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_for_an_address), 0, 0, 0, 0]);
                if is_for_an_address {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
                }
                socket.send_to(&answer, from).unwrap();
            }
        });
        Self { address }
    }
}

/// The Secret that the walk-through makes of a home.
fn home_secret(home: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files: std::collections::BTreeMap<String, Vec<u8>> = fs::read_dir(home.join("service"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| !entry.file_name().to_str().unwrap().starts_with("sealift.db"))
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.remove("ca.key");
    files.insert("admin.token".to_owned(), fs::read(home.join("admin.token")).unwrap());
    files
}

/// The service's pod: not root, its root file system read-only, without a capability; its keys, its database's password and
/// its settings from volumes as a kubelet makes them; its database by a name that the cluster's DNS knows.
#[tokio::test]
async fn the_service_runs_from_its_image_as_the_chart_has_it() {
    let debian13 = Debian13::open();
    let scratch = debian13.scratch();
    let image = build_image(&debian13, scratch.path(), "sealift");
    let cluster = Cluster::start_with_password("se:cret");
    let names = Names::serve();
    let vendor = Vendor::prepare(scratch.path());
    let address = vendor.service_url();
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let database = format!("postgres://vendor@postgresql.database.svc:{}/postgres?sslmode=disable", cluster.port());
    let documents = helm().render(&json!({"service": {
        "url": address, "port": port, "offline": true,
        "home": {"adoptAdminToken": true}, "database": {"url": database},
    }}));
    let spec = &documents.get("Deployment")["spec"]["template"]["spec"];
    let service = container(spec, "service");
    let settings = documents.get("ConfigMap")["data"]["sealift.toml"].as_str().unwrap();
    let resolver = scratch.path().join("resolv.conf");
    fs::write(&resolver, format!("nameserver {}\n", names.address)).unwrap();
    let objects = |password: &str| {
        let pgpass = format!("postgresql.database.svc:*:postgres:vendor:{password}\n");
        Objects::from([
            ("sealift-home".to_owned(), home_secret(vendor.home())),
            ("sealift-database".to_owned(), [("pgpass".to_owned(), pgpass.into_bytes())].into()),
            ("sealift-service".to_owned(), [("sealift.toml".to_owned(), settings.as_bytes().to_vec())].into()),
        ])
    };
    let pod = |password: &str| {
        Pod::new(spec, &objects(password), |path| panic!("{path} of a node"))
            .image("sealift:0.1.0", &image)
            .mount("/etc/resolv.conf", &resolver)
    };

    // It is the file that lets it in.
    let stranger = pod("wrong");
    run(&mut stranger.container("service").command()).failed(6, "password authentication failed");

    let pod = pod(r"se\:cret");
    let running = pod.container("service");
    let log = scratch.path().join("pod.log");
    let child = running.spawn(&log);
    let get = async |probe: &Value| {
        let asked = &probe["httpGet"];
        let scheme = asked["scheme"].as_str().unwrap().to_lowercase();
        let url = format!("{scheme}://127.0.0.1:{port}{}", asked["path"].as_str().unwrap());
        vendor.client().get(url).send().await.map(|answer| answer.status().as_u16())
    };
    let until = Instant::now() + Duration::from_mins(1);
    while get(&service["startupProbe"]).await.is_err() {
        assert!(Instant::now() < until, "it does not start: {}", fs::read_to_string(&log).unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(get(&service[probe]).await.unwrap(), 200, "{probe}");
    }
    // Policies are compiled in a process of their own, which is this very program; the token is one that the home brought.
    vendor.sealift(["product", "create", "shop"]).succeeded();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/release.rego");
    vendor.sealift(["policy", "set", "--product", "shop", policy.to_str().unwrap()]).succeeded();
    // Nothing can be written but where the volume for that is.
    let user = running.exec(&["/sealift", "init", "/var/lib/sealift/service/again"]);
    assert_eq!(user.code, 0, "{}", user.stderr);
    running.exec(&["/sealift", "init", "/var/lib/other"]).failed(3, "Read-only file system");
    running.exec(&["/sealift", "init", "/tmp/other"]).failed(3, "Read-only file system");

    let ended = running.terminate(child);
    assert_eq!((ended.code(), ended.signal()), (Some(0), None), "{}", fs::read_to_string(&log).unwrap());
}

/// The pod of a node: the installer puts the shim and the engine's configuration there, once and again, and what it put
/// there takes itself back. The agent has got as far as a machine lets it that is no confidential VM.
#[test]
fn the_node_side_installs_itself_from_its_image_as_the_chart_has_it() {
    let debian13 = Debian13::open();
    let scratch = debian13.scratch();
    let image = build_image(&debian13, scratch.path(), "sealift-shim");
    let node = scratch.path().join("node");
    // What a node has, and Debian's own configuration of containerd.
    for folder in ["etc/containerd", "usr/local", "usr/bin", "lib", "lib64", "sys/kernel/config", "run"] {
        fs::create_dir_all(node.join(folder)).unwrap();
    }
    let configuration = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n";
    let main = node.join("etc/containerd/config.toml");
    fs::write(&main, configuration).unwrap();
    let documents = helm()
        .render(&json!({"service": {"enabled": false}, "node": {"enabled": true, "engine": {"version": "1.7.24"}}}));
    let spec = &documents.get("DaemonSet")["spec"]["template"]["spec"];
    let vendor = Vendor::start(scratch.path(), &["shop"]);
    let (_, license) = vendor.license("shop", &[]);
    let licenses = [("customer.license".to_owned(), fs::read(license).unwrap())].into();
    let objects = Objects::from([("sealift-licenses".to_owned(), licenses)]);
    let pod = Pod::new(spec, &objects, |path| node_folder(&node, path)).image("sealift-shim:0.1.0", &image);
    // A pod that is started again finds what it wrote before.
    for _ in 0..2 {
        pod.initialize();
    }
    let shim = node_folder(&node, "/opt/sealift/bin/sealift-shim");
    assert_eq!(fs::read(&shim).unwrap(), fs::read(static_programs().join("sealift-shim")).unwrap());
    let runtime = fs::read_to_string(node_folder(&node, "/usr/local/libexec/sealift-oci-runtime")).unwrap();
    assert!(runtime.contains("'/opt/sealift/bin/sealift-shim' oci-runtime --agent '/run/sealift/agent/agent.sock'"));
    assert!(fs::read_to_string(&main).unwrap().starts_with("imports = "));
    // The node starts it as it is: there is nothing else that it would need.
    run(peer("chroot").arg(&node).args(["/opt/sealift/bin/sealift-shim", "--version"])).succeeded();

    let agent = pod.container("agent");
    let log = scratch.path().join("agent.log");
    let ended = agent
        .command()
        .stdout(File::create(&log).unwrap())
        .stderr(File::options().append(true).open(&log).unwrap())
        .status();
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(ended.unwrap().code(), Some(4), "{said}");
    assert!(said.contains("cannot get launch evidence of this machine"), "{said}");

    run(peer("chroot").arg(&node).args(["/opt/sealift/bin/sealift-shim", "install", "containerd", "--undo"]))
        .succeeded();
    assert!(!shim.exists() && !node.join("usr/local/libexec").exists() && !node.join("etc/sealift").exists());
    assert_eq!(fs::read_to_string(&main).unwrap(), configuration);
    // The same program, whatever it is linked with.
    let version = |program: &Path| run(Command::new(program).arg("--version")).succeeded().stdout;
    assert_eq!(version(&static_programs().join("sealift-shim")), version(&program("sealift-shim")));
}
