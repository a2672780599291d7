//! Output: data on stdout, talk on stderr, errors in the form that was asked for.

use std::io::{self, IsTerminal as _, Write as _};
use std::process;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::{ByteProgress, ExitCode, Failure};

/// How results and errors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// The switches that every command has.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct CommonArgs {
    /// How results and errors are written.
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORMAT")]
    pub output: OutputFormat,
    /// Say more on stderr (repeat for more).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Show no progress bars.
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// Where a command writes: results to stdout, talk to stderr.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    format: OutputFormat,
    progress: bool,
}

impl Console {
    /// A console as the command line asked for it. Bars are shown only on a terminal and not beside `-v` talk.
    pub fn new(args: &CommonArgs) -> Self {
        let progress = !args.no_progress && args.verbose == 0 && io::stderr().is_terminal();
        Self { format: args.output, progress }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Writes one result: `value` as JSON, or `text` for people (a final newline is added).
    pub fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let rendered = match self.format {
            OutputFormat::Text => text(),
            OutputFormat::Json => serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string()),
        };
        // A reader that has gone away (`| head`) is no failure of the command.
        let _ = writeln!(io::stdout(), "{rendered}");
    }

    /// One line of talk on stderr.
    pub fn say(&self, line: impl AsRef<str>) {
        let _ = writeln!(io::stderr(), "{}", line.as_ref());
    }

    /// A byte progress bar on stderr; hidden where bars are not wanted.
    pub fn byte_progress(&self, label: &str, total_bytes: u64) -> ByteProgress {
        ByteProgress::new(label, total_bytes, self.progress)
    }

    /// Reports a failure on stderr in the chosen form.
    pub fn report(&self, failure: &Failure) {
        let rendered = match self.format {
            OutputFormat::Text => failure.to_string(),
            OutputFormat::Json => failure.to_json().to_string(),
        };
        let _ = writeln!(io::stderr(), "{rendered}");
    }

    /// Reports the failure, if there is one, and gives the process's exit code: the one that the command ended with, or
    /// the failure's own and `offset`.
    pub fn finish(&self, result: Result<u8, Failure>, offset: u8) -> process::ExitCode {
        match result {
            Ok(code) => process::ExitCode::from(code),
            Err(failure) => {
                self.report(&failure);
                process::ExitCode::from(failure.code as u8 + offset)
            }
        }
    }
}

/// Sends log lines to stderr: warnings, more with `-v`, or what `SEALIFT_LOG` says.
pub fn start_logging(verbose: u8, default_filter: &str) {
    let level = match verbose {
        0 => default_filter,
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("SEALIFT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Only the first call of a process can succeed; a second one changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .try_init();
}

/// Parses the process's command line; prints help, versions and usage errors and ends the process where there is nothing
/// to run. `offset` is added to the exit code of usage errors of the subcommand that it is given (the first word).
#[expect(clippy::exit, reason = "help, versions and usage errors end here, as in clap's own `parse`")]
pub fn parse_command_line<T: clap::Parser>(offset: impl Fn(&str) -> u8) -> T {
    let error = match T::try_parse() {
        Ok(parsed) => return parsed,
        Err(error) => error,
    };
    if !error.use_stderr() {
        error.exit();
    }
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let subcommand = words.iter().find(|word| !word.starts_with('-')).map(String::as_str).unwrap_or_default();
    let is_json = words.windows(2).any(|pair| matches!(pair, [name, value] if name == "--output" && value == "json"))
        || words.iter().any(|word| word == "--output=json");
    if is_json {
        let text = error.render().to_string();
        let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let message = first.split_whitespace().collect::<Vec<_>>().join(" ");
        let failure = Failure::usage(message).hint("`--help` shows what may be said");
        Console { format: OutputFormat::Json, progress: false }.report(&failure);
    } else {
        // A stderr that is gone has nobody to tell.
        let _ = error.print();
    }
    process::exit(i32::from(ExitCode::Usage as u8 + offset(subcommand)));
}
