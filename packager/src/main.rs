//! `sealift`: the vendor's tool. Parses the command line, runs one command, reports how it ended.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod demo;
mod evidence;
mod guest;
mod home;
mod keys;
mod pack;
mod relay;
mod tenants;

use command_line::{Console, ExitCode, Failure, FailureContext as _, parse_command_line, start_logging};

use crate::cli::{Cli, Command};
use crate::home::VendorHome;

fn main() -> std::process::ExitCode {
    // Policies are evaluated in processes of their own, which are this program.
    if let Some(code) = attestation_service::policy_worker() {
        return code;
    }
    let cli: Cli = parse_command_line(|_| 0);
    let serves = matches!(cli.command, Command::Serve(_));
    if serves {
        attestation_service::bound_kept_memory();
    }
    let default_filter = if serves { "info" } else { "warn" };
    start_logging(cli.common.verbose, default_filter);
    let console = Console::new(&cli.common);
    console.finish(run(cli, &console), 0)
}

fn run(cli: Cli, console: &Console) -> Result<u8, Failure> {
    // One provider for all TLS of the process; a second installation would be a bug of ours and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_fail(ExitCode::Other, || "cannot start the asynchronous runtime".to_owned())?
        .block_on(dispatch(cli, console))
}

/// Runs the command and gives the exit code.
async fn dispatch(cli: Cli, console: &Console) -> Result<u8, Failure> {
    let home = VendorHome::at(cli.home);
    match cli.command {
        Command::Init(args) => commands::init::run(&home, args, console).await,
        Command::Demo(args) => commands::demo::run(args, console).await,
        Command::Serve(args) => commands::serve::run(&home, args, console).await,
        Command::Pack(args) => commands::pack::run(&home, *args, console).await,
        Command::Rewrap(args) => commands::rewrap::run(&home, *args, console).await,
        Command::Cosign(args) => commands::cosign::run(&home, *args, console).await,
        Command::Trace { directory } => commands::trace::run(&home, &directory, console),
        Command::KeyProvider(args) => commands::keyprovider::run(home, args, console).await,
        Command::Inspect(args) => commands::inspect::run(args, console).await,
        Command::Verify(args) => commands::verify::run(&home, args, console).await,
        Command::Measure(command) => commands::measure::run(command, console),
        Command::Guest(command) => return commands::guest::run(&home, command, console).await,
        Command::Product(command) => commands::product::run(&home, command, console).await,
        Command::Reference(command) => commands::reference::run(&home, command, console).await,
        Command::Key(command) => commands::key::run(&home, command, console).await,
        Command::Secret(command) => commands::secret::run(&home, command, console).await,
        Command::Platform(command) => commands::platform::run(&home, command, console).await,
        Command::Policy(command) => return commands::policy::run(&home, command, console).await,
        Command::License(command) => commands::license::run(&home, command, console).await,
        Command::Lease(command) => commands::lease::run(&home, command, console).await,
        Command::Collateral(command) => commands::collateral::run(&home, command, console).await,
        Command::Backup { file } => commands::backup::run(&home, &file, console).await,
        Command::Restore { file } => commands::backup::put_back(&home, &file, console).await,
        Command::Tenant(command) => commands::tenant::run(&home, command, console).await,
        Command::Token(command) => commands::token::run(&home, command, console).await,
        Command::Audit(command) => commands::audit::run(&home, command, console).await,
        Command::Evidence(command) => commands::evidence::run(command, console),
        Command::Simulate(command) => return commands::simulate::run(&home, command, console).await,
        Command::Completions(args) => commands::documentation::completions(&args),
        Command::Man(args) => commands::documentation::man(&args),
        Command::OpenApi => commands::documentation::openapi(),
    }
    .map(|()| 0)
}
