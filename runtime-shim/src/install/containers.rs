//! Podman, Buildah and CRI-O: they open layers through ocicrypt's key providers, whose configuration is named in their
//! environment. ocicrypt reads that before the engine reads its own configuration, so `env` in containers.conf is too late.

use command_line::Failure;

use super::plan::{Plan, PlannedFile};
use super::version::Version;
use super::{Programs, text};

/// The first Podman whose ocicrypt knows key providers.
const PODMAN_MIN: Version = Version([4, 4, 0]);

pub(super) fn podman(version: Version, programs: &Programs) -> Result<Plan, Failure> {
    if version < PODMAN_MIN {
        return Err(Failure::bad_input(format!("podman {version} knows no key providers"))
            .hint("use podman 4.4 or later, such as Debian 13's"));
    }
    let runtime = format!("[engine.runtimes]\nsealift = [\"{}\"]\n", Programs::RUNTIME);
    let files = vec![
        programs.runtime()?,
        programs.providers()?,
        file("/etc/containers/containers.conf.d/50-sealift.conf", format!("{HEAD}{runtime}")),
        profile(),
        file("/etc/systemd/system/podman.service.d/50-sealift.conf", unit()),
    ];
    let notes = vec![
        "log in anew, or source /etc/profile.d/sealift.sh; where podman runs as a service: systemctl daemon-reload",
        "podman pull --decryption-key provider:sealift REF, then podman run --runtime sealift REF",
    ];
    Ok(Plan { files, notes, ..Plan::default() })
}

pub(super) fn crio(programs: &Programs) -> Result<Plan, Failure> {
    let runtime = format!(
        "[crio.runtime.runtimes.sealift]\nruntime_path = \"{}\"\nruntime_type = \"oci\"\nruntime_root = \"/run/sealift-runtime\"\n",
        Programs::RUNTIME
    );
    text(&programs.agent)?;
    let files = vec![
        programs.runtime()?,
        programs.providers()?,
        file("/etc/crio/crio.conf.d/50-sealift.conf", format!("{HEAD}{runtime}")),
        file("/etc/systemd/system/crio.service.d/50-sealift.conf", unit()),
    ];
    let notes = vec![
        "systemctl daemon-reload && systemctl restart crio",
        "pods name the runtime by a RuntimeClass whose handler is `sealift`",
    ];
    Ok(Plan { files, notes, ..Plan::default() })
}

/// What tells the tools that people call of the key provider.
pub(super) fn profile() -> PlannedFile {
    file("/etc/profile.d/sealift.sh", format!("{HEAD}export {}\n", variable()))
}

fn file(path: &str, content: String) -> PlannedFile {
    PlannedFile { path: path.to_owned(), content, mode: 0o644 }
}

fn unit() -> String {
    format!("{HEAD}[Service]\nEnvironment={}\n", variable())
}

fn variable() -> String {
    format!("OCICRYPT_KEYPROVIDER_CONFIG={}", Programs::PROVIDERS)
}

/// What every file of ours begins with.
pub(super) const HEAD: &str = "# Written by `sealift-shim install`.\n";
