//! The switches of `pack` and `rewrap`.

use std::path::PathBuf;

use clap::Args;
use command_line::RegistryArgs;
use image_store::ImageReference;
use release_protocol::{Confinement, ProductName};

use crate::tenants::TenantName;

/// For whom an image is sealed, and in whose name.
#[derive(Debug, Args)]
pub(crate) struct SealingArgs {
    /// A further recipient that can open the layers without the service: `jwe:FILE` with a public key (PEM). Only the role
    /// admin may name one for layers that are sealed already.
    #[arg(long, value_name = "KEY")]
    pub(crate) recipient: Vec<String>,
    /// The private key that signs the image (PEM file, `-`, `env://NAME`); the home's by default.
    #[arg(long, value_name = "KEY")]
    pub(crate) signer: Option<String>,
    /// A bill of materials (SPDX or CycloneDX, JSON) to attach, signed, to every platform's manifest. It is not encrypted.
    #[arg(long, value_name = "FILE")]
    pub(crate) sbom: Option<PathBuf>,
    /// The version to note on the manifest.
    #[arg(long = "image-version", value_name = "TEXT")]
    pub(crate) image_version: Option<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "sealift pack [OPTIONS] --product <PRODUCT> <SRC> <DST>\n       \
sealift pack [OPTIONS] --product <PRODUCT> --finish <REF>")]
pub(crate) struct PackArgs {
    /// The plain image: docker://, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG].
    #[arg(value_name = "SRC", required_unless_present = "finish")]
    pub(crate) source: Option<ImageReference>,
    /// Where the sealed image goes: docker://, oci:DIR:TAG, oci-archive:FILE:TAG.
    #[arg(value_name = "DST", required_unless_present = "finish")]
    pub(crate) destination: Option<ImageReference>,
    /// The product that the image belongs to.
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: ProductName,
    /// Only these platforms of an index (os/architecture[/variant]); all by default.
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Only these layers, from 0 at the base; negative ones count from the top. All by default.
    #[arg(long, value_name = "N", value_delimiter = ',', allow_hyphen_values = true)]
    pub(crate) layers: Vec<i64>,
    #[command(flatten)]
    pub(crate) sealing: SealingArgs,
    /// Leave out of the config and the annotations how the image was made: history, labels, author, comments.
    #[arg(long)]
    pub(crate) scrub_config: bool,
    /// Add a small layer that says, to `sealift trace` alone, whose copy this is.
    #[arg(long, value_name = "CUSTOMER")]
    pub(crate) watermark: Option<String>,
    /// Add these plain, uncompressed tars as layers on top, sealed, also where others have sealed layers of the image. Positions
    /// of `--layers` count them; they are sealed whether it picks them or not.
    #[arg(long, value_name = "TAR", value_delimiter = ',')]
    pub(crate) append: Vec<PathBuf>,
    /// Hold the layers that are sealed to this directory of the image: wherever it runs, they put nothing elsewhere.
    #[arg(long, value_name = "DIR", requires = "layers", conflicts_with_all = ["watermark", "reuse"])]
    pub(crate) confine: Option<Confinement>,
    /// This is one of several partners' parts: sign nothing, and keep the key pending, until `sealift cosign` has seen the whole
    /// image.
    #[arg(long, conflicts_with_all = ["finish", "sbom", "signer"])]
    pub(crate) joint: bool,
    /// An image of ours, sealed earlier: layers with the same content are taken from it, not encrypted again.
    #[arg(long, value_name = "REF")]
    pub(crate) reuse: Option<ImageReference>,
    /// Bind and sign, in its place, an image that another tool encrypted through `sealift keyprovider`: docker:// with
    /// the digest that was pushed, or oci:DIR[:TAG].
    #[arg(long, value_name = "REF", conflicts_with_all = ["source", "destination", "platform", "recipient", "image_version", "scrub_config", "watermark", "reuse", "append", "confine"])]
    pub(crate) finish: Option<ImageReference>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RewrapArgs {
    /// The sealed image.
    #[arg(value_name = "REF")]
    pub(crate) source: ImageReference,
    /// Where it goes under its new key: docker://, oci:DIR:TAG, oci-archive:FILE:TAG. In the same repository no layer moves.
    #[arg(value_name = "DST")]
    pub(crate) destination: ImageReference,
    /// The product that the image belongs to.
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: ProductName,
    /// The home whose service is to have the new key, where it is another than this one: it gets the layers' keys from this
    /// one's service, encrypted to it, and its signing key signs. Needs an admin token here.
    #[arg(long, value_name = "DIR", conflicts_with = "recipient")]
    pub(crate) to: Option<PathBuf>,
    /// The same, for a tenant of this home.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to", "recipient"])]
    pub(crate) tenant: Option<TenantName>,
    /// The file of a publisher's token there; its admin token by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) to_token: Option<PathBuf>,
    /// Public keys (PEM) of which one must have signed the sealed image; the home's by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) sealing: SealingArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
