//! The command line of `sealift audit`.

use std::path::PathBuf;

use clap::Subcommand;
use command_line::WitnessArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List the newest entries, oldest first.
    List {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Print the receipt of an entry: the proof that it stands in the log. It is good for ever and without the service.
    Prove {
        /// Its number, as `list` shows it.
        entry: u64,
        /// Write it to a new file instead.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Check a receipt offline and print its entry.
    Verify {
        /// The receipt.
        #[arg(value_name = "FILE")]
        receipt: PathBuf,
        /// The log's verifier key; the home's `service/log.pub` by default.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        #[command(flatten)]
        witnesses: WitnessArgs,
    },
    /// Write the whole log, checked, to a new directory that C2SP tools read (tlog-tiles).
    ///
    /// The newest checkpoint that witnesses cosigned goes beside it, as `checkpoint.cosigned`.
    Export {
        /// The directory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}
