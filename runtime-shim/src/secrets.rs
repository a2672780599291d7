//! Secrets beside image keys: fetched under the lease, kept as files in memory only, bound read-only into the container. They
//! go when the workload ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use command_line::{ExitCode, Failure, FailureContext as _};
use release_protocol::{ProductName, ResourcePath};
use runtime_shim::bundle::SecretFile;

use crate::kbs::Refused;
use crate::session::Held;

/// What `--secret` says: which secret, and where the workload finds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SecretArg {
    /// `TYPE/TAG` of the image's product, or `kbs:///PRODUCT/TYPE/TAG`.
    name: String,
    destination: String,
}

impl FromStr for SecretArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, destination) = text.split_once('=').ok_or("write NAME=PATH")?;
        let mut parts = Path::new(destination).components();
        let is_plain = parts.next() == Some(Component::RootDir)
            && parts.clone().next().is_some()
            && parts.all(|part| matches!(part, Component::Normal(_)))
            && !destination.ends_with('/');
        if !is_plain {
            return Err(format!("`{destination}` is no absolute path of a file"));
        }
        if ["/proc", "/sys", "/dev"].iter().any(|kernel| Path::new(destination).starts_with(kernel)) {
            return Err(format!("`{destination}` is the kernel's"));
        }
        let secret = Self { name: name.to_owned(), destination: destination.to_owned() };
        // Any product serves to see whether the rest is a name.
        let product = "p".parse().map_err(|_| "no name".to_owned())?;
        secret.path(&product).map_err(|error| format!("`{name}` names no secret (TYPE/TAG): {error}"))?;
        Ok(secret)
    }
}

impl SecretArg {
    fn path(&self, product: &ProductName) -> Result<ResourcePath, release_protocol::ResourcePathError> {
        match self.name.strip_prefix("kbs:///") {
            Some(whole) => whole.parse(),
            None => format!("{product}/{}", self.name).parse(),
        }
    }
}

/// Files of secrets; removed when dropped.
pub(crate) struct SecretFiles {
    directory: PathBuf,
    files: Vec<SecretFile>,
}

impl SecretFiles {
    /// Fetches all of them, before a layer is requested. `None` where there are none.
    pub(crate) async fn fetch(
        args: &[SecretArg],
        product: &ProductName,
        held: &Held,
        instance: &Path,
    ) -> Result<Option<Self>, Failure> {
        if args.is_empty() {
            return Ok(None);
        }
        let destinations: BTreeSet<&str> = args.iter().map(|arg| arg.destination.as_str()).collect();
        if destinations.len() < args.len() {
            return Err(Failure::usage("two secrets are to be at one path"));
        }
        let mut secrets = Self { directory: make_directory(instance)?, files: Vec::new() };
        for arg in args {
            let path = arg.path(product).or_fail(ExitCode::Usage, || format!("`{}` names no secret", arg.name))?;
            let secret = held.secret(&path).await.map_err(Refused::into_failure)?;
            let file = secrets.directory.join(secrets.files.len().to_string());
            write(&file, &secret).or_fail(ExitCode::Other, || format!("cannot keep the secret `{path}` in memory"))?;
            secrets.files.push(SecretFile { source: file, destination: arg.destination.clone() });
        }
        Ok(Some(secrets))
    }

    /// The files, for the bundle.
    pub(crate) fn files(&self) -> &[SecretFile] {
        &self.files
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::error!(%error, path = %self.directory.display(), "cannot remove the workload's secrets");
        }
    }
}

/// Removes the secrets of an instance whose process is gone.
pub(crate) fn remove_left(instance: &Path) {
    for directory in directories(instance) {
        // Most of them are not there, and nobody is to be told of one that stays.
        let _ = fs::remove_dir_all(directory);
    }
}

/// Where an instance's secrets may be: in file systems that are memory, on most machines.
fn directories(instance: &Path) -> impl Iterator<Item = PathBuf> {
    let name = format!("{}-secrets", instance.file_name().unwrap_or_default().display());
    [instance, Path::new("/dev/shm"), Path::new("/run")].map(|base| base.join(&name)).into_iter()
}

/// A directory of the caller's alone in a file system that is memory.
fn make_directory(instance: &Path) -> Result<PathBuf, Failure> {
    directories(instance)
        .filter(|directory| directory.parent().is_some_and(is_memory))
        .find(|directory| fs::DirBuilder::new().mode(0o700).create(directory).is_ok())
        .ok_or_else(|| {
            Failure::other("there is no memory file system to keep the secrets in").hint(
                "name a directory on a tmpfs by `--state-dir`, or mount one at /dev/shm: secrets are never written to a disk",
            )
        })
}

fn is_memory(directory: &Path) -> bool {
    rustix::fs::statfs(directory).is_ok_and(|system| MEMORY.contains(&system.f_type))
}

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of `linux/magic.h`.
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58F6];

/// Readable for whoever the workload is; on this side the directory is closed.
fn write(path: &Path, secret: &[u8]) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    file.write_all(secret)?;
    file.set_permissions(fs::Permissions::from_mode(0o444))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_by_type_and_tag_and_a_path_in_the_container() {
        let product = "shop".parse().unwrap();
        let path = |text: &str| text.parse::<SecretArg>().unwrap().path(&product).unwrap().to_string();
        assert_eq!(path("config/database=/run/secrets/database"), "shop/config/database");
        assert_eq!(path("kbs:///bank/model/key-1=/k"), "bank/model/key-1");
        for text in [
            "config/database",
            "config=/x",
            "=/x",
            "a/b/c=/x",
            "a/b=x",
            "a/b=/",
            "a/b=/x/",
            "a/b=/x/../y",
            "a/b=",
            "a/b=/proc/self/x",
            "a/b=/dev",
            "kbs:///a/b=/x",
        ] {
            assert!(text.parse::<SecretArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_made_in_memory_only() {
        assert!(is_memory(Path::new("/dev/shm")));
        assert!(!is_memory(Path::new("/proc")));
        let instance = Path::new("/nowhere").join(uuid::Uuid::new_v4().simple().to_string());
        let make = || {
            let directory = make_directory(&instance).unwrap();
            assert!(is_memory(&directory));
            assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
            directory
        };
        let directory = make();
        drop(SecretFiles { directory: directory.clone(), files: Vec::new() });
        assert!(!directory.exists());
        let left = make();
        write(&left.join("0"), b"a secret").unwrap();
        remove_left(&instance);
        assert!(!left.exists());
    }
}
