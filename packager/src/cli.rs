//! The command line as types: names, switches and help texts, no behaviour.

mod audit;
mod collateral;
mod cosign;
mod evidence;
mod guest;
mod key;
mod keyprovider;
mod launch;
mod license;
mod pack;
mod platform;
mod policy;
mod secret;
mod tenant;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;

use attestation_service::{MasterKeyUri, SchemaName};
use carried_file::CarriedOutput;
use clap::{Args, Parser, Subcommand};
use command_line::{CommonArgs, RegistryArgs};
use image_store::ImageReference;
use launch_evidence::Product;
use release_protocol::ProductName;
use url::Url;

use crate::relay::Publish;

pub(crate) use audit::{AuditCommand, ExportArgs};
pub(crate) use collateral::{CollateralBundleArgs, CollateralCommand, CollateralImportArgs};
pub(crate) use cosign::{CosignArgs, CosignCommand, CosignStatusArgs};
pub(crate) use evidence::{EvidenceCommand, EvidenceVerifyArgs, ExpectArgs};
pub(crate) use guest::{GuestBootArgs, GuestBuildArgs, GuestCommand, GuestRelayArgs, MachineArgs};
pub(crate) use key::KeyCommand;
pub(crate) use keyprovider::KeyProviderArgs;
pub(crate) use launch::{IdBlockArgs, LaunchArgs, MeasureCommand, MeasureSnpArgs, ReferenceAddArgs, ReferenceCommand};
pub(crate) use license::{LicenseChangeArgs, LicenseCommand, LicenseIssueArgs, LicenseRevokeArgs, LicenseTransferArgs};
pub(crate) use pack::{PackArgs, RewrapArgs};
pub(crate) use platform::PlatformCommand;
pub(crate) use policy::{PolicyCommand, PolicyTestArgs};
pub(crate) use secret::SecretCommand;
pub(crate) use tenant::{TenantCommand, TenantCreateArgs};
pub(crate) use token::TokenCommand;

/// Ships containers that run only where a TEE proves itself and while a licence lives.
#[derive(Debug, Parser)]
#[command(name = "sealift", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 other failure, 2 usage, 3 bad input, 4 verification failed, \
5 denied, 6 unavailable (retry), 7 lease lost.")]
pub(crate) struct Cli {
    /// Output and verbosity.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// The vendor home: settings, keys, tokens, database.
    #[arg(long, global = true, env = "SEALIFT_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a vendor home: settings, signing key, certificate authority, first admin token.
    Init(InitArgs),
    /// Tell the whole story on this machine: pack, serve, attest, run, revoke, denied. Needs nothing set up.
    Demo(DemoArgs),
    /// Run the attestation service.
    Serve(ServeArgs),
    /// Encrypt an image's layers, register the key, sign, push. Prints the sealed reference.
    Pack(Box<PackArgs>),
    /// Give a sealed image a key of its own, for another customer, say, without touching a layer. Prints the new reference.
    Rewrap(Box<RewrapArgs>),
    /// Sign an image that several partners have sealed, and let one's own keys open exactly that image.
    Cosign(Box<CosignArgs>),
    /// Say whose copy an unpacked tree is, by the watermark in it.
    Trace {
        /// The tree.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Wrap layers' keys for skopeo, buildah or podman: ocicrypt's key provider protocol, on stdin and stdout or over gRPC.
    #[command(name = "keyprovider")]
    KeyProvider(KeyProviderArgs),
    /// Show what is sealed to what.
    Inspect(InspectArgs),
    /// Check signatures and structure of a sealed image.
    Verify(VerifyArgs),
    /// Compute launch measurements from the files that boot.
    #[command(subcommand)]
    Measure(MeasureCommand),
    /// Guests that boot measured, with the shim as their first process.
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Products: what images belong to and policies are about.
    #[command(subcommand)]
    Product(ProductCommand),
    /// Reference values: the guests that may open a product's images, by launch measurement or ID key.
    #[command(subcommand)]
    Reference(ReferenceCommand),
    /// Keys at rest: what is sealed under which master key, and another master key in its place.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Secrets that guests of a product get beside image keys: configuration, keys of models.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Platforms that get nothing: by product, chip or firmware level.
    #[command(subcommand)]
    Platform(PlatformCommand),
    /// Release policies (Rego), one a product.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Licences: who may run what, how often at once, until when.
    #[command(subcommand)]
    License(LicenseCommand),
    /// Leases: what runs now.
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// API tokens: who may ask the service for what.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Tenants: homes with nothing in common, below this one, served together or apart.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// The audit log: what was released to whom.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// What a service without internet needs to judge evidence: certificates, revocation lists, policies, in one file.
    #[command(subcommand)]
    Collateral(CollateralCommand),
    /// Copy the service's database to a new file while the service runs; the copy's audit log is checked entry by entry.
    Backup {
        /// The file.
        file: PathBuf,
    },
    /// Put a copy in the place of the service's database, if it holds all that the service has signed.
    Restore {
        /// The file, as `backup` made it.
        file: PathBuf,
    },
    /// Saved launch evidence: what it says, and what a verifier says of it. Needs no service.
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// A simulated SEV-SNP platform for evaluation and tests. Protects nothing.
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Write manual pages, one a command.
    Man(ManArgs),
    /// Print the OpenAPI document of the service's HTTP interface, as the service itself gives it at /openapi.json.
    #[command(name = "openapi")]
    OpenApi,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where; the home by default.
    pub(crate) dir: Option<PathBuf>,
    /// Where the service listens.
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// How customers reach the service; licences carry it. `https://` and the listening address by default.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<Url>,
    /// How the vendor's own commands reach the service, where that is another way than the customers'.
    #[arg(long, value_name = "URL")]
    pub(crate) admin_url: Option<Url>,
    /// Keep the service's state in this PostgreSQL database, `postgres://USER@HOST/NAME`; `SQLite` in the home by default.
    /// Its password comes from PGPASSWORD or PGPASSFILE.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// The schema of that database for the service's tables; the connection's own by default. It is made where it is absent.
    #[arg(long, value_name = "SCHEMA", requires = "database")]
    pub(crate) schema: Option<SchemaName>,
    /// What image keys and secrets are sealed under: `file:PATH`, `env://NAME`, `pkcs11:…` (RFC 7512), `openbao://[MOUNT/]KEY`
    /// or `vault://[MOUNT/]KEY` (Transit). How it is reached stands in the environment (`SEALIFT_PKCS11_MODULE`,
    /// `SEALIFT_PKCS11_PIN`, `BAO_ADDR`, `BAO_TOKEN`, `VAULT_ADDR`, `VAULT_TOKEN` …) or in the settings. A file in the home by default.
    #[arg(long, value_name = "KEY")]
    pub(crate) master_key: Option<MasterKeyUri>,
    /// Further names or addresses for the server certificate.
    #[arg(long, value_name = "NAME")]
    pub(crate) host_name: Vec<String>,
    /// Whether the certificate is for nothing but the hosts of the URLs and those names, as a tenant's is.
    #[arg(skip)]
    pub(crate) own_names_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep everything that the demo makes in this folder, and print the commands that it stands for.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// The shim to run; `sealift-shim` beside this program by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; what the settings say by default.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The PostgreSQL database, `postgres://USER@HOST/NAME`, that this service shares with its replicas; what the settings
    /// say by default. Its password comes from PGPASSWORD or PGPASSFILE.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Serve the tenants of this home, all on one listener, in the place of the home itself. Which one a client means it says
    /// by the host name of the connection (SNI). Tenants that are made or deleted meanwhile are taken up.
    #[arg(long, conflicts_with = "database")]
    pub(crate) tenants: bool,
    /// Serve as a relay: hold the seats of this licence (`license issue --relay`) for the guests of a site, by the authority of
    /// the service that issued it. Runs inside a measured guest, on a home of its own; guests run under `child.license` there.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tenants", "database"])]
    pub(crate) relay: Option<PathBuf>,
    /// Where the licence for the site's guests, a bearer's token, goes beside the home: printed whenever it is another, where
    /// nobody can read the home. Nowhere by default.
    #[arg(long, value_name = "WHERE", requires = "relay")]
    pub(crate) child_license: Option<Publish>,
    /// Fetch no endorsements and no revocation lists, whatever the settings say.
    #[arg(long)]
    pub(crate) offline: bool,
    /// DANGER: accept evidence of simulated platforms, which protect nothing. For evaluation and tests.
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// Directory of a simulated platform to accept; the home's own by default (of a tenant that has none: the vendor's).
    #[arg(long, value_name = "DIR", requires = "allow_simulated")]
    pub(crate) simulated_platform: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The image.
    #[arg(value_name = "REF")]
    pub(crate) reference: ImageReference,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The image.
    #[arg(value_name = "REF")]
    pub(crate) reference: ImageReference,
    /// Public keys (PEM) of which one must have signed; the home's by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Read every layer and check its digest and size, too.
    #[arg(long)]
    pub(crate) deep: bool,
    /// Fail where no bill of materials that one of the keys signed stands beside the image.
    #[arg(long)]
    pub(crate) require_sbom: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProductCommand {
    /// Make a product.
    Create {
        /// Its name.
        name: ProductName,
        /// Public keys (PEM) whose signatures its images need; the home's signing key by default.
        #[arg(long, value_name = "FILE")]
        signer: Vec<PathBuf>,
    },
    /// List products.
    List,
    /// Show one product, its signers, reference values and keys.
    Show {
        /// Its name.
        name: ProductName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// List leases, newest first.
    List {
        /// How many at the most.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: u32,
        /// All of them.
        #[arg(long, conflicts_with = "limit")]
        all: bool,
    },
    /// End a lease: its workload stops at its next renewal.
    End {
        /// Its id.
        // Thumbprints may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Renew the lease of a guest that does not reach the service, by a request that was carried here.
    ///
    /// The request is judged as an attestation is. The answer is for the guest that made it, and for that one request.
    Renew {
        /// The request, as `sealift-shim renewal request` made it, or the scanned text of its codes; `-` is stdin.
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        #[command(flatten)]
        answer: CarriedOutput,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimulateCommand {
    /// Make a simulated platform: its own root, its own chip.
    Platform {
        /// Where; `simulated-platform` in the home by default.
        dir: Option<PathBuf>,
        /// The processor generation: Milan, Genoa or Turin.
        #[arg(long, value_name = "NAME", default_value = "Genoa", value_parser = processor)]
        processor: Product,
    },
    /// Launch a program as a simulated guest: measured as the initial RAM disk, then run with a report device.
    Launch(SimulateLaunchArgs),
}

fn processor(text: &str) -> Result<Product, String> {
    let known = Product::ALL.into_iter().find(|product| product.as_str() == text);
    known.ok_or_else(|| format!("known are {}", Product::ALL.map(Product::as_str).join(", ")))
}

#[derive(Debug, Args)]
pub(crate) struct SimulateLaunchArgs {
    /// The platform's directory; `simulated-platform` in the home by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) platform: Option<PathBuf>,
    /// The program that is the guest's initial RAM disk, such as `sealift-shim`.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: PathBuf,
    /// The firmware; a simulated one by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: Option<PathBuf>,
    /// The kernel; a simulated one by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0")]
    pub(crate) append: String,
    /// How many virtual CPUs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) vcpus: u32,
    /// Initialisation data: their SHA-256 goes into `HOST_DATA`, as a host passes it, and the guest is told of the file.
    #[arg(long, value_name = "FILE")]
    pub(crate) init_data: Option<PathBuf>,
    /// Only print the launch measurement; run nothing.
    #[arg(long)]
    pub(crate) measure_only: bool,
    /// What the guest's program is given.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to.
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
