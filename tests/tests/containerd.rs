//! containerd of Debian 13 with our OCI runtime as the binary of its runc shim.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use end_to_end::node::{Node, wait_for};
use end_to_end::peer::{Said, peer, run};
use end_to_end::running::Running;
use end_to_end::site::{Decoder, PRODUCT, Sealer, Site};

const LONG: Duration = Duration::from_mins(1);

/// containerd on a node, and the plain image in it, which has the layers of the node's sealed one.
struct Containerd<'a> {
    node: &'a Node,
    _running: Running,
}

impl<'a> Containerd<'a> {
    fn start(node: &'a Node) -> Self {
        let text = format!(
            "version = 2\nroot = \"{root}\"\nstate = \"{state}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = \"{socket}\"\n",
            root = node.inside("containerd"),
            state = node.inside("containerd.state"),
            socket = node.inside("containerd.sock"),
        );
        std::fs::write(node.path("containerd.toml"), text).unwrap();
        // It says nothing on stdout; what waits for it does.
        let mut command = node.command("sh");
        let script = "containerd --config \"$0\" & until ctr -a \"$1\" version >/dev/null 2>&1; do sleep 0.1; done; echo up; wait";
        command.args(["-c", script, &node.inside("containerd.toml"), &node.inside("containerd.sock")]);
        command.env("SEALIFT_AGENT", node.inside("run/agent.sock"));
        let running = Running::start(&mut command, &node.path("containerd.log"));
        let containerd = Self { node, _running: running };
        let archive = node.path("plain.tar");
        let target = format!("oci-archive:{}:gzip", archive.display());
        run(peer("skopeo").args(["copy", "--quiet", &node.plain.reference("gzip"), &target])).succeeded();
        containerd.ctr(&["image", "import", "--base-name", "app", &node.inside("plain.tar")]).succeeded();
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Said {
        run(self.node.command("ctr").args(["-a", &self.node.inside("containerd.sock"), "-n", "test"]).args(args))
    }

    /// `ctr COMMAND … app:gzip ID ARGS` with our runtime.
    fn container(&self, command: &[&str], id: &str, args: &[&str]) -> Said {
        let runtime = self.node.inside("sealift-runtime");
        self.ctr(&[command, &["--net-host", "--runc-binary", &runtime, "app:gzip", id], args].concat())
    }

    fn is_running(&self, id: &str) -> bool {
        let tasks = self.ctr(&["task", "ls"]).succeeded().stdout;
        tasks.lines().any(|line| line.starts_with(id) && line.ends_with("RUNNING"))
    }
}

/// What is unpacked already starts without any decoder being asked: the runtime is what keeps it from that.
#[tokio::test]
async fn what_containerd_has_unpacked_starts_under_a_lease_only() {
    let node = Node::make().await;
    let license = node.license(&["--seats", "1", "--lease", "1h"]);
    let containerd = Containerd::start(&node);
    let said = containerd.container(&["run", "--rm"], "unknown", &[]);
    assert_eq!((said.code, said.stdout.as_str()), (7, "hello world from 0 in /opt\nupper\n"), "{}", said.stderr);

    let agent = node.agent();
    containerd.container(&["run", "--detach"], "first", &["/opt/run.sh", "wait"]).succeeded();
    assert!(containerd.is_running("first"));
    assert_eq!(agent.containers().len(), 1);
    let exec = containerd.ctr(&["task", "exec", "--exec-id", "e", "first", "id", "-u"]).succeeded();
    assert_eq!(exec.stdout, "0\n");
    let refused = containerd.container(&["run", "--rm"], "second", &[]);
    assert!(refused.code != 0 && refused.stderr.contains("all seats of the licence are taken"), "{}", refused.stderr);

    node.revoke(&license);
    wait_for("the end", LONG, || (!containerd.is_running("first")).then_some(()));
    // Its snapshots tell what it is made of, whatever its name stands for by now.
    containerd.ctr(&["image", "rm", "app:gzip"]).succeeded();
    containerd.ctr(&["task", "delete", "first"]);
    let refused = containerd.ctr(&["task", "start", "first"]);
    assert!(refused.code != 0 && refused.stderr.contains("contract ended"), "{}", refused.stderr);
    assert!(node.agent_log().contains("is stopped: the service ended the lease"), "{}", node.agent_log());
}

#[tokio::test]
async fn a_pod_stops_when_its_licence_is_revoked_and_is_told_why_it_does_not_start_again() {
    let mut site = Site::make().await;
    let (id, license) = site.vendor.license(PRODUCT, &["--lease", "1h"]);
    let image = site.seal(Sealer::Pack).unwrap();
    site.start_agent(&license, std::slice::from_ref(&image));
    site.configure_containerd();
    site.install("containerd");
    let mut cri = site.start_containerd(Decoder::Shim).await;
    let name = image.strip_prefix("docker://").unwrap();
    let logs = site.inside("logs");
    cri.pull(name).await.unwrap();
    let pod = cri.create("first", name, &["wait"], &logs, "sealift").await.unwrap();
    cri.start(&pod).await.unwrap();
    site.vendor.sealift(["license", "revoke", &id, "--reason", "contract ended"]).succeeded();
    let code = cri.wait(&pod).await.unwrap();
    // 128 + SIGTERM where the workload had not come to listen to it yet.
    assert!(matches!(code, 0 | 137 | 143), "{code}");
    let again = cri.create("again", name, &["wait"], &logs, "sealift").await.unwrap();
    let refused = cri.start(&again).await.unwrap_err();
    assert!(refused.message().contains("contract ended"), "{}", refused.message());
    for pod in [pod, again] {
        cri.remove(pod).await.unwrap();
    }
}
