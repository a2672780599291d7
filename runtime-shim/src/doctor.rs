//! `doctor`: what this machine has and lacks, and what each lack means.

use std::path::{Path, PathBuf};

use command_line::{Console, Failure};
use serde::Serialize;

use launch_evidence::sev_guest::DEVICE;

use crate::attester::{CONFIGFS, SIMULATED_PLATFORM};
use crate::cli::DoctorArgs;
use crate::{attester, license};

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Missing,
    Note,
}

pub(crate) async fn run(args: DoctorArgs, console: &Console) -> Result<(), Failure> {
    let mut findings = vec![evidence(console), namespaces()];
    for name in ["runc", "crun"] {
        findings.push(program(name));
    }
    findings.push(openat2());
    if let Some(path) = &args.license {
        findings.push(service(path).await?);
    }
    console.result(&findings, || {
        let lines = findings.iter().map(|finding| {
            let state = match finding.state {
                State::Ok => "ok     ",
                State::Missing => "MISSING",
                State::Note => "note   ",
            };
            format!("{state}  {:<16} {}", finding.what, finding.detail)
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    if findings.iter().any(|finding| finding.state == State::Missing) {
        return Err(Failure::other("this machine lacks what the lines marked MISSING say"));
    }
    Ok(())
}

fn evidence(console: &Console) -> Finding {
    let simulated = std::env::var_os(SIMULATED_PLATFORM).is_some();
    match attester::open(console) {
        Ok(_) if simulated => finding("launch evidence", State::Note, "a SIMULATED platform; it protects nothing"),
        Ok(attester) => {
            let through = if Path::new(CONFIGFS).is_dir() { CONFIGFS } else { DEVICE };
            finding("launch evidence", State::Ok, &format!("{} through {through}", attester.tee()))
        }
        Err(failure) => finding("launch evidence", State::Missing, &failure.causes.join(": ")),
    }
}

fn namespaces() -> Finding {
    const WHAT: &str = "user namespaces";
    if rustix::process::geteuid().is_root() {
        return finding(WHAT, State::Ok, "not needed, this is root");
    }
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let switch = std::fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or_default();
    if limit.trim() == "0" || switch.trim() == "0" {
        return finding(
            WHAT,
            State::Missing,
            "forbidden here (user.max_user_namespaces, kernel.unprivileged_userns_clone): run as root, or ask for them",
        );
    }
    finding(WHAT, State::Ok, "allowed by the kernel's settings")
}

fn program(name: &'static str) -> Finding {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let found: Option<PathBuf> =
        std::env::split_paths(&directories).map(|directory| directory.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => finding(name, State::Ok, &path.display().to_string()),
        None => finding(name, State::Note, "not here; the embedded runtime serves as well"),
    }
}

fn openat2() -> Finding {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let resolve = rustix::fs::ResolveFlags::IN_ROOT;
    match rustix::fs::openat2(rustix::fs::CWD, ".", flags, rustix::fs::Mode::empty(), resolve) {
        Ok(_) => finding("openat2", State::Ok, "paths are resolved by the kernel"),
        Err(_) => finding("openat2", State::Note, "an old kernel; paths are resolved step by step, which is slower"),
    }
}

async fn service(path: &Path) -> Result<Finding, Failure> {
    let license = license::read(path)?;
    let url = license.unverified().service.url.clone();
    Ok(match crate::kbs::ServiceClient::new(license)?.health().await {
        Ok(true) => finding("service", State::Note, &format!("{url} answers; it accepts SIMULATED platforms")),
        Ok(false) => finding("service", State::Ok, &format!("{url} answers")),
        Err(refused) => finding("service", State::Missing, &refused.into_failure().message),
    })
}

fn finding(what: &'static str, state: State, detail: &str) -> Finding {
    Finding { what, state, detail: detail.to_owned() }
}
