//! The arguments of `evidence`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use launch_evidence::Measurement;
use launch_evidence::snp::Product;

use crate::evidence::tcb::parse_minimum;

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Show what saved evidence says. Nothing of it is verified.
    Show {
        /// Reports (1184 bytes), quotes, or evidence in JSON.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Judge saved evidence, offline: every check with what it wanted and found. Exit code 4 when one fails.
    Verify(Box<EvidenceVerifyArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct EvidenceVerifyArgs {
    /// Reports (1184 bytes), quotes, or evidence in JSON.
    #[arg(value_name = "FILE", required_unless_present = "batch", conflicts_with = "batch")]
    pub(crate) files: Vec<PathBuf>,
    /// Judge the requests in this file (`-`: stdin), one a line in JSON, and answer each on a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) batch: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) inputs: EvidenceInputArgs,
    #[command(flatten)]
    pub(crate) expect: ExpectArgs,
    /// A release policy (Rego) to ask as well; its `input` has `tee`, `platform`, `checks` and `now` alone.
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub(crate) policy: Option<PathBuf>,
}

/// What stands beside the evidence.
#[derive(Debug, Args)]
pub(crate) struct EvidenceInputArgs {
    /// Certificates: a file (DER, PEM, or a host's certificate table), or a directory with such files or with
    /// `<product>/<chip id>/<tcb>.der`.
    #[arg(long, value_name = "PATH", conflicts_with = "batch")]
    pub(crate) certs: Vec<PathBuf>,
    /// A revocation list of the root (DER or PEM).
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub(crate) crl: Option<PathBuf>,
    /// Collateral of TDX quotes (JSON).
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub(crate) collateral: Option<PathBuf>,
    /// Trust these roots (DER or PEM) instead of AMD's. The output says that they are UNTRUSTED.
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub(crate) roots: Vec<PathBuf>,
    /// Judge as of this time; now by default.
    #[arg(long, value_name = "TIME", conflicts_with = "batch")]
    pub(crate) at: Option<Timestamp>,
}

/// What the evidence must say.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct ExpectArgs {
    /// The report data: 128 hexadecimal digits. Not compared by default.
    #[arg(long, value_name = "HEX", conflicts_with = "batch")]
    pub(crate) report_data: Option<String>,
    /// The host's data: 64 hexadecimal digits. Not compared by default.
    #[arg(long, value_name = "HEX", conflicts_with = "batch")]
    pub(crate) host_data: Option<String>,
    /// A launch measurement that is accepted; any by default.
    #[arg(long, value_name = "HEX", conflicts_with = "batch")]
    pub(crate) measurement: Vec<Measurement>,
    /// The lowest TCB of a product, such as `Milan:snp=22,microcode=211`.
    #[arg(long, value_name = "PRODUCT:COMPONENT=N,…", value_parser = parse_minimum, conflicts_with = "batch")]
    pub(crate) min_tcb: Vec<(Product, launch_evidence::MinimumTcb)>,
    /// The privilege level that must have asked.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "batch")]
    pub(crate) vmpl: u32,
    /// Accept guests that their host may debug.
    #[arg(long, conflicts_with = "batch")]
    pub(crate) allow_debug: bool,
    /// Accept guests that may be associated with a migration agent.
    #[arg(long, conflicts_with = "batch")]
    pub(crate) allow_migrate_ma: bool,
    /// Refuse reports that no chip's own key signed.
    #[arg(long, conflicts_with = "batch")]
    pub(crate) require_chip_binding: bool,
    /// Refuse evidence without a current revocation list.
    #[arg(long, conflicts_with = "batch")]
    pub(crate) require_crl: bool,
}
