//! `simulate`: a platform for evaluation and tests, and guests on it. A guest is a process: its program is the initial RAM
//! disk, measured byte for byte from the very copy that is executed, and its report device is a socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use launch_evidence::Product;
use launch_evidence::measure::{LaunchInput, VcpuType};
use launch_evidence::simulated::{self, LaunchOptions, PlatformOptions, SimulatedPlatform, SimulatedServer};
use serde_json::json;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{SimulateCommand, SimulateLaunchArgs};
use crate::home::VendorHome;

/// The variable that tells the guest where its report device is.
const DEVICE: &str = "SEALIFT_SIMULATED_PLATFORM";
/// The variable by which the guest is told of its initialisation data.
const INIT_DATA: &str = "SEALIFT_INIT_DATA";
/// The simulated guests' virtual CPU.
const VCPU_TYPE: &str = "EPYC-v4";

/// Runs the command; the exit code of a launch is the guest's.
pub(crate) async fn run(home: &VendorHome, command: SimulateCommand, console: &Console) -> Result<u8, Failure> {
    match command {
        SimulateCommand::Platform { dir, processor } => platform(home, dir, processor, console).map(|()| 0),
        SimulateCommand::Launch(args) => launch(home, &args, console).await,
    }
}

fn platform(home: &VendorHome, dir: Option<PathBuf>, product: Product, console: &Console) -> Result<(), Failure> {
    let dir = dir.unwrap_or_else(|| home.service().simulated_platform_path());
    let platform = SimulatedPlatform::create_with(&dir, PlatformOptions { product, ..PlatformOptions::default() })
        .or_fail(ExitCode::BadInput, || format!("cannot make a simulated platform in `{}`", dir.display()))?;
    console
        .say("made a SIMULATED platform: it protects nothing, and only `sealift serve --allow-simulated` accepts it");
    let document =
        json!({"directory": dir, "chip_id": platform.chip_id().to_string(), "processor": product, "simulated": true});
    console.result(&document, || dir.display().to_string());
    Ok(())
}

async fn launch(home: &VendorHome, args: &SimulateLaunchArgs, console: &Console) -> Result<u8, Failure> {
    let dir = args.platform.clone().unwrap_or_else(|| home.service().simulated_platform_path());
    let platform = SimulatedPlatform::open(&dir)
        .or_fail(ExitCode::BadInput, || format!("cannot open the simulated platform `{}`", dir.display()))
        .map_err(|failure| failure.hint("make one with `sealift simulate platform`"))?;
    let scratch = tempfile::Builder::new().prefix("launch-").tempdir_in(&dir);
    let scratch = scratch.or_fail(ExitCode::Other, || format!("cannot write to `{}`", dir.display()))?;
    let program = copy_program(&args.initrd, scratch.path())?;
    let input = launch_input(args, &program, scratch.path())?;
    let guest = platform
        .launch(
            &input,
            LaunchOptions { host_data: host_data_of(args.init_data.as_deref())?, ..LaunchOptions::default() },
        )
        .or_fail(ExitCode::BadInput, || "cannot launch the simulated guest".to_owned())?;
    let measurement = guest.measurement().to_string();
    if args.measure_only {
        console.result(&json!({"measurement": measurement, "simulated": true}), || measurement.clone());
        return Ok(0);
    }
    let socket = scratch.path().join("report");
    let _server = SimulatedServer::start(&socket, guest)
        .or_fail(ExitCode::Other, || "cannot serve the simulated report device".to_owned())?;
    run_guest(&program, &socket, args).await
}

/// What the host passes at launch: the digest of the initialisation data, or zero.
fn host_data_of(init_data: Option<&Path>) -> Result<[u8; 32], Failure> {
    let Some(file) = init_data else { return Ok([0; 32]) };
    let read = fs::read(file).or_fail(ExitCode::BadInput, || format!("cannot read `{}`", file.display()))?;
    Ok(release_protocol::host_data(&read))
}

/// The copy that is measured and executed: the original may change under way.
fn copy_program(initrd: &Path, scratch: &Path) -> Result<PathBuf, Failure> {
    let program = scratch.join("initrd");
    fs::copy(initrd, &program)
        .and_then(|_| fs::set_permissions(&program, fs::Permissions::from_mode(0o500)))
        .or_fail(ExitCode::BadInput, || format!("cannot read the initial RAM disk `{}`", initrd.display()))?;
    Ok(program)
}

fn launch_input(args: &SimulateLaunchArgs, program: &Path, scratch: &Path) -> Result<LaunchInput, Failure> {
    let given = |file: &Option<PathBuf>, name: &str, default: fn() -> Vec<u8>| -> Result<PathBuf, Failure> {
        if let Some(file) = file {
            return Ok(file.clone());
        }
        let path = scratch.join(name);
        fs::write(&path, default()).or_fail(ExitCode::Other, || format!("cannot write `{}`", path.display()))?;
        Ok(path)
    };
    let vcpu_type: VcpuType =
        VCPU_TYPE.parse().or_fail(ExitCode::Other, || format!("`{VCPU_TYPE}` is no type of virtual CPU"))?;
    let mut input = LaunchInput::new(given(&args.firmware, "firmware", simulated::firmware)?, args.vcpus, vcpu_type);
    input.kernel = Some(given(&args.kernel, "kernel", simulated::kernel)?);
    input.initrd = Some(program.to_owned());
    input.append = Some(args.append.clone());
    Ok(input)
}

async fn run_guest(program: &Path, socket: &Path, args: &SimulateLaunchArgs) -> Result<u8, Failure> {
    let mut guest = Command::new(program)
        .args(&args.args)
        .env(DEVICE, socket)
        .envs(args.init_data.as_ref().map(|file| (INIT_DATA, file)))
        .spawn()
        .or_fail(ExitCode::BadInput, || format!("cannot run `{}`", args.initrd.display()))
        .map_err(|failure| {
            failure.hint("the initial RAM disk of a simulated guest is a program, such as `sealift-shim`")
        })?;
    let failed = || "cannot listen for signals".to_owned();
    let mut terminate = signal(SignalKind::terminate()).or_fail(ExitCode::Other, failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).or_fail(ExitCode::Other, failed)?;
    let status = loop {
        tokio::select! {
            status = guest.wait() => break status,
            _ = terminate.recv() => pass_on(&guest, rustix::process::Signal::TERM),
            // A terminal sends it to the guest as well; a second one does no harm.
            _ = interrupt.recv() => pass_on(&guest, rustix::process::Signal::INT),
        }
    };
    let status = status.or_fail(ExitCode::Other, || "cannot wait for the simulated guest".to_owned())?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

fn pass_on(guest: &tokio::process::Child, signal: rustix::process::Signal) {
    let pid = guest.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // A guest that is gone gets no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
