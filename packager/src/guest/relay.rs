//! A guest that is a relay: its own program beside the shim, which is the first process here as well, and a home in its memory.

use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};
use release_protocol::LicenseFile;
use release_protocol::guest::path;

use super::cpio::{Archive, Entry};
use super::initrd::{Purpose, add_program, read};
use crate::cli::GuestRelayArgs;

/// A relay under this licence that `program` serves; the simulated platform, where it accepts one, is in `platform`.
pub(crate) fn of_relay(
    args: &GuestRelayArgs,
    license: &LicenseFile,
    program: &Path,
    platform: &Path,
) -> Result<Purpose, Failure> {
    let mut archive = Archive::default();
    add_program(&mut archive, path::RELAY, program)?;
    let port = args.url.port_or_known_default().unwrap_or(443);
    let words = |more: &[&str]| -> Vec<String> {
        [path::RELAY, "--home", path::RELAY_HOME].iter().chain(more).map(ToString::to_string).collect()
    };
    let listen = format!("0.0.0.0:{port}");
    let init = words(&["init", "--listen", &listen, "--url", args.url.as_str()]);
    let mut serve = words(&["serve", "--relay", path::LICENSE, "--child-license", "console"]);
    let content = if let Some(file) = &args.authorities {
        read(file, "certificate authorities")?
    } else {
        serve.push("--offline".to_owned());
        // Its clients want some, even where nothing is fetched: the one that is trusted anyway.
        license.unverified().service.ca_pem.clone().into_bytes()
    };
    archive.add(path::AUTHORITIES, Entry::File { permissions: 0o644, content });
    if args.machine.simulated {
        add_platform(&mut archive, platform)?;
        serve.extend(["--allow-simulated", "--simulated-platform", path::SIMULATED_PLATFORM].map(ToOwned::to_owned));
    }
    Ok(Purpose { archive, arguments: Vec::new(), commands: vec![init, serve] })
}

fn add_platform(archive: &mut Archive, platform: &Path) -> Result<(), Failure> {
    let cannot = || format!("cannot read the simulated platform `{}`", platform.display());
    for entry in std::fs::read_dir(platform).or_fail(ExitCode::BadInput, cannot)? {
        let file = entry.or_fail(ExitCode::BadInput, cannot)?.path();
        // Launches keep folders there.
        if let Some(name) = file.file_name().and_then(|name| name.to_str()).filter(|_| file.is_file()) {
            let content = read(&file, "simulated platform")?;
            archive.add(&format!("{}/{name}", path::SIMULATED_PLATFORM), Entry::File { permissions: 0o600, content });
        }
    }
    Ok(())
}
