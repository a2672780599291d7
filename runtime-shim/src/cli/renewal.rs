//! The arguments of `renewal`.

use std::path::PathBuf;

use carried_file::CarriedOutput;
use clap::{Args, Subcommand};
use image_store::ImageReference;

use super::OpeningArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum RenewalCommand {
    /// Make a request for the vendor's licensing desk (`sealift lease renew`).
    ///
    /// It has this guest's evidence and the licence in it, and no key. Any way of carrying it will do.
    Request(Box<RenewalRequestArgs>),
    /// Accept the answer, also while the workload runs.
    Accept(RenewalAcceptArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RenewalRequestArgs {
    /// The sealed image: docker://, oci:DIR[:TAG], oci-archive:FILE[:TAG].
    #[arg(value_name = "REF")]
    pub(crate) reference: ImageReference,
    /// The licence that the vendor issued.
    #[arg(long, value_name = "FILE")]
    pub(crate) license: PathBuf,
    /// Where this guest keeps its keys sealed.
    #[arg(long, value_name = "DIR", env = "SEALIFT_OFFLINE_STATE")]
    pub(crate) offline_state: PathBuf,
    #[command(flatten)]
    pub(crate) output: CarriedOutput,
    #[command(flatten)]
    pub(crate) opening: OpeningArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RenewalAcceptArgs {
    /// The answer of the vendor's desk, or the scanned text of its codes; `-` is stdin.
    #[arg(value_name = "FILE")]
    pub(crate) answer: PathBuf,
    /// Where this guest keeps its keys sealed.
    #[arg(long, value_name = "DIR", env = "SEALIFT_OFFLINE_STATE")]
    pub(crate) offline_state: PathBuf,
}
