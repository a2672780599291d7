//! The command line of `sealift audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use command_line::{RegistryArgs, WitnessArgs};
use image_store::ImageReference;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List the newest entries, oldest first.
    List {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Show one entry, whole.
    Show {
        /// Its number, as `list` shows it.
        entry: u64,
    },
    /// Print the receipt of an entry: the proof that it stands in the log. It is good for ever and without the service.
    Prove {
        /// Its number, as `list` shows it.
        entry: u64,
        /// Write it to a new file instead.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Join what several partners' services kept of one run of their image, and the customer's receipts, in one new file.
    ///
    /// Each partner exports its own part (`export --lease`) and gives it to whoever joins them, such as the customer. Licences are
    /// in it. `verify` judges it.
    Bundle {
        /// The file to write.
        #[arg(value_name = "FILE")]
        to: PathBuf,
        /// A partner's part, once for each.
        #[arg(long, value_name = "FILE", required = true)]
        part: Vec<PathBuf>,
        /// The directory where the customer's shim kept its receipts; those of other runs in it are left out.
        #[arg(long, value_name = "DIR")]
        receipts: PathBuf,
    },
    /// Check a receipt, an evidence bundle or a joint one offline, and print what it proves.
    Verify {
        /// The receipt, or the bundle.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The log's verifier key; the home's `service/log.pub` by default. Of a joint bundle: once for each partner.
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        #[command(flatten)]
        witnesses: WitnessArgs,
        /// Of a bundle: the key that licences are signed with (PEM); the home's `service/license.pub` by default. Of a joint
        /// bundle: once for each partner, in the order of their `--key`.
        #[arg(long, value_name = "FILE")]
        license_key: Vec<PathBuf>,
        /// Of a bundle: believe these certificates (PEM or DER) instead of AMD's, for simulated platforms. The output says
        /// so.
        #[arg(long, value_name = "FILE")]
        roots: Vec<PathBuf>,
        /// Of a bundle of a lease that a relay gave: the bundle of the relay's own lease, exported by the vendor; once for each
        /// where it held several after each other. The keys of the relay's log and licences are those that it attested then.
        #[arg(long, value_name = "FILE")]
        relay: Vec<PathBuf>,
    },
    /// Write the whole log, checked, to a new directory that C2SP tools read (tlog-tiles).
    ///
    /// The newest checkpoint that witnesses cosigned goes beside it, as `checkpoint.cosigned`. With `--lease`, write instead
    /// all that one lease rests on to one new file: entries and their proofs, evidence, licence and policies.
    Export(ExportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The directory; with `--lease`, the file.
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// This lease's evidence only.
    // Thumbprints may begin with a hyphen.
    #[arg(long, value_name = "LEASE", allow_hyphen_values = true)]
    pub(crate) lease: Option<String>,
    /// Where the sealed image that the lease's guest ran is, for its signatures; by default the registry that it was packed to.
    #[arg(long, value_name = "REF", requires = "lease")]
    pub(crate) image: Option<ImageReference>,
    /// Leave the image's signatures out: what the guest says of them stands for them.
    #[arg(long, requires = "lease", conflicts_with = "image")]
    pub(crate) without_signatures: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
