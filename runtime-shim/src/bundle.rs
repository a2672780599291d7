//! An OCI runtime bundle: `config.json` for a root file system that is unpacked already, from the image's own config.
//!
//! Follows the conversion of the OCI image specification, with the defaults of `runc spec`, tightened: no new
//! privileges, no core files.

mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

pub use user::UserError;

/// The container's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The guest's own.
    Host,
    /// None but loopback.
    None,
}

/// A secret in a file, and where the workload finds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SecretFile {
    /// The file.
    pub source: PathBuf,
    /// The absolute path in the container.
    pub destination: String,
}

/// What a bundle is made of.
#[derive(Clone, Copy, Debug)]
pub struct BundleOptions<'a> {
    /// The image's config.
    pub config: &'a ImageConfiguration,
    /// The whole command line.
    pub command: &'a [String],
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
    /// The network.
    pub network: Network,
    /// Files of secrets to bind into it, read-only.
    pub secrets: &'a [SecretFile],
    /// Whether an ordinary user runs it: a user namespace in which the caller is root, and nobody else exists.
    pub rootless: bool,
}

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The image names no program and none was given.
    #[error("there is no command: the image names none and none was given")]
    NoCommand,
    /// The image's user cannot be found.
    #[error("the image's user cannot be used")]
    User(#[from] UserError),
    /// The working directory is not absolute.
    #[error("the image's working directory `{0}` is not absolute")]
    WorkingDirectory(String),
    /// The file could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Writes `config.json` into `bundle`, for `bundle/rootfs`.
pub fn write(bundle: &Path, options: &BundleOptions<'_>) -> Result<(), BundleError> {
    let config = config(&bundle.join("rootfs"), options)?;
    let path = bundle.join("config.json");
    std::fs::write(&path, format!("{config:#}\n")).map_err(|source| BundleError::Write { path, source })
}

/// Capabilities of the workload where its user is root: what container engines give by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn config(rootfs: &Path, options: &BundleOptions<'_>) -> Result<Value, BundleError> {
    if options.command.is_empty() {
        return Err(BundleError::NoCommand);
    }
    let image = options.config.config().as_ref();
    let named = image.and_then(|image| image.user().clone()).unwrap_or_default();
    let user = user::resolve(rootfs, &named)?;
    // In a user namespace of one, there is only that one to be.
    let (uid, gid, groups) = if options.rootless { (0, 0, Vec::new()) } else { (user.uid, user.gid, user.groups) };
    let mut env = image.and_then(|image| image.env().clone()).unwrap_or_default();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.push(DEFAULT_PATH.to_owned());
    }
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        // Who is root inside has root's home.
        let home = if options.rootless { user::resolve(rootfs, "0")?.home } else { user.home };
        env.push(format!("HOME={home}"));
    }
    let directory = image.and_then(|image| image.working_dir().clone()).unwrap_or_default();
    let directory = if directory.is_empty() { "/".to_owned() } else { directory };
    if !directory.starts_with('/') {
        return Err(BundleError::WorkingDirectory(directory));
    }
    let mut annotations: BTreeMap<String, String> = BTreeMap::new();
    if let Some(labels) = image.and_then(|image| image.labels().clone()) {
        annotations.extend(labels);
    }
    if let Some(signal) = image.and_then(|image| image.stop_signal().clone()) {
        annotations.insert("org.opencontainers.image.stopSignal".to_owned(), signal);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": uid, "gid": gid, "additionalGids": groups},
            "args": options.command,
            "env": env,
            "cwd": directory,
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": options.read_only_root},
        "hostname": "sealift",
        "mounts": mounts(options.rootless, options.secrets),
        "annotations": annotations,
        "linux": linux(options),
    }))
}

fn mounts(rootless: bool, secrets: &[SecretFile]) -> Value {
    let pts: &[&str] = if rootless {
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    } else {
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    };
    let sys = if rootless {
        json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
    } else {
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
    };
    let secrets = secrets.iter().map(|secret| {
        json!({
            "destination": secret.destination, "type": "bind", "source": secret.source,
            "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
        })
    });
    let own = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        sys,
    ]);
    own.as_array().into_iter().flatten().cloned().chain(secrets).collect()
}

fn linux(options: &BundleOptions<'_>) -> Value {
    let mut namespaces =
        vec![json!({"type": "pid"}), json!({"type": "ipc"}), json!({"type": "uts"}), json!({"type": "mount"})];
    if options.network == Network::None {
        namespaces.push(json!({"type": "network"}));
    }
    let mut linux = json!({"maskedPaths": MASKED, "readonlyPaths": READ_ONLY});
    if options.rootless {
        namespaces.push(json!({"type": "user"}));
        let id = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        linux["uidMappings"] = id(rustix::process::geteuid().as_raw());
        linux["gidMappings"] = id(rustix::process::getegid().as_raw());
    } else {
        linux["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    linux["namespaces"] = Value::Array(namespaces);
    linux
}
