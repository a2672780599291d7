//! Containers of a Kubernetes pod, started by runc as kubelet and engine would: from their image, with the pod's user, groups,
//! capabilities, read-only root, variables and volumes. Not as there: they are on this machine's network, and have neither a
//! seccomp profile nor limits.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chart::{container, texts};
use crate::peer::{Said, peer, run};
use crate::running::Running;

/// Secrets and `ConfigMaps` by their names, each with its files.
pub type Objects = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// A pod on a node.
#[derive(Debug)]
pub struct Pod<'a> {
    spec: &'a Value,
    /// OCI layouts by the names of images, each with the tag `image`.
    images: BTreeMap<String, PathBuf>,
    volumes: BTreeMap<String, PathBuf>,
    scratch: TempDir,
    /// Further files that a kubelet puts into containers, or that a test does: the place and the file.
    mounts: Vec<(String, PathBuf)>,
    environment: Vec<String>,
}

impl<'a> Pod<'a> {
    /// Makes the volumes. `node` says where a folder of the node is here.
    ///
    /// # Panics
    /// When a volume is of another kind than those of our chart, or refers to something that is not there.
    pub fn new(spec: &'a Value, objects: &Objects, node: impl Fn(&str) -> PathBuf) -> Self {
        let scratch = tempfile::tempdir().expect("directory");
        // Users of containers pass through it.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let group = spec["securityContext"]["fsGroup"].as_u64().map(|group| u32::try_from(group).expect("group"));
        let volumes = spec["volumes"].as_array().into_iter().flatten().map(|volume| {
            let name = volume["name"].as_str().expect("name").to_owned();
            let place = scratch.path().join("volumes").join(&name);
            (name, Volume { group, objects, node: &node }.make(volume, place))
        });
        let volumes = volumes.collect();
        Self { spec, images: BTreeMap::new(), volumes, scratch, mounts: Vec::new(), environment: Vec::new() }
    }

    /// Says where an image is: a layout with the tag `image`.
    #[must_use]
    pub fn image(mut self, name: &str, layout: &Path) -> Self {
        self.images.insert(name.to_owned(), layout.to_owned());
        self
    }

    /// Puts a file into all containers but those that come first.
    #[must_use]
    pub fn mount(mut self, place: &str, file: &Path) -> Self {
        self.mounts.push((place.to_owned(), file.to_owned()));
        self
    }

    /// Sets a variable in all containers but those that come first.
    #[must_use]
    pub fn variable(mut self, assignment: &str) -> Self {
        self.environment.push(assignment.to_owned());
        self
    }

    /// A container of the pod, not yet started.
    ///
    /// # Panics
    /// When its bundle cannot be made.
    pub fn container(&self, name: &str) -> Container {
        let spec = container(self.spec, name);
        let bundle = self.scratch.path().join(format!("bundle-{name}"));
        if bundle.exists() {
            fs::remove_dir_all(&bundle).expect("bundle");
        }
        let image = &self.images[spec["image"].as_str().expect("image")];
        let unpacked =
            run(peer("umoci").arg("unpack").arg("--image").arg(format!("{}:image", image.display())).arg(&bundle));
        unpacked.succeeded();
        let file = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).expect("bundle")).expect("bundle");
        self.configure(spec, &mut config);
        fs::write(&file, config.to_string()).expect("bundle");
        let id = self.scratch.path().file_name().expect("name").to_string_lossy().replace('.', "") + "-" + name;
        Container { id, bundle, state: self.scratch.path().join("runc") }
    }

    /// Runs the containers that come before all others, in their order.
    ///
    /// # Panics
    /// When one fails.
    pub fn initialize(&self) -> Vec<Said> {
        let first = self.spec["initContainers"].as_array().into_iter().flatten();
        let names = first.map(|container| container["name"].as_str().expect("name"));
        names.map(|name| run(&mut self.container(name).command()).succeeded()).collect()
    }

    /// What the pod says in the place of what the image says.
    fn configure(&self, spec: &Value, config: &mut Value) {
        let (pod, own) = (&self.spec["securityContext"], &spec["securityContext"]);
        let said = |field: &str| own.get(field).or_else(|| pod.get(field)).cloned();
        let process = &mut config["process"];
        let user = |field, image: &Value| said(field).unwrap_or_else(|| image.clone());
        process["user"] = json!({
            "uid": user("runAsUser", &process["user"]["uid"]),
            "gid": user("runAsGroup", &process["user"]["gid"]),
            "additionalGids": pod.get("fsGroup").into_iter().collect::<Vec<_>>(),
        });
        assert!(said("runAsNonRoot") != Some(json!(true)) || process["user"]["uid"] != 0, "the user is root");
        // umoci puts entry point and arguments together; the arguments of a pod take the place of the image's.
        let program = process["args"][0].clone();
        let words = spec["command"].as_array().cloned().unwrap_or_else(|| vec![program]);
        process["args"] = words.into_iter().chain(spec["args"].as_array().cloned().unwrap_or_default()).collect();
        let variables = spec["env"].as_array().into_iter().flatten();
        let variables = variables.map(|variable| {
            json!(format!(
                "{}={}",
                variable["name"].as_str().expect("name"),
                variable["value"].as_str().expect("value")
            ))
        });
        let further = if self.stays(spec) { self.environment.as_slice() } else { &[] };
        let variables = variables.chain(further.iter().map(|variable| json!(variable)));
        process["env"].as_array_mut().expect("variables").extend(variables);
        process["terminal"] = json!(false);
        process["rlimits"] = json!([]);
        let is_privileged = own["privileged"] == true;
        process["noNewPrivileges"] = json!(own["allowPrivilegeEscalation"] == false);
        let held: &[&str] = match (is_privileged, texts(&own["capabilities"]["drop"]).as_slice()) {
            (true, _) => &PRIVILEGED,
            (false, ["ALL"]) => &[],
            (false, dropped) => panic!("capabilities other than none or all: {dropped:?}"),
        };
        // An ordinary user of a container has them in the bounding set alone.
        process["capabilities"] = json!({"bounding": held, "effective": held, "permitted": held});
        config["root"]["readonly"] = json!(own["readOnlyRootFilesystem"] == true);
        config["mounts"] = json!(self.mounts(spec));
        let own_processes: &[&str] = if self.spec["hostPID"] == true { &[] } else { &["pid"] };
        let namespaces = ["mount", "ipc", "uts"].iter().chain(own_processes);
        config["linux"] = json!({
            "namespaces": namespaces.map(|kind| json!({"type": kind})).collect::<Vec<_>>(),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        });
    }

    fn mounts(&self, spec: &Value) -> Vec<Value> {
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]}),
        ];
        let bind = |place: &str, source: &Path, is_read_only: bool| {
            let how = if is_read_only { "ro" } else { "rw" };
            json!({"destination": place, "type": "bind", "source": source, "options": ["rbind", "rprivate", how]})
        };
        let mut own: Vec<_> = spec["volumeMounts"].as_array().into_iter().flatten().collect();
        // As engines do: what lies inside another mount comes after it.
        own.sort_by_key(|mount| mount["mountPath"].as_str().map(str::len));
        mounts.extend(own.into_iter().map(|mount| {
            let volume = &self.volumes[mount["name"].as_str().expect("name")];
            let source = mount["subPath"].as_str().map_or_else(|| volume.clone(), |path| volume.join(path));
            assert!(source.exists(), "there is no {}", source.display());
            bind(mount["mountPath"].as_str().expect("path"), &source, mount["readOnly"] == true)
        }));
        let further = if self.stays(spec) { self.mounts.as_slice() } else { &[] };
        mounts.extend(further.iter().map(|(place, file)| bind(place, file, true)));
        mounts
    }

    fn stays(&self, spec: &Value) -> bool {
        self.spec["containers"].as_array().is_some_and(|containers| containers.contains(spec))
    }
}

/// What a volume is made of.
struct Volume<'a> {
    group: Option<u32>,
    objects: &'a Objects,
    node: &'a dyn Fn(&str) -> PathBuf,
}

impl Volume<'_> {
    fn make(&self, volume: &Value, place: PathBuf) -> PathBuf {
        if let Some(host) = volume.get("hostPath") {
            let place = (self.node)(host["path"].as_str().expect("path"));
            if host["type"] == "DirectoryOrCreate" {
                fs::create_dir_all(&place).expect("directory");
            }
            assert!(place.is_dir(), "the node has no {}", place.display());
            return place;
        }
        fs::create_dir_all(&place).expect("directory");
        if let Some(secret) = volume.get("secret") {
            self.fill(&secret["secretName"], secret, &place);
        } else if let Some(map) = volume.get("configMap") {
            self.fill(&map["name"], map, &place);
        } else {
            assert!(volume.get("emptyDir").is_some(), "a volume of a kind that is not known here: {volume}");
            chown(&place, None, self.group).expect("group");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o2777)).expect("permissions");
        }
        place
    }

    /// As a kubelet does: files are root's, and where the pod has a group for volumes, that may read them.
    fn fill(&self, name: &Value, source: &Value, place: &Path) {
        let name = name.as_str().expect("name");
        let files = self.objects.get(name).unwrap_or_else(|| panic!("there is no {name}"));
        let mode = source["defaultMode"].as_u64().map_or(0o644, |mode| u32::try_from(mode).expect("mode"));
        let mode = if self.group.is_some() { mode | 0o440 } else { mode };
        let items = source["items"].as_array().map(|items| {
            items
                .iter()
                .map(|item| (item["key"].as_str().expect("key"), item["path"].as_str().expect("path")))
                .collect()
        });
        let items: Vec<(&str, &str)> =
            items.unwrap_or_else(|| files.keys().map(|key| (key.as_str(), key.as_str())).collect());
        for (key, path) in items {
            let content = files.get(key).unwrap_or_else(|| panic!("{name} has no {key}"));
            let file = place.join(path);
            fs::write(&file, content).expect("file");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("permissions");
            chown(&file, Some(0), Some(self.group.unwrap_or(0))).expect("owner");
        }
    }
}

/// A container and its bundle. It is killed with this.
#[derive(Debug)]
pub struct Container {
    id: String,
    /// Where its root and its `config.json` are.
    pub bundle: PathBuf,
    state: PathBuf,
}

impl Container {
    fn runc(&self) -> Command {
        let mut command = peer("runc");
        command.arg("--root").arg(&self.state);
        command
    }

    /// What starts it and waits for its end.
    pub fn command(&self) -> Command {
        let mut command = self.runc();
        command.args(["run", "--bundle"]).arg(&self.bundle).arg(&self.id).stdin(Stdio::null());
        command
    }

    /// Starts it, and waits until it says that it serves. It logs to the end of `log`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve(&self, log: &Path) -> Running {
        Running::start(&mut self.command(), log)
    }

    /// Starts it in the background; what it says goes to `log`.
    ///
    /// # Panics
    /// When runc does not start.
    pub fn spawn(&self, log: &Path) -> Child {
        let log = fs::File::create(log).expect("log");
        self.command().stdout(log.try_clone().expect("log")).stderr(log).spawn().expect("runc")
    }

    /// Runs a command in it, as an `exec` probe does.
    pub fn exec(&self, command: &[&str]) -> Said {
        run(self.runc().arg("exec").arg(&self.id).args(command))
    }

    /// Sends the signal that a kubelet sends first, and gives how it ended.
    ///
    /// # Panics
    /// When it does not run.
    pub fn terminate(&self, mut child: Child) -> ExitStatus {
        run(self.runc().args(["kill", &self.id, "TERM"])).succeeded();
        child.wait().expect("runc")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.runc().args(["delete", "--force", &self.id]).output();
    }
}

/// Some of what a privileged container has: all that this kind of machine gives.
const PRIVILEGED: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_IPC_LOCK",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
];
