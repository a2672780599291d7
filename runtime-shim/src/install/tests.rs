use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::plan::{Plan, PlannedCopy};
use super::*;

fn programs() -> Programs {
    let [shim, oci_runtime, agent] =
        ["/usr/bin/sealift-shim", "/usr/bin/runc", "/run/sealift/agent.sock"].map(PathBuf::from);
    Programs { shim, oci_runtime, agent }
}

/// An empty system, with Debian's configuration of containerd where that is wanted.
fn system(config: Option<&str>) -> (TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    if let Some(config) = config {
        fs::create_dir_all(directory.path().join("etc/containerd")).unwrap();
        fs::write(directory.path().join("etc/containerd/config.toml"), config).unwrap();
    }
    let root = Root::new(directory.path().to_owned());
    (directory, root)
}

fn containerd(config: Option<&str>, version: [u32; 3]) -> Result<Plan, Failure> {
    containerd::plan(&system(config).1, Version(version), &programs())
}

const DEBIAN: &str = r#"version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
"#;

#[test]
fn each_engine_is_told_this() {
    insta::assert_snapshot!("containerd-1.7", containerd(Some(DEBIAN), [1, 7, 24]).unwrap());
    insta::assert_snapshot!("containerd-2.3", containerd(None, [2, 3, 4]).unwrap());
    insta::assert_snapshot!("podman", containers::podman(Version([5, 4, 2]), &programs()).unwrap());
    insta::assert_snapshot!("crio", containers::crio(&programs()).unwrap());
    insta::assert_snapshot!("docker", docker::plan(&system(None).1, &programs()).unwrap());
    let (directory, root) = system(None);
    daemon(directory.path(), DAEMON);
    insta::assert_snapshot!("docker-beside-others", docker::plan(&root, &programs()).unwrap());
}

const DAEMON: &str = "{\n  \"storage-driver\": \"overlay2\"\n}\n";

/// Docker's configuration.
fn daemon(directory: &Path, text: &str) {
    fs::create_dir_all(directory.join("etc/docker")).unwrap();
    fs::write(directory.join("etc/docker/daemon.json"), text).unwrap();
}

#[test]
fn docker_has_one_entry_more_in_what_it_reads_and_then_none() {
    for (text, later) in [(DAEMON, None), ("{}", None), ("{}", Some((",\n  \"debug\": true", "{\n  \"debug\": true}")))]
    {
        let (directory, root) = system(None);
        daemon(directory.path(), text);
        let before = tree(directory.path());
        for _ in 0..2 {
            record::write(&root, "docker", &docker::plan(&root, &programs()).unwrap()).unwrap();
        }
        let written = root.read("/etc/docker/daemon.json").unwrap().unwrap();
        let daemon: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(daemon["runtimes"], json!({"sealift": {"path": Programs::RUNTIME}}));
        assert_eq!(daemon["storage-driver"] == "overlay2", text == DAEMON);
        if let Some((entry, rest)) = later {
            let end = written.rfind('}').unwrap();
            fs::write(directory.path().join("etc/docker/daemon.json"), format!("{}{entry}}}", &written[..end]))
                .unwrap();
            record::undo(&root, "docker").unwrap();
            assert_eq!(root.read("/etc/docker/daemon.json").unwrap().unwrap(), rest);
        } else {
            record::undo(&root, "docker").unwrap();
            assert_eq!(tree(directory.path()), before);
        }
    }
}

#[test]
fn runtimes_of_others_in_dockers_configuration_are_not_written_over() {
    let (directory, root) = system(None);
    for (text, words) in [(r#"{"runtimes": {"kata": {}}}"#, "names other runtimes"), ("{", "cannot be read")] {
        daemon(directory.path(), text);
        let failure = docker::plan(&root, &programs()).unwrap_err();
        assert!(failure.message.contains(words), "{text}: {}", failure.message);
    }
    let both = json!({"runtimes": {"kata": {}, "sealift": {"path": Programs::RUNTIME}}});
    daemon(directory.path(), &both.to_string());
    assert!(docker::plan(&root, &programs()).unwrap().lines.is_empty());
}

#[test]
fn engines_that_could_not_open_a_layer_are_refused() {
    for version in [[1, 5, 9], [2, 0, 9], [2, 1, 0], [2, 1, 6], [2, 2, 0], [2, 2, 1]] {
        let failure = containerd(None, version).unwrap_err();
        assert!(failure.message.contains("no keys"), "{version:?}: {}", failure.message);
    }
    for version in [[1, 6, 20], [2, 1, 7], [2, 2, 2], [2, 4, 0], [3, 0, 0]] {
        assert!(containerd(None, version).is_ok(), "{version:?}");
    }
    assert!(containers::podman(Version([4, 3, 1]), &programs()).is_err());
}

#[test]
fn configurations_that_ours_cannot_be_added_to_are_refused() {
    for (config, words) in [
        ("version = 3", "is of version 3, this containerd's own is 2"),
        ("", "is of version 1"),
        ("version = 2\nimports = [\"/etc/other/*.toml\"]", "imports other files"),
        ("version = ", "cannot be read"),
    ] {
        let failure = containerd(Some(config), [1, 7, 24]).unwrap_err();
        assert!(failure.message.contains(words), "{config}: {}", failure.message);
    }
    let ours = "version = 2\nimports = [\"/etc/other/*.toml\", \"/etc/containerd/conf.d/*.toml\"]";
    assert!(containerd(Some(ours), [1, 7, 24]).unwrap().lines.is_empty());
    let odd = Programs { shim: "relative".into(), ..programs() };
    assert!(containers::podman(Version([5, 4, 2]), &odd).is_err());
}

/// Every file and directory, with content.
fn tree(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
            found.push((path, String::new()));
        } else {
            let content = fs::read_to_string(&path).unwrap();
            found.push((path, content));
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_written_is_removed_and_nothing_else() {
    let (directory, root) = system(Some(DEBIAN));
    let before = tree(directory.path());
    let plan = containerd::plan(&root, Version([1, 7, 24]), &programs()).unwrap();
    record::write(&root, "containerd", &plan).unwrap();
    let written = tree(directory.path());
    assert!(root.read("/etc/containerd/config.toml").unwrap().unwrap().starts_with("imports = "));

    // Again: the main file imports ours by now.
    let again = containerd::plan(&root, Version([1, 7, 24]), &programs()).unwrap();
    record::write(&root, "containerd", &again).unwrap();
    assert_eq!(tree(directory.path()), written);

    // A main file that is ours altogether goes, too.
    let (bare, bare_root) = system(None);
    for _ in 0..2 {
        let plan = containerd::plan(&bare_root, Version([2, 3, 4]), &programs()).unwrap();
        record::write(&bare_root, "containerd", &plan).unwrap();
    }
    record::undo(&bare_root, "containerd").unwrap();
    assert_eq!(tree(bare.path()), []);

    // What two engines share stays until the second goes.
    record::write(&root, "podman", &containers::podman(Version([5, 4, 2]), &programs()).unwrap()).unwrap();
    record::undo(&root, "containerd").unwrap();
    assert!(root.read(Programs::RUNTIME).unwrap().is_some());
    record::undo(&root, "podman").unwrap();
    assert_eq!(tree(directory.path()), before);
    assert!(record::undo(&root, "podman").unwrap_err().message.contains("nothing is installed"));
}

#[test]
fn a_copied_program_is_replaced_and_removed_unless_somebody_changed_it() {
    let (directory, root) = system(None);
    let before = tree(directory.path());
    let plan = |content: &str| {
        let mut plan = containerd::plan(&root, Version([2, 3, 4]), &programs()).unwrap();
        plan.program = Some(PlannedCopy { path: "/usr/bin/sealift-shim".to_owned(), content: content.into() });
        plan
    };
    for content in ["one", "two"] {
        record::write(&root, "containerd", &plan(content)).unwrap();
        assert_eq!(root.read("/usr/bin/sealift-shim").unwrap().unwrap(), content);
    }
    let program = directory.path().join("usr/bin/sealift-shim");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&program).unwrap().permissions()) & 0o7777, 0o755);
    assert!(plan("one").to_string().starts_with("==> /usr/bin/sealift-shim, this program\n\n==> /usr/local"));

    fs::write(&program, b"mine \xff").unwrap();
    assert!(record::write(&root, "containerd", &plan("three")).unwrap_err().message.contains("is there already"));
    assert!(record::undo(&root, "containerd").unwrap_err().message.contains("was changed"));
    assert_eq!(fs::read(&program).unwrap(), b"mine \xff");
    fs::write(&program, "two").unwrap();
    record::undo(&root, "containerd").unwrap();
    assert_eq!(tree(directory.path()), before);
}

#[test]
fn what_is_not_ours_stays_as_it_is() {
    let (directory, root) = system(None);
    fs::create_dir_all(directory.path().join("etc/profile.d")).unwrap();
    fs::write(directory.path().join("etc/profile.d/sealift.sh"), "mine").unwrap();
    let plan = containers::podman(Version([5, 4, 2]), &programs()).unwrap();
    let before = tree(directory.path());
    assert!(record::write(&root, "podman", &plan).unwrap_err().message.contains("is there already"));
    assert_eq!(tree(directory.path()), before);

    fs::remove_file(directory.path().join("etc/profile.d/sealift.sh")).unwrap();
    record::write(&root, "podman", &plan).unwrap();
    fs::write(directory.path().join("etc/profile.d/sealift.sh"), "changed").unwrap();
    let before = tree(directory.path());
    assert!(record::undo(&root, "podman").unwrap_err().message.contains("was changed"));
    assert_eq!(tree(directory.path()), before);
}
