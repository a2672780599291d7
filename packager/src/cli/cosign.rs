//! The switches of `cosign`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use command_line::RegistryArgs;
use image_store::ImageReference;
use release_protocol::ProductName;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct CosignArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CosignCommand>,
    /// The whole image, to which nobody adds any more: docker:// with its digest, or oci:DIR[:TAG].
    #[arg(value_name = "REF", required = true)]
    pub(crate) reference: Option<ImageReference>,
    /// One's own product, to whose keys one's own layers are sealed.
    #[arg(long, value_name = "PRODUCT", required = true)]
    pub(crate) product: Option<ProductName>,
    /// One's own layers, from 0 at the base; negative ones count from the top. Whichever are sealed to one's own keys by default.
    #[arg(long, value_name = "N", value_delimiter = ',', allow_hyphen_values = true)]
    pub(crate) layers: Vec<i64>,
    /// The image as one handed it on: it may have got layers on top, and nothing else may have changed.
    #[arg(long, value_name = "REF")]
    pub(crate) extends: Option<ImageReference>,
    /// The private key that signs (PEM file, `-`, `env://NAME`); the home's by default.
    #[arg(long, value_name = "KEY")]
    pub(crate) signer: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CosignCommand {
    /// Show who has signed an image and who is missing. Exit code 4 while too few have.
    Status(CosignStatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CosignStatusArgs {
    /// The image.
    #[arg(value_name = "REF")]
    pub(crate) reference: ImageReference,
    /// The partners' public keys (PEM), once for each. A key that is named twice counts once.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) key: Vec<PathBuf>,
    /// So many of the keys have to have signed; all of them by default.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threshold: Option<u32>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
