//! `completions` and `man`, generated from the command line's own definition; `openapi`, from the service's routes.

use std::io;

use clap::CommandFactory as _;
use command_line::{ExitCode, Failure, FailureContext as _};

use crate::cli::{Cli, CompletionsArgs, ManArgs};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sealift", &mut script);
    write(&script)
}

pub(crate) fn openapi() -> Result<(), Failure> {
    write(attestation_service::openapi().as_bytes())
}

fn write(text: &[u8]) -> Result<(), Failure> {
    io::Write::write_all(&mut io::stdout(), text).or_fail(ExitCode::Other, || "cannot write to stdout".to_owned())
}

pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.dir))
        .or_fail(ExitCode::BadInput, || format!("cannot write manual pages to `{}`", args.dir.display()))
}
