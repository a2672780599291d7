//! The arguments of `measure` and `reference`: launches, ID blocks, and what becomes of them.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;
use launch_evidence::{GuestId, KeyDigest, Vmm};
use release_protocol::ProductName;

#[derive(Debug, Subcommand)]
pub(crate) enum MeasureCommand {
    /// SEV-SNP launch digests.
    Snp(MeasureSnpArgs),
}

/// The files and parameters of an SEV-SNP launch.
#[derive(Clone, Debug, Args)]
pub(crate) struct LaunchArgs {
    /// The firmware image. To measure kernel and initrd it has to be built for that (OVMF's `AmdSev` build).
    #[arg(long, visible_alias = "firmware", value_name = "FILE")]
    pub(crate) ovmf: Option<PathBuf>,
    /// The kernel.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The initial RAM disk.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub(crate) append: Option<String>,
    /// How many virtual CPUs; several numbers measure one launch each.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    pub(crate) vcpus: Vec<u32>,
    /// Their type, as QEMU names it; several types measure one launch each.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "EPYC-v4")]
    pub(crate) vcpu_type: Vec<String>,
    /// The guest's SEV features, hexadecimal.
    #[arg(long, value_name = "HEX", default_value = "0x1", value_parser = hexadecimal)]
    pub(crate) guest_features: u64,
    /// The machine monitor.
    #[arg(long, value_name = "VMM", default_value = "qemu", value_parser = Vmm::NAMES)]
    pub(crate) vmm: String,
}

#[derive(Debug, Args)]
#[command(mut_arg("ovmf", |arg| arg.required(true)))]
pub(crate) struct MeasureSnpArgs {
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
    #[command(flatten)]
    pub(crate) id_block: IdBlockArgs,
}

/// What a guest's owner signs over a launch.
#[derive(Debug, Args)]
pub(crate) struct IdBlockArgs {
    /// Sign an ID block for each launch, and print what QEMU's object `sev-snp-guest` takes.
    #[arg(long, requires = "id_key")]
    pub(crate) id_block: bool,
    /// The private key that signs the ID block: P-384 (PEM file, `-`, `env://NAME`).
    #[arg(long, value_name = "KEY", requires = "id_block")]
    pub(crate) id_key: Option<String>,
    /// The private key that signs the ID key: P-384 (PEM file, `-`, `env://NAME`). None by default.
    #[arg(long, value_name = "KEY", requires = "id_block")]
    pub(crate) author_key: Option<String>,
    /// The family id in the ID block, 32 hexadecimal digits.
    #[arg(long, value_name = "HEX", requires = "id_block", default_value = "00000000000000000000000000000000")]
    pub(crate) family: GuestId,
    /// The image id in the ID block, 32 hexadecimal digits.
    #[arg(long, value_name = "HEX", requires = "id_block", default_value = "00000000000000000000000000000000")]
    pub(crate) image: GuestId,
    /// The guest's security version; reference values by ID key demand a lowest one.
    #[arg(long, value_name = "N", requires = "id_block", default_value_t = 0)]
    pub(crate) svn: u32,
    /// The guest policy that the launch must have, hexadecimal.
    #[arg(long, value_name = "HEX", requires = "id_block", default_value = "0x30000", value_parser = hexadecimal)]
    pub(crate) policy: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReferenceCommand {
    /// Add reference values: measured from the files that boot, a digest, an ID key, or initialisation data. Prints their ids.
    Add(Box<ReferenceAddArgs>),
    /// List a product's reference values, where they came from, and which are retired.
    List {
        /// The product.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
    },
    /// Let a reference value count until a date only: from then on guests that it knows get nothing, those that run stop at
    /// their next renewal. It stays listed.
    Retire {
        /// Its id.
        id: String,
        /// From when on (RFC 3339); now by default.
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
        /// Why; kept with the reference value, in the audit log, and told to guests that are denied.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Remove a reference value: guests that it knows get nothing any more.
    Remove {
        /// The product.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
        /// Its id, or the measurement, 96 hexadecimal digits.
        reference: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("value").required(true).args(["measure", "digest", "id_key_digest", "init_data"]))]
#[command(mut_args(|arg| if is_launch(&arg) { arg.requires("measure") } else { arg }))]
pub(crate) struct ReferenceAddArgs {
    /// The product.
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: ProductName,
    /// Measure a launch as `sealift measure snp` does, and keep what it was measured from.
    #[arg(long, requires = "ovmf")]
    pub(crate) measure: bool,
    /// The measurement, 96 hexadecimal digits, as `sealift measure` prints it; `-` reads it from stdin.
    #[arg(long, value_name = "HEX")]
    pub(crate) digest: Option<String>,
    /// The digest of the key that signs the guests' ID blocks, 96 hexadecimal digits.
    #[arg(long, value_name = "HEX", requires = "min_svn")]
    pub(crate) id_key_digest: Option<KeyDigest>,
    /// The lowest guest security version that counts under that key.
    #[arg(long, value_name = "N", requires = "id_key_digest")]
    pub(crate) min_svn: Option<u32>,
    /// Initialisation data that guests may be launched with whose clients are not ours (Confidential Containers). Approve what
    /// you wrote yourself: such a guest is held to nothing but what they say.
    #[arg(long, value_name = "FILE")]
    pub(crate) init_data: Option<PathBuf>,
    /// What people call it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) label: String,
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

/// Whether an argument is one of [`LaunchArgs`].
fn is_launch(arg: &clap::Arg) -> bool {
    ["ovmf", "kernel", "initrd", "append", "vcpus", "vcpu_type", "guest_features", "vmm"]
        .contains(&arg.get_id().as_str())
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.starts_with('+') {
        return Err("a sign is no hexadecimal digit".to_owned());
    }
    u64::from_str_radix(digits, 16).map_err(|error| error.to_string())
}
