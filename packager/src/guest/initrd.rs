//! What is in a guest's initial RAM disk: the shim as first process, its libraries, kernel modules, the licence, and what
//! the guest is to do.

use std::fs;
use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};
use release_protocol::LicenseFile;
use release_protocol::guest::{GUEST_CONFIG_VERSION, GuestConfig, GuestNetwork, path};

use super::cpio::{Archive, Entry};
use super::modules::{self, Modules};
use super::program;
use crate::cli::{GuestBuildArgs, MachineArgs};

/// An initial RAM disk, and what its kernel cannot do.
pub(crate) struct Initrd {
    pub(crate) archive: Archive,
    /// Modules for launch evidence of hardware that the kernel lacks.
    pub(crate) absent_evidence: Vec<&'static str>,
}

/// What one kind of guest does, and has beside what all have.
#[derive(Default)]
pub(crate) struct Purpose {
    /// Its files.
    pub(crate) archive: Archive,
    /// The shim's command line.
    pub(crate) arguments: Vec<String>,
    /// What runs in the shim's place.
    pub(crate) commands: Vec<Vec<String>>,
}

/// Puts together what `args` name for this purpose; `shim` is the first process.
pub(crate) fn assemble(args: &MachineArgs, shim: &Path, purpose: Purpose) -> Result<Initrd, Failure> {
    let Purpose { mut archive, arguments, commands } = purpose;
    add_program(&mut archive, "/init", shim)?;
    let Modules { files, absent_evidence } = modules::pick(&args.modules, &args.module, args.simulated)?;
    let mut loaded = Vec::with_capacity(files.len());
    for (name, content) in files {
        archive.add(&format!("{}/{name}", path::MODULES), Entry::File { permissions: 0o644, content });
        loaded.push(name);
    }
    add_license(args, &mut archive)?;
    add_skeleton(&mut archive);
    let config = GuestConfig {
        version: GUEST_CONFIG_VERSION,
        modules: loaded,
        network: Some(GuestNetwork {
            address: args.address,
            gateway: Some(args.gateway),
            name_servers: args.name_server.clone(),
        }),
        simulated: args.simulated,
        arguments,
        commands,
    };
    let mut content =
        serde_json::to_vec_pretty(&config).or_fail(ExitCode::Other, || "cannot write the guest's config".to_owned())?;
    content.push(b'\n');
    archive.add(path::CONFIG, Entry::File { permissions: 0o644, content });
    Ok(Initrd { archive, absent_evidence })
}

/// A program and the libraries that it needs.
pub(super) fn add_program(archive: &mut Archive, path: &str, file: &Path) -> Result<(), Failure> {
    let program = read(file, "program")?;
    for (path, content) in program::libraries(file, &program)? {
        archive.add(&path.to_string_lossy(), Entry::File { permissions: 0o755, content });
    }
    archive.add(path, Entry::File { permissions: 0o755, content: program });
    Ok(())
}

/// The licence. Only root reads it in the guest.
fn add_license(args: &MachineArgs, archive: &mut Archive) -> Result<(), Failure> {
    let license = fs::read_to_string(&args.license)
        .or_fail(ExitCode::BadInput, || format!("cannot read the licence `{}`", args.license.display()))?;
    let parsed: LicenseFile =
        license.parse().or_fail(ExitCode::BadInput, || format!("`{}` is no licence", args.license.display()))?;
    let content = parsed.token().as_bytes().to_vec();
    archive.add(path::LICENSE, Entry::File { permissions: 0o600, content });
    Ok(())
}

/// A guest that runs a sealed image.
pub(crate) fn of_workload(args: &GuestBuildArgs) -> Result<Purpose, Failure> {
    let mut archive = Archive::default();
    if let Some(file) = &args.registry.auth_file {
        let content = read(file, "registry credentials")?;
        archive.add(path::REGISTRY_AUTH, Entry::File { permissions: 0o600, content });
    }
    let mut authorities = Vec::new();
    for file in &args.registry.registry_ca {
        authorities.extend(read(file, "certificate authority")?);
        authorities.push(b'\n');
    }
    if !authorities.is_empty() {
        archive.add(path::REGISTRY_CA, Entry::File { permissions: 0o644, content: authorities });
    }
    Ok(Purpose { archive, arguments: arguments(args), commands: Vec::new() })
}

/// Where the first process mounts things, and the console that the kernel opens for it.
fn add_skeleton(archive: &mut Archive) {
    for directory in ["/dev", "/proc", "/run", "/sys", "/var/lib/sealift", path::ROOT] {
        archive.add(directory, Entry::Directory { permissions: 0o755 });
    }
    archive.add("/tmp", Entry::Directory { permissions: 0o1777 });
    archive.add("/dev/console", Entry::CharacterDevice { permissions: 0o600, major: 5, minor: 1 });
    archive.add("/etc/hosts", Entry::File { permissions: 0o644, content: b"127.0.0.1 localhost\n".to_vec() });
}

/// The shim's command line in the guest.
fn arguments(args: &GuestBuildArgs) -> Vec<String> {
    let mut words = vec!["run".to_owned(), args.image.to_string()];
    words.extend(["--license", path::LICENSE, "--runtime", "embedded"].map(ToOwned::to_owned));
    if args.registry.plain_http {
        words.push("--plain-http".to_owned());
    }
    if args.registry.auth_file.is_some() {
        words.extend(["--auth-file", path::REGISTRY_AUTH].map(ToOwned::to_owned));
    }
    if !args.registry.registry_ca.is_empty() {
        words.extend(["--registry-ca", path::REGISTRY_CA].map(ToOwned::to_owned));
    }
    if !args.args.is_empty() {
        words.push("--".to_owned());
        words.extend(args.args.iter().cloned());
    }
    words
}

pub(super) fn read(file: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    fs::read(file).or_fail(ExitCode::BadInput, || format!("cannot read the {what} `{}`", file.display()))
}
