//! podman of Debian 13 with our OCI runtime: sealed images run under a lease of the node's agent or not at all, all others as
//! ever.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::Duration;

use end_to_end::node::{Node, PRODUCT, wait_for};
use end_to_end::peer::run;
use serde_json::{Value, json};

/// Far more than anything takes that a test waits for.
const LONG: Duration = Duration::from_mins(1);

/// Far less than the lease, so that it is the revocation that ends a container. It takes well below two seconds on a machine
/// that has nothing else to do.
const REVOCATION: Duration = Duration::from_secs(10);

/// A policy that obliges to a root file system which is read-only.
const READ_ONLY: &str = "package sealift.release\nimport rego.v1\n\
                         allow if input.references[_].measurement == input.tee.measurement\n\
                         obligations := {\"read_only_root\": true}\n";

/// Starts a container that waits, and returns once it says so.
fn start_waiting(node: &Node, name: &str, image: &str, how: &str) {
    node.podman_run(&["--detach", "--name", name, image, how]).succeeded();
    wait_for("ready", LONG, || node.podman(&["logs", name]).stdout.contains("ready").then_some(()));
}

fn state(node: &Node, name: &str) -> String {
    let format = "{{.State.Status}} {{.State.ExitCode}}";
    node.podman(&["inspect", "--format", format, name]).succeeded().stdout.trim().to_owned()
}

fn live_leases(node: &Node) -> usize {
    node.vendor.sealift(["lease", "list"]).succeeded().stdout.matches(" live ").count()
}

#[tokio::test]
async fn a_sealed_image_runs_while_its_licence_lives_and_stops_at_once_when_it_is_revoked() {
    let node = Node::make().await;
    let license = node.license(&["--seats", "2", "--lease", "1h"]);
    let agent = node.agent();
    let image = node.pull();
    let said = node.podman_run(&["--rm", &image]);
    assert_eq!((said.code, said.stdout.as_str()), (7, "hello world from 0 in /opt\nupper\n"), "{}", said.stderr);
    wait_for("the lease given back", LONG, || (live_leases(&node) == 0).then_some(()));

    for how in ["wait", "stubborn"] {
        start_waiting(&node, how, &image, how);
    }
    assert_eq!(node.podman(&["exec", "wait", "id", "-u"]).succeeded().stdout, "0\n", "everything else is podman's");
    assert_eq!((agent.containers().len(), live_leases(&node)), (2, 2));
    let said = node.podman_run(&["--rm", &image]);
    assert!(said.code != 0 && said.stderr.contains("all seats of the licence are taken"), "{}", said.stderr);

    node.revoke(&license);
    for (name, expected) in [("wait", "exited 0"), ("stubborn", "exited 137")] {
        wait_for(name, REVOCATION, || state(&node, name).starts_with("exited").then_some(()));
        assert_eq!(state(&node, name), expected);
    }
    assert!(node.podman(&["logs", "wait"]).stdout.ends_with("stopped\n"), "it was asked before it was killed");
    assert!(node.agent_log().contains("is stopped: the service ended the lease"), "{}", node.agent_log());
    for again in [node.podman_run(&["--rm", &image]), node.podman(&["start", "wait"])] {
        assert!(again.code != 0 && again.stderr.contains("was revoked"), "{}", again.stderr);
        assert!(again.stderr.contains("contract ended"), "{}", again.stderr);
    }
    wait_for("no lease", LONG, || agent.containers().is_empty().then_some(()));
}

#[tokio::test]
async fn crun_serves_below_our_runtime_as_runc_does() {
    let node = Node::make().await;
    let license = node.license(&["--lease", "1h"]);
    let _agent = node.agent();
    let image = node.pull();
    let said = node.podman_run_with_crun(&["--rm", &image]);
    assert_eq!((said.code, said.stdout.as_str()), (7, "hello world from 0 in /opt\nupper\n"), "{}", said.stderr);

    node.podman_run_with_crun(&["--detach", "--name", "wait", &image, "wait"]).succeeded();
    wait_for("ready", LONG, || node.podman(&["logs", "wait"]).stdout.contains("ready").then_some(()));
    node.revoke(&license);
    wait_for("stopped", REVOCATION, || state(&node, "wait").starts_with("exited").then_some(()));
    let again = node.podman_run_with_crun(&["--rm", &image]);
    assert!(again.code != 0 && again.stderr.contains("was revoked"), "{}", again.stderr);
}

#[tokio::test]
async fn what_is_not_sealed_is_not_touched_and_what_has_a_sealed_images_layers_is() {
    let node = Node::make().await;
    let license = node.license(&[]);
    // Other content than the sealed image's, and without an agent.
    let dockerfile = node.path("Dockerfile");
    std::fs::write(&dockerfile, "FROM scratch\nCOPY base /\nENTRYPOINT [\"/bin/sh\", \"-c\", \"exit $0\"]\n").unwrap();
    let context = node.inside_of(&node.plain.directory().with_file_name(""));
    let build = ["build", "--quiet", "--tag", "own", "--file", &node.inside("Dockerfile"), &context];
    node.podman(&build).succeeded();
    assert_eq!(node.podman_run(&["--rm", "own", "23"]).code, 23);

    // The very image before it was sealed: its manifest says nothing.
    let plain = format!("oci:{}:mixed", node.inside_of(node.plain.directory()));
    let copy = node.podman(&["pull", "--quiet", &plain]).succeeded().stdout.trim().to_owned();
    assert_eq!(node.podman_run(&["--rm", &copy]).code, 7, "nobody here knows of it yet");
    let agent = node.agent();
    assert_eq!(node.podman_run(&["--rm", "own", "24"]).code, 24);
    assert_eq!(node.podman_run(&["--rm", &copy]).code, 7, "under a lease");
    let policy = node.path("policy.rego");
    std::fs::write(&policy, READ_ONLY).unwrap();
    let set = ["policy", "set", "--product", PRODUCT, &policy.display().to_string()];
    node.vendor.sealift(set).succeeded();
    let refused = node.podman_run(&["--rm", &copy]);
    assert!(refused.code != 0 && refused.stderr.contains("start the container with a read-only root"));
    assert_eq!(node.podman_run(&["--rm", "--read-only", &copy]).code, 7);
    node.revoke(&license);
    let refused = node.podman_run(&["--rm", "--read-only", &copy]);
    assert!(refused.code != 0 && refused.stderr.contains("was revoked"), "{}", refused.stderr);

    drop(agent);
    let refused = node.podman_run(&["--rm", &copy]);
    assert!(refused.code != 0 && refused.stderr.contains("no agent answers"), "{}", refused.stderr);
    assert_eq!(node.podman_run(&["--rm", "own", "25"]).code, 25);
}

#[tokio::test]
async fn containers_outlive_a_restart_of_the_agent_and_not_its_absence() {
    let node = Node::make().await;
    node.license(&["--seats", "1", "--lease", "6s", "--grace", "4s"]);
    let agent = node.agent();
    let image = node.pull();
    start_waiting(&node, "one", &image, "wait");
    let first = agent.containers()[0]["lease"].clone();
    drop(agent);
    assert_eq!(state(&node, "one"), "running 0");
    let agent = node.agent();
    let second = wait_for("another lease", LONG, || {
        agent.containers().first().map(|container| container["lease"].clone()).filter(|lease| *lease != first)
    });
    assert_eq!(live_leases(&node), 1, "the old one was given back");
    // Two renewals later the first lease would long be over.
    let renewed = node.vendor.sealift(["audit", "list"]).succeeded().stdout.matches("lease_renewed").count();
    wait_for("two renewals", LONG, || {
        let now = node.vendor.sealift(["audit", "list"]).succeeded().stdout.matches("lease_renewed").count();
        (now >= renewed + 2).then_some(())
    });
    assert_eq!((state(&node, "one").as_str(), &agent.containers()[0]["lease"]), ("running 0", &second));

    drop(agent);
    wait_for("the end", LONG, || (state(&node, "one") == "exited 0").then_some(()));
    assert!(node.podman(&["logs", "one"]).stdout.ends_with("stopped\n"));
    // Nothing stays behind once the container is gone.
    let agent = node.agent();
    wait_for("no container", LONG, || agent.containers().is_empty().then_some(()));
}

/// As a person calls a runtime, or buildah: the bundle lies anywhere, the root file system tells which image it is of.
#[tokio::test]
async fn a_container_that_is_run_in_the_foreground_is_stopped_as_well() {
    let node = Node::make().await;
    let license = node.license(&["--lease", "1h"]);
    let agent = node.agent();
    let image = node.pull();
    node.podman(&["create", "--name", "mounted", &image]).succeeded();
    let root = node.podman(&["mount", "mounted"]).succeeded().stdout.trim().to_owned();
    std::fs::create_dir(node.path("bundle")).unwrap();
    run(node.command("sh").args(["-c", "cd \"$0\" && runc spec", &node.inside("bundle")])).succeeded();
    let mut config: Value = serde_json::from_slice(&std::fs::read(node.path("bundle/config.json")).unwrap()).unwrap();
    config["root"]["path"] = root.into();
    for (name, value) in [
        ("terminal", json!(false)),
        ("args", json!(["/opt/run.sh", "wait"])),
        ("env", json!(["PATH=/bin", "GREETING=world"])),
    ] {
        config["process"][name] = value;
    }
    std::fs::write(node.path("bundle/config.json"), config.to_string()).unwrap();

    let runtime = |id: &str| {
        let mut command = node.command(&node.inside("sealift-runtime"));
        command.args(["--agent", &node.inside("run/agent.sock"), "--root", &node.inside("runc"), "run", "--bundle"]);
        command.args([&node.inside("bundle"), id]);
        command
    };
    let mut child = runtime("one").stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.ends_with("ready\n") {
        assert_ne!(stdout.read_line(&mut said).unwrap(), 0, "it ended early: {said}");
    }
    wait_for("its process", LONG, || agent.containers()[0]["pid"].as_i64());
    node.revoke(&license);
    stdout.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success() && said.ends_with("stopped\n"), "{said}");
    run(&mut runtime("two")).failed(1, "contract ended");
}
