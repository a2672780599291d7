//! The arguments of `license`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use release_protocol::ProductName;

#[derive(Debug, Subcommand)]
pub(crate) enum LicenseCommand {
    /// Issue a licence and write it to stdout or a file.
    Issue(Box<LicenseIssueArgs>),
    /// List licences with their seats in use.
    List,
    /// Show one licence.
    Show {
        /// Its id.
        id: String,
    },
    /// Give a licence another end or number of seats. The files that are out there go on serving.
    Renew {
        #[command(flatten)]
        change: LicenseChangeArgs,
        /// Until when (RFC 3339), or for how long from now (`90d`, `+8h`).
        #[arg(long, value_name = "TIME|DURATION", required_unless_present = "seats")]
        until: Option<String>,
        /// How many instances at once.
        #[arg(long, value_name = "N")]
        seats: Option<u32>,
    },
    /// Suspend a licence: nothing starts under it, and what runs stops.
    Suspend(LicenseChangeArgs),
    /// Let a suspended licence hold again.
    Resume(LicenseChangeArgs),
    /// Give a licence to another customer, or bind it to other chips.
    Transfer(LicenseTransferArgs),
    /// Revoke a licence for ever: nothing new starts, and what runs stops.
    Revoke(LicenseRevokeArgs),
}

/// Which licence, and why.
#[derive(Debug, Args)]
pub(crate) struct LicenseChangeArgs {
    /// Its id.
    pub(crate) id: String,
    /// Why; kept with the licence and in the audit log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("to").required(true).multiple(true).args(["customer", "platform", "any_platform"])))]
pub(crate) struct LicenseTransferArgs {
    #[command(flatten)]
    pub(crate) change: LicenseChangeArgs,
    /// Who is licensed from now on. The files before open nothing any more; the new one is written to stdout or `--file`.
    #[arg(long, value_name = "NAME")]
    pub(crate) customer: Option<String>,
    /// A chip id that the licence is bound to from now on, in the place of those before.
    #[arg(long, value_name = "CHIP")]
    pub(crate) platform: Vec<String>,
    /// Bind it to no chip any more.
    #[arg(long, conflicts_with = "platform")]
    pub(crate) any_platform: bool,
    /// Write the licence to this file; an existing one is not overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LicenseRevokeArgs {
    #[command(flatten)]
    pub(crate) change: LicenseChangeArgs,
    /// How long what runs already may go on.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) drain: Option<Duration>,
    /// Wait until nothing runs under it any more.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LicenseIssueArgs {
    /// What may run.
    #[arg(long, value_name = "PRODUCT", required_unless_present = "batch")]
    pub(crate) product: Vec<ProductName>,
    /// Who is licensed.
    #[arg(long, value_name = "NAME", required_unless_present = "batch")]
    pub(crate) customer: Option<String>,
    /// How many instances at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seats: u32,
    /// From when (RFC 3339); now by default.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Timestamp>,
    /// Until when (RFC 3339), for how long (`90d`), or for how long from now by the service's clock, whenever it begins (`+8h`).
    #[arg(long, value_name = "TIME|DURATION", default_value = "365d")]
    pub(crate) until: String,
    /// How long a lease lives; it is renewed at a third of that.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) lease: Duration,
    /// How long a workload may go on when the service is out of reach.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    pub(crate) grace: Duration,
    /// How long a workload may go on without the service in all, its lease included; says the grace time by that.
    #[arg(long, value_name = "DURATION", conflicts_with = "grace", value_parser = humantime::parse_duration)]
    pub(crate) max_offline: Option<Duration>,
    /// How long a guest that keeps its keys sealed (`run --offline-state`) may start and run without the service; its seat stays
    /// taken, and a revocation reaches it, only after that. Not at all by default.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) offline: Option<Duration>,
    /// A chip id that the licence is bound to; any by default.
    #[arg(long, value_name = "CHIP")]
    pub(crate) platform: Vec<String>,
    /// A licence that starts no workload: one relay (`sealift serve --relay`) hands its seats on to guests of its own. Chip ids
    /// are then the relay's.
    #[arg(long, conflicts_with = "batch")]
    pub(crate) relay: bool,
    /// A name and value for policy and workload.
    #[arg(long, value_name = "NAME=VALUE", value_parser = feature)]
    pub(crate) feature: Vec<(String, String)>,
    /// Issue what this file says instead (`-`: stdin): one licence a line in JSON, with `products`, `customer`, `seats`,
    /// `valid_until` (RFC 3339 or `+8h`), `lease_seconds`, `grace_seconds`, and `valid_from`, `platforms`, `features`, `relay` where they are wanted. All
    /// of them, or none. Prints one line of JSON for each.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["product", "customer", "file"])]
    pub(crate) batch: Option<PathBuf>,
    /// Write the licence to this file; an existing one is not overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

fn feature(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a feature is NAME=VALUE".to_owned()),
    }
}
