//! The shim as the first process of a measured guest: makes a system around itself, runs the shim's own command as a
//! child, reports its exit code on the console, and switches the machine off. Knows nothing of images or evidence.

mod network;
mod system;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use release_protocol::LicenseFile;
use release_protocol::guest::{EXIT_LINE, GUEST_CONFIG_VERSION, GuestConfig, SIMULATED_PORT, path};
use rustix::system::RebootCommand;

use crate::attester::SIMULATED_PLATFORM;

/// What the exit code is when the shim did not run.
const FAILED: u8 = 121;

/// First act of main: takes over when this is the first process of a measured guest, and never returns then.
pub(crate) fn intercept() {
    if !rustix::process::getpid().is_init() || !Path::new(path::CONFIG).exists() {
        return;
    }
    let code = match run() {
        Ok(code) => code,
        Err(error) => {
            say(&format!("sealift-guest: {error}"));
            FAILED
        }
    };
    say(&format!("{EXIT_LINE}{code}"));
    // What is still in the serial line's buffer would be lost.
    let _ = rustix::termios::tcdrain(io::stdout());
    // Without the right to switch off, ending the first process halts the machine as well.
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
}

/// One line on the console.
fn say(line: &str) {
    // A guest without a console has nobody to tell.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Makes the system and runs the shim in it; gives its exit code.
fn run() -> io::Result<u8> {
    let config = read_config()?;
    system::leave_kernel_root()?;
    system::mount_all()?;
    system::load_modules(&config.modules)?;
    system::mount_configfs()?;
    system::correct_clock(earliest()?)?;
    if let Some(network) = &config.network {
        network::configure(network)?;
    } else {
        network::configure_loopback()?;
    }
    let port = config.simulated.then(simulated_port).transpose()?;
    let shim = std::iter::once("/proc/self/exe".to_owned()).chain(config.arguments).collect();
    let commands = if config.commands.is_empty() { vec![shim] } else { config.commands };
    let mut code = FAILED;
    for command in &commands {
        code = run_one(command, port.as_deref())?;
        if code != 0 {
            break;
        }
    }
    Ok(code)
}

/// Runs one command line to its end; gives its exit code.
fn run_one(words: &[String], simulated_port: Option<&Path>) -> io::Result<u8> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("a command line is empty"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/")
        .stdin(Stdio::null());
    if let Some(port) = simulated_port {
        command.env(SIMULATED_PLATFORM, port);
    }
    let status = command.status().map_err(context(format!("start {program}")))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

fn read_config() -> io::Result<GuestConfig> {
    let text = fs::read(path::CONFIG).map_err(context(format!("read {}", path::CONFIG)))?;
    let config: GuestConfig =
        serde_json::from_slice(&text).map_err(|error| context(format!("read {}", path::CONFIG))(error.into()))?;
    if config.version != GUEST_CONFIG_VERSION {
        return Err(io::Error::other(format!(
            "{} is of version {}, this shim reads {GUEST_CONFIG_VERSION}",
            path::CONFIG,
            config.version
        )));
    }
    Ok(config)
}

/// No clock of this guest can be right that shows a time before this: when its licence was issued, in seconds.
fn earliest() -> io::Result<i64> {
    let license = fs::read_to_string(path::LICENSE).map_err(context("read the licence"))?;
    let license: LicenseFile = license.parse().map_err(io::Error::other).map_err(context("read the licence"))?;
    Ok(license.unverified().issued_at)
}

/// The device of the simulated platform's serial port.
fn simulated_port() -> io::Result<PathBuf> {
    system::wait_for("the simulated platform's serial port", || {
        let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
        let port = ports.filter_map(Result::ok).find(|port| {
            fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == SIMULATED_PORT)
        })?;
        Some(Path::new("/dev").join(port.file_name())).filter(|device| device.exists())
    })
}

fn context(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}
