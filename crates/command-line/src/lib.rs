//! How both command lines speak: exit codes, errors with hints, output on stdout and talk on stderr, files that are
//! whole, and the switches for registries.
//!
//! Knows nothing of evidence or licences. `main` functions build a [`Console`] from [`CommonArgs`] and end with
//! [`Console::finish`].
#![forbid(unsafe_code)]

mod console;
mod failure;
mod file;
mod local;
mod progress;
mod registry;
mod stop;
mod witness;

pub mod whole_file;

pub use console::{CommonArgs, Console, OutputFormat, parse_command_line, start_logging};
pub use failure::{Answerer, ExitCode, Failure, FailureContext};
pub use file::write_new;
pub use local::{LOOPBACK, local_name};
pub use progress::ByteProgress;
pub use registry::{RegistryArgs, store_failure};
pub use stop::StopSignals;
pub use witness::WitnessArgs;
