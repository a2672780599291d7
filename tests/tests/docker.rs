//! Docker of Debian 13 with our OCI runtime, as `sealift-shim install docker` adds it. Docker opens no sealed layers: skopeo
//! opens them for its image store, by the agent.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use end_to_end::node::{Node, PRODUCT, wait_for};
use end_to_end::peer::{Said, run};
use end_to_end::running::Running;
use serde_json::{Value, json};

/// Far more than anything takes that a test waits for.
const LONG: Duration = Duration::from_mins(1);

/// Far less than the lease, so that it is the revocation that ends a container. It takes well below two seconds on a machine
/// that has nothing else to do.
const REVOCATION: Duration = Duration::from_secs(10);

/// What the image's script prints as root.
const OUTPUT: &str = "hello world from 0 in /opt\nupper\n";

/// dockerd with its own containerd on a node.
struct Docker<'a> {
    node: &'a Node,
    _running: Running,
}

/// Puts the runtime in its place, starts dockerd and says so: it says nothing on stdout itself.
const START: &str = r#"
mkdir -p /usr/local/libexec && mount --bind "$0/usr/local/libexec" /usr/local/libexec || exit
dockerd --config-file "$0/etc/docker/daemon.json" &
until docker -H "$1" version >/dev/null 2>&1; do kill -0 $! || exit; sleep 0.1; done
echo up; wait"#;

impl<'a> Docker<'a> {
    /// Starts it with settings beside those that every test needs: no network of its own, everything in the node.
    fn start(node: &'a Node, more: &Value) -> Self {
        let mut settings = json!({
            "data-root": node.inside("docker"),
            "exec-root": node.inside("docker.run"),
            "pidfile": node.inside("docker.pid"),
            "hosts": [socket(node)],
            "iptables": false,
            "ip-forward": false,
            "bridge": "none",
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let system = node.path("system");
        std::fs::create_dir_all(system.join("etc/docker")).unwrap();
        std::fs::write(system.join("etc/docker/daemon.json"), settings.to_string()).unwrap();
        let mut install = node.vendor.bare_shim();
        install.args(["install", "docker", "--write", "--engine-version", "26.1.5", "--root"]).arg(&system);
        install.args(["--shim", &node.inside("sealift-shim"), "--agent", &node.inside("run/agent.sock")]);
        run(&mut install).succeeded();
        // What enters a container finds the namespace's root, which a chroot is not.
        let mut command = node.machine("sh");
        command.args(["-c", START, &node.inside("system"), &socket(node)]);
        Self { node, _running: Running::start(&mut command, &node.path("docker.log")) }
    }

    fn docker(&self, args: &[&str]) -> Said {
        run(self.node.command("docker").args(["-H", &socket(self.node)]).args(args))
    }

    /// `docker run ARGS` with our runtime.
    fn run(&self, args: &[&str]) -> Said {
        self.docker(&[&["run", "--network=host", "--runtime=sealift"], args].concat())
    }

    /// Starts a container that waits, and returns once it says so.
    fn start_waiting(&self, options: &[&str], name: &str, image: &str, how: &str) {
        self.run(&[&["--detach"], options, &["--name", name, image, how]].concat()).succeeded();
        wait_for("ready", LONG, || self.docker(&["logs", name]).stdout.contains("ready").then_some(()));
    }

    fn state(&self, name: &str) -> String {
        self.inspect(name, "{{.State.Status}} {{.State.ExitCode}}")
    }

    fn inspect(&self, name: &str, format: &str) -> String {
        self.docker(&["inspect", "--format", format, name]).succeeded().stdout.trim().to_owned()
    }

    /// Copies an image into Docker's store, decrypted where it is sealed.
    fn load(&self, source: &str, name: &str) -> Said {
        let mut skopeo = self.node.command("skopeo");
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        skopeo.args(["--decryption-key", "provider:sealift", "--dest-daemon-host", &socket(self.node)]);
        skopeo.args([source, &format!("docker-daemon:{name}")]);
        run(skopeo.env("OCICRYPT_KEYPROVIDER_CONFIG", self.node.inside("system/etc/sealift/ocicrypt.json")))
    }

    /// An image that has nothing in common with the sealed one, as Docker builds it.
    fn build_own(&self) {
        let context = self.node.plain.directory().with_file_name("base");
        let file = "FROM scratch\nCOPY . /\nENTRYPOINT [\"/bin/sh\", \"-c\"]\n";
        std::fs::write(self.node.path("Dockerfile"), file).unwrap();
        let (file, context) = (self.node.inside("Dockerfile"), self.node.inside_of(&context));
        let mut build = self.node.command("docker");
        build.args(["-H", &socket(self.node), "build", "--quiet", "--tag", "own", "--file", &file, &context]);
        run(build.env("DOCKER_BUILDKIT", "0")).succeeded();
    }
}

impl Drop for Docker<'_> {
    /// Containers outlive the daemon.
    fn drop(&mut self) {
        let all = self.docker(&["ps", "--all", "--quiet"]).stdout;
        if !all.is_empty() {
            self.docker(&[&["rm", "--force"], &all.split_whitespace().collect::<Vec<_>>()[..]].concat());
        }
    }
}

/// A node with a sealed image that has no layer in zstd: such skopeo puts into no store of Docker's.
async fn make_node() -> Node {
    let mut node = Node::make().await;
    let name = node.registry.reference("vendor/gzip:v1");
    node.sealed = node.vendor.pack(&node.plain.reference("gzip"), &name, PRODUCT);
    node
}

fn socket(node: &Node) -> String {
    format!("unix://{}", node.inside("docker.sock"))
}

fn live_leases(node: &Node) -> usize {
    node.vendor.sealift(["lease", "list"]).succeeded().stdout.matches(" live ").count()
}

#[tokio::test]
async fn a_sealed_image_runs_while_its_licence_lives_and_stops_at_once_when_it_is_revoked() {
    let node = make_node().await;
    let license = node.license(&["--seats", "2", "--lease", "1h"]);
    let docker = Docker::start(&node, &json!({"storage-driver": "overlay2"}));
    let agent = node.agent();
    docker.load(&node.sealed, "app:v1").succeeded();
    let said = docker.run(&["--rm", "app:v1"]);
    assert_eq!((said.code, said.stdout.as_str()), (7, OUTPUT), "{}", said.stderr);
    wait_for("the lease given back", LONG, || (live_leases(&node) == 0).then_some(()));

    for how in ["wait", "stubborn"] {
        docker.start_waiting(&[], how, "app:v1", how);
    }
    assert_eq!(docker.docker(&["exec", "wait", "id", "-u"]).succeeded().stdout, "0\n", "everything else is Docker's");
    assert_eq!((agent.containers().len(), live_leases(&node)), (2, 2));
    let said = docker.run(&["--rm", "app:v1"]);
    assert!(said.code == 125 && said.stderr.contains("all seats of the licence are taken"), "{said:?}");

    node.revoke(&license);
    for (name, expected) in [("wait", "exited 0"), ("stubborn", "exited 137")] {
        wait_for(name, REVOCATION, || docker.state(name).starts_with("exited").then_some(()));
        assert_eq!(docker.state(name), expected);
    }
    assert!(docker.docker(&["logs", "wait"]).stdout.ends_with("stopped\n"), "it was asked before it was killed");
    assert!(node.agent_log().contains("is stopped: the service ended the lease"), "{}", node.agent_log());
    for again in [docker.run(&["--rm", "app:v1"]), docker.docker(&["start", "wait"])] {
        assert!(again.code != 0 && again.stderr.contains("contract ended"), "{again:?}");
    }
    let opened = docker.load(&node.sealed, "again:v1");
    assert!(opened.code != 0 && opened.stderr.contains("contract ended"), "{opened:?}");
    wait_for("no lease", LONG, || agent.containers().is_empty().then_some(()));
}

#[tokio::test]
async fn what_is_not_sealed_is_not_touched_and_what_has_a_sealed_images_layers_is() {
    let node = make_node().await;
    let license = node.license(&[]);
    let docker = Docker::start(&node, &json!({"storage-driver": "overlay2"}));
    // Without an agent.
    docker.build_own();
    let said = docker.run(&["--rm", "own", "echo out; echo err >&2; exit 23"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (23, "out\n", "err\n"));
    docker.start_waiting(
        &[],
        "own",
        "own",
        "trap 'echo stopped; exit 3' TERM; echo ready; while true; do sleep 0.1; done",
    );
    assert_eq!(docker.docker(&["exec", "own", "cat", "/opt/kept"]).succeeded().stdout, "keep\n");
    assert_eq!(docker.docker(&["exec", "own", "sh", "-c", "exit 4"]).code, 4);
    for command in ["pause", "unpause", "stop", "start", "restart"] {
        docker.docker(&[command, "own"]).succeeded();
    }
    docker.docker(&["stop", "own"]).succeeded();
    assert_eq!(docker.state("own"), "exited 3");
    assert_eq!(docker.docker(&["logs", "own"]).stdout, "ready\nstopped\n".repeat(3));

    // The very image before it was sealed.
    docker.load(&format!("oci:{}:gzip", node.inside_of(node.plain.directory())), "plain:v1").succeeded();
    assert_eq!(docker.run(&["--rm", "plain:v1"]).code, 7, "nobody here knows of it yet");
    let agent = node.agent();
    assert_eq!(docker.run(&["--rm", "own", "exit 24"]).code, 24);
    assert_eq!(docker.run(&["--name", "changed", "plain:v1"]).code, 7, "under a lease");
    // What is made from it, and a container whose image is gone.
    docker.docker(&["commit", "changed", "derived:v1"]).succeeded();
    docker.docker(&["rmi", "--force", "plain:v1"]).succeeded();
    node.revoke(&license);
    for refused in [docker.docker(&["start", "--attach", "changed"]), docker.run(&["--rm", "derived:v1"])] {
        assert!(refused.code != 0 && refused.stderr.contains("contract ended"), "{refused:?}");
    }
    drop(agent);
    let refused = docker.run(&["--rm", "derived:v1"]);
    assert!(refused.code == 125 && refused.stderr.contains("no agent answers"), "{refused:?}");
    assert_eq!(docker.run(&["--rm", "own", "exit 25"]).code, 25);
}

/// Where Docker notes what a container is of differs between them.
#[tokio::test]
async fn a_lease_is_needed_whichever_store_docker_keeps_its_images_in() {
    for store in [json!({"storage-driver": "vfs"}), json!({"features": {"containerd-snapshotter": true}})] {
        let node = make_node().await;
        let license = node.license(&["--lease", "1h"]);
        let docker = Docker::start(&node, &store);
        docker.build_own();
        let agent = node.agent();
        docker.load(&node.sealed, "app:v1").succeeded();
        docker.start_waiting(&["--restart=always"], "wait", "app:v1", "wait");
        assert_eq!(agent.containers().len(), 1, "{store}");
        // What the container is made of stays when its name goes.
        docker.docker(&["create", "--network=host", "--runtime=sealift", "--name", "later", "app:v1"]).succeeded();
        docker.docker(&["rmi", "--force", "app:v1"]);
        node.revoke(&license);
        wait_for("the end", REVOCATION, || docker.state("wait").starts_with("exited").then_some(()));
        // Docker starts it again, and notes why it could not.
        wait_for("why", LONG, || docker.inspect("wait", "{{.State.Error}}").contains("contract ended").then_some(()));
        assert!(docker.state("wait").starts_with("exited"), "{store}: {}", docker.state("wait"));
        let refused = docker.docker(&["start", "--attach", "later"]);
        assert!(refused.code != 0 && refused.stderr.contains("contract ended"), "{store}: {refused:?}");
        drop(agent);
        assert_eq!(docker.run(&["--rm", "own", "exit 23"]).code, 23, "{store}");
    }
}
