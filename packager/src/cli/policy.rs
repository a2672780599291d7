//! The switches of `sealift policy`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use release_protocol::ProductName;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Give a product a policy of its own.
    Set {
        /// The product.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
        /// The Rego source; `-` reads stdin.
        file: PathBuf,
    },
    /// Print a product's policy.
    Show {
        /// The product.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
    },
    /// Try a policy on this machine, on one input or on cases; asks no service and verifies nothing.
    Test(Box<PolicyTestArgs>),
    /// Explain a denial: which claim, what was expected and found, and what to do.
    Explain {
        /// The number of the audit entry, as denials and `sealift audit list` tell it.
        entry: u64,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["evidence", "cases"]))]
#[command(after_help = "Exit codes: 0 allowed, or all cases hold; 4 a case differs; 5 denied.")]
pub(crate) struct PolicyTestArgs {
    /// The Rego source; `-` reads stdin.
    #[arg(value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// What the evidence says: a raw SEV-SNP report, or JSON with the claims, alone or as `tee` beside `platform` and `checks`.
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
    /// The licence, as it was issued or its claims as JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "cases")]
    pub(crate) license: Option<PathBuf>,
    /// What is to run, as JSON: `manifest_digest`, `signers`, `command`.
    #[arg(long, value_name = "FILE", conflicts_with = "cases")]
    pub(crate) workload: Option<PathBuf>,
    /// The product's reference values, as `sealift --output json reference list` prints them; none by default.
    #[arg(long, value_name = "FILE", conflicts_with = "cases")]
    pub(crate) references: Option<PathBuf>,
    /// The product; the licence's by default, where it covers one.
    #[arg(long, value_name = "PRODUCT", conflicts_with = "cases")]
    pub(crate) product: Option<ProductName>,
    /// A folder of cases: one JSON file each, with `input` and the expected `decision`.
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Option<PathBuf>,
}
