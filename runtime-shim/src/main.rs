//! `sealift-shim`: the customer's side. Parses the command line, runs one command, reports how it ended.
#![forbid(unsafe_code)]

mod agent;
mod attest;
mod attester;
mod cli;
mod doctor;
mod guest;
mod image;
mod install;
mod kbs;
mod keyprovider;
mod layer_key;
mod license;
mod materialize;
mod oci_runtime;
mod offline;
mod receipt;
mod run;
mod secrets;
mod session;
mod stop;
mod stream_processor;
mod supervise;
mod trustee;

use clap::CommandFactory as _;
use command_line::{Console, ExitCode, Failure, FailureContext as _, parse_command_line, start_logging};

use crate::cli::{Cli, Command};
use crate::stream_processor::Payload;

fn main() -> std::process::ExitCode {
    // A re-executed stage of the embedded runtime never comes back from here.
    runtime_shim::launcher::intercept();
    // Nor does the first process of a measured guest.
    guest::intercept();
    // Nor does what holds an output, nor a watchdog or caretaker, nor what a container engine starts as its OCI runtime.
    let helper = stream_processor::holder::intercepted()
        .or_else(oci_runtime::watchdog::intercepted)
        .or_else(run::caretaker::intercepted);
    if let Some(code) = helper {
        return code.into();
    }
    if let Some(words) = oci_runtime::intercepted() {
        start_logging(0, "warn");
        return oci_runtime::run(words).into();
    }
    // The workload's own codes stay below ours.
    let offset = |subcommand: &str| if subcommand == "run" { ExitCode::RUN_OFFSET } else { 0 };
    let cli: Cli = parse_command_line(offset);
    start_logging(cli.common.verbose, "warn");
    let console = Console::new(&cli.common);
    let offset = if matches!(cli.command, Command::Run(_)) { ExitCode::RUN_OFFSET } else { 0 };
    console.finish(start(cli, &console), offset)
}

fn start(cli: Cli, console: &Console) -> Result<u8, Failure> {
    // Keys of layers pass through this process: no core file may hold them.
    let no_core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, no_core)
        .or_fail(ExitCode::Other, || "cannot forbid core files".to_owned())?;
    // One provider for all TLS of the process; a second installation would be a bug of ours and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Before the asynchronous runtime opens descriptors of its own.
    let payload = if matches!(cli.command, Command::StreamProcessor(_)) { stream_processor::receive()? } else { None };
    if matches!(cli.command, Command::Run(_) | Command::Unpack(_) | Command::Attest(_) | Command::Agent(_)) {
        gather_entropy();
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_fail(ExitCode::Other, || "cannot start the asynchronous runtime".to_owned())?
        .block_on(dispatch(cli, payload, console))
}

/// Has the cryptographic library set up its random generator while the licence and the system's certificates are read: it
/// gathers entropy of its own, which takes it tens of milliseconds once in a process.
fn gather_entropy() {
    std::thread::spawn(|| rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut [0]));
}

async fn dispatch(cli: Cli, payload: Option<Payload>, console: &Console) -> Result<u8, Failure> {
    match cli.command {
        Command::Run(args) => return run::run(args, console).await,
        Command::Unpack(args) => run::unpack(args, console).await?,
        Command::KeyProvider(args) => keyprovider::run(args, *console).await?,
        Command::StreamProcessor(args) => stream_processor::run(args, payload, *console).await?,
        Command::Install(args) => install::run(args, console)?,
        Command::Agent(args) => agent::run(args, console).await?,
        Command::Containers(args) => agent::status::run(args, console).await?,
        Command::OciRuntime(args) => {
            return tokio::task::spawn_blocking(|| oci_runtime::run(args.words))
                .await
                .or_fail(ExitCode::Other, || "the OCI runtime could not be run".to_owned());
        }
        Command::Attest(args) => attest::run(args, console).await?,
        Command::Doctor(args) => doctor::run(args, console).await?,
        Command::Renewal(command) => offline::run(command, console).await?,
        Command::Receipt(command) => receipt::run(command, console).await?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "sealift-shim", &mut std::io::stdout());
        }
    }
    Ok(0)
}
