//! The embedded runtime: a small namespace launcher for bundles of [`crate::bundle`].
//!
//! This program runs itself twice more. Stage one makes the namespaces and waits; stage two is the first process in them:
//! it builds the mounts, gives up privileges and becomes the workload. Neither ever returns to the command line.

mod kernel;
mod mounts;
mod privileges;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;
use serde_json::Value;

pub use self::kernel::close_on_exec;

/// The hidden first argument of stage one.
pub const STAGE_ONE: &str = "__sealift-launch";
/// The hidden first argument of stage two.
const STAGE_TWO: &str = "__sealift-init";
/// Where a launch that failed leaves word, in the bundle.
const FAILURE: &str = "launch-failure";
/// What stands before the word when the system forbids user namespaces.
const NO_USER_NAMESPACES: &str = "no user namespaces: ";

/// Why a launch failed before the workload ran.
#[derive(Debug, PartialEq, Eq)]
pub enum LaunchFailure {
    /// User namespaces are forbidden.
    NoUserNamespaces(String),
    /// Anything else.
    Other(String),
}

/// First act of main: takes over when this process is one of the stages; returns otherwise.
#[expect(clippy::exit, reason = "a stage ends here and nowhere else")]
pub fn intercept() {
    let mut args = std::env::args_os().skip(1);
    let (stage, bundle) = (args.next(), args.next().map(PathBuf::from));
    let Some((stage, bundle)) = stage.zip(bundle) else { return };
    if stage == STAGE_ONE {
        let code = stage_one(&bundle).unwrap_or_else(|error| fail(&bundle, &error));
        process::exit(code);
    }
    if stage == STAGE_TWO {
        // Opened before the old root goes.
        let word = fs::File::create(bundle.join(FAILURE));
        let error = stage_two(&bundle);
        if let Ok(mut word) = word {
            // With nowhere to say it, the exit code has to do.
            let _ = word.write_all(error.to_string().as_bytes());
        }
        process::exit(FAILED);
    }
}

/// Why the launch in `bundle` failed; `None` when the workload ran.
pub fn failure(bundle: &Path) -> Option<LaunchFailure> {
    let word = fs::read_to_string(bundle.join(FAILURE)).ok().filter(|word| !word.is_empty())?;
    Some(match word.strip_prefix(NO_USER_NAMESPACES) {
        Some(cause) => LaunchFailure::NoUserNamespaces(cause.to_owned()),
        None => LaunchFailure::Other(word),
    })
}

const FAILED: i32 = 125;

fn fail(bundle: &Path, error: &io::Error) -> i32 {
    // With nowhere to say it, the exit code has to do.
    let _ = fs::write(bundle.join(FAILURE), error.to_string());
    FAILED
}

fn context(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

/// Makes the namespaces, starts stage two as their first process, and waits for it.
fn stage_one(bundle: &Path) -> io::Result<i32> {
    // The workload does not outlive the shim that holds its lease.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let config = read_config(bundle)?;
    let namespaces = |kind: &str| {
        config["linux"]["namespaces"]
            .as_array()
            .is_some_and(|all| all.iter().any(|namespace| namespace["type"] == kind))
    };
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if namespaces("network") {
        flags |= UnshareFlags::NEWNET;
    }
    if namespaces("user") {
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        kernel::unshare(flags | UnshareFlags::NEWUSER)
            .map_err(|error| io::Error::new(error.kind(), format!("{NO_USER_NAMESPACES}{error}")))?;
        fs::write("/proc/self/setgroups", "deny").map_err(context("give up groups"))?;
        fs::write("/proc/self/uid_map", format!("0 {} 1", ids.0)).map_err(context("map the user"))?;
        fs::write("/proc/self/gid_map", format!("0 {} 1", ids.1)).map_err(context("map the group"))?;
    } else {
        kernel::unshare(flags).map_err(context("make namespaces"))?;
    }
    let status = Command::new("/proc/self/exe")
        .arg(STAGE_TWO)
        .arg(bundle)
        .status()
        .map_err(context("start the first process of the namespaces"))?;
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(FAILED))
}

/// Becomes the workload; returns only when that failed.
fn stage_two(bundle: &Path) -> io::Error {
    match prepare(bundle) {
        Ok(mut workload) => {
            let error = workload.exec();
            context(format!("run `{}`", workload.get_program().display()))(error)
        }
        Err(error) => error,
    }
}

fn prepare(bundle: &Path) -> io::Result<Command> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let config = read_config(bundle)?;
    if let Some(name) = config["hostname"].as_str() {
        rustix::system::sethostname(name.as_bytes()).map_err(|errno| context("set the host name")(errno.into()))?;
    }
    kernel::close_on_exec().map_err(context("keep files from the workload"))?;
    let paths = |name: &str| -> Vec<&str> {
        config["linux"][name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    mounts::enter(&mounts::View {
        rootfs: &bundle.join("rootfs"),
        directory: config["process"]["cwd"].as_str().unwrap_or("/"),
        binds: config["mounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|mount| mount["type"] == "bind")
            .filter_map(|mount| Some((mount["source"].as_str()?, mount["destination"].as_str()?)))
            .collect(),
        is_read_only: config["root"]["readonly"].as_bool().unwrap_or(false),
        masked: paths("maskedPaths"),
        read_only: paths("readonlyPaths"),
    })?;
    let process = &config["process"];
    let strings = |value: &Value| -> Vec<OsString> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(OsString::from).collect()
    };
    let args = strings(&process["args"]);
    let Some((program, args)) = args.split_first() else {
        return Err(io::Error::other("the bundle names no program"));
    };
    let directory = process["cwd"].as_str().unwrap_or("/");
    std::env::set_current_dir(directory).map_err(context(format!("change to `{directory}`")))?;
    privileges::give_up(process)?;
    // The kernel forgets it when the user changes.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut command = Command::new(program);
    command.args(args).env_clear();
    for variable in strings(&process["env"]) {
        let text = variable.to_string_lossy();
        if let Some((name, value)) = text.split_once('=') {
            command.env(name, value);
        }
    }
    Ok(command)
}

fn read_config(bundle: &Path) -> io::Result<Value> {
    let text = fs::read(bundle.join("config.json")).map_err(context("read the bundle"))?;
    serde_json::from_slice(&text).map_err(|error| context("read the bundle")(error.into()))
}
