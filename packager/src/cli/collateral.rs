//! The arguments of `collateral`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use release_protocol::ProductName;

#[derive(Debug, Subcommand)]
pub(crate) enum CollateralCommand {
    /// Put the certificates and revocation lists that this service has, and policies, into one file.
    Bundle(CollateralBundleArgs),
    /// Take the certificates and revocation lists of such a file; its policies only where that is asked for.
    Import(CollateralImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CollateralBundleArgs {
    /// Write the bundle to this file; an existing one is not overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// A chip id whose certificates go into it; all chips by default. Revocation lists always do.
    #[arg(long, value_name = "CHIP")]
    pub(crate) chip: Vec<String>,
    /// A product whose policy goes into it; the service is asked for it.
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: Vec<ProductName>,
}

#[derive(Debug, Args)]
pub(crate) struct CollateralImportArgs {
    /// The bundle.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The SHA-256 that whoever made the bundle has said, in another way than with the file.
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Where to; the directory of `[service.evidence.endorsements]`, else where this service keeps what it fetches.
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Set the bundle's policies at this service as well, for products that it has. Wants `--sha256`: policies are signed by
    /// nobody.
    #[arg(long, requires = "sha256")]
    pub(crate) set_policies: bool,
}
