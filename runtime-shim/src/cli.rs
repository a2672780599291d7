//! The command line as types: names, switches and help texts, no behaviour.

mod install;
mod renewal;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use command_line::{CommonArgs, RegistryArgs, WitnessArgs};
use image_store::ImageReference;
use key_provider::ListenArgs;
use url::Url;

pub(crate) use self::install::{Engine, InstallArgs};
pub(crate) use self::renewal::{RenewalAcceptArgs, RenewalCommand, RenewalRequestArgs};
use crate::agent::client::DEFAULT_SOCKET;
use crate::agent::record::DEFAULT_STATE;

use crate::secrets::SecretArg;

/// Runs sealed images: attests first, then fetches, verifies, unpacks and runs them, while the licence lives.
#[derive(Debug, Parser)]
#[command(name = "sealift-shim", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 other failure, 2 usage, 3 bad input, 4 verification failed, \
5 denied, 6 unavailable (retry), 7 lease lost. `run` passes the workload's own code through and gives its own \
failures as 120 + the code above.")]
pub(crate) struct Cli {
    /// Output and verbosity.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attest, fetch, verify, unpack and run an image; renew its lease; stop it when the lease is gone.
    Run(RunArgs),
    /// The same up to an OCI bundle.
    Unpack(UnpackArgs),
    /// Open layers' keys for skopeo, buildah or podman: ocicrypt's key provider protocol, on stdin and stdout or over gRPC.
    #[command(name = "keyprovider")]
    KeyProvider(KeyProviderArgs),
    /// Decrypt one layer for containerd, in the place of `ctd-decoder`.
    StreamProcessor(StreamProcessorArgs),
    /// Print or write what a container engine needs to know of this program, or take it back.
    Install(InstallArgs),
    /// Hold keys and leases for the container engines of this node; key providers and the OCI runtime ask it.
    Agent(AgentArgs),
    /// Show which containers of this node hold leases of its agent.
    Containers(AgentSocketArgs),
    /// Stand between a container engine and runc or crun: no lease, no start; lease lost, stop.
    #[command(name = "oci-runtime")]
    OciRuntime(OciRuntimeArgs),
    /// Show this machine's launch evidence and the service's verdict on it.
    Attest(AttestArgs),
    /// Say what this machine lacks.
    Doctor(DoctorArgs),
    /// The service's receipts: proof of what was granted.
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Renew a lease by files that somebody carries, where the service cannot be reached.
    #[command(subcommand)]
    Renewal(RenewalCommand),
    /// Print completions for a shell.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Verify a receipt offline and show the entry that it proves.
    Verify {
        /// The receipt.
        file: PathBuf,
        /// A licence of the service, which names the key of its log.
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        license: Option<PathBuf>,
        /// The key of the log, as the vendor's `log.pub` has it.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        #[command(flatten)]
        witnesses: WitnessArgs,
    },
    /// Put a receipt under the newest checkpoint that witnesses cosigned.
    ///
    /// The service is asked for it. A receipt that comes with a lease is too new to be cosigned.
    Refresh {
        /// The receipt; it is replaced.
        file: PathBuf,
        /// A licence of the service.
        #[arg(long, value_name = "FILE")]
        license: PathBuf,
    },
}

/// What every command needs that opens a sealed image.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The sealed image: docker://, oci:DIR[:TAG], oci-archive:FILE[:TAG].
    #[arg(value_name = "REF")]
    pub(crate) reference: ImageReference,
    /// The licence that the vendor issued; for an image that several partners have sealed, one of each.
    #[arg(long, value_name = "FILE", required_unless_present = "kbs", conflicts_with = "kbs")]
    pub(crate) license: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    #[command(flatten)]
    pub(crate) opening: OpeningArgs,
}

impl ImageArgs {
    pub(crate) fn licensed(reference: ImageReference, license: &Path, opening: &OpeningArgs) -> Self {
        let broker = BrokerArgs::default();
        Self { reference, license: vec![license.to_owned()], broker, opening: opening.clone() }
    }
}

/// A key broker that is none of ours.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BrokerArgs {
    /// Whose key broker opens the image, without a licence: it knows no seats, no leases and no revocation.
    #[arg(long, value_enum, value_name = "KIND", requires = "kbs_url", requires = "signer")]
    pub(crate) kbs: Option<BrokerKind>,
    /// Where the key broker is; plain http on this machine only.
    #[arg(long, value_name = "URL", requires = "kbs")]
    pub(crate) kbs_url: Option<Url>,
    /// The certificate authority of the key broker, in PEM.
    #[arg(long, value_name = "FILE", requires = "kbs")]
    pub(crate) kbs_ca: Option<PathBuf>,
    /// A key by which the image may be signed, in PEM; one of several suffices.
    #[arg(long, value_name = "FILE", requires = "kbs")]
    pub(crate) signer: Vec<PathBuf>,
}

/// Whose key broker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BrokerKind {
    /// Confidential Containers' Trustee.
    Trustee,
}

/// How a sealed image is found, and what is told and kept on the way to its keys.
#[derive(Clone, Debug, Args)]
pub(crate) struct OpeningArgs {
    /// The initialisation data of this guest's launch, whose SHA-256 the host passed in `HOST_DATA`.
    #[arg(long, value_name = "FILE", env = "SEALIFT_INIT_DATA")]
    pub(crate) init_data: Option<PathBuf>,
    /// Keep the service's receipts, and what was seen of its audit log, in this directory.
    #[arg(long, value_name = "DIR", env = "SEALIFT_RECEIPTS")]
    pub(crate) receipts: Option<PathBuf>,
    /// The platform to pick from an index (os/architecture[/variant]); this machine's by default.
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Where the agent of this node is.
#[derive(Debug, Args)]
pub(crate) struct AgentSocketArgs {
    /// The socket of this node's agent.
    #[arg(long = "agent", value_name = "PATH", env = "SEALIFT_AGENT", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) image: ImageArgs,
    /// What runs the container.
    #[arg(long, value_enum, default_value_t, value_name = "RUNTIME")]
    pub(crate) runtime: RuntimeKind,
    /// Where root file systems are unpacked; must be memory or encrypted storage of the TEE.
    #[arg(long, value_name = "DIR", env = "SEALIFT_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The container's network.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub(crate) network: NetworkMode,
    /// Give the workload a secret of the image's product as a read-only file in memory: `TYPE/TAG=/path`.
    #[arg(long, value_name = "NAME=PATH")]
    pub(crate) secret: Vec<SecretArg>,
    /// Keep what a start needs in this directory, sealed to this guest, so that the image can start and run without the service
    /// for as long as licence and policy allow. The lease is kept over a restart, and not given back at the end.
    #[arg(long, value_name = "DIR", env = "SEALIFT_OFFLINE_STATE", conflicts_with_all = ["kbs", "secret"])]
    pub(crate) offline_state: Option<PathBuf>,
    /// How long the workload has between SIGTERM and SIGKILL when its lease is gone; five minutes at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=300))]
    pub(crate) stop_timeout: u64,
    /// What to run instead of the image's own command.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    #[command(flatten)]
    pub(crate) image: ImageArgs,
    /// The bundle's directory; must not exist.
    #[arg(value_name = "DIR", required_unless_present = "verify_only")]
    pub(crate) directory: Option<PathBuf>,
    /// Write nothing: attest, fetch and decrypt every layer, check all its digests, and say what was verified.
    #[arg(long, conflicts_with = "directory")]
    pub(crate) verify_only: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Name it `attestation-agent` in the file that OCICRYPT_KEYPROVIDER_CONFIG names, by its program or by where it \
listens:\n  \
{\"key-providers\": {\"attestation-agent\": {\"cmd\": {\n    \
\"path\": \"/usr/bin/sealift-shim\", \"args\": [\"keyprovider\"]}}}}\n  \
{\"key-providers\": {\"attestation-agent\": {\"grpc\": \"127.0.0.1:50051\"}}}\n\
then decrypt in the guest:\n  \
skopeo copy --decryption-key provider:attestation-agent REF DST\n\
The agent of the node is asked, or, with SEALIFT_LICENSE=FILE SEALIFT_IMAGE=REF, the service itself."
)]
pub(crate) struct KeyProviderArgs {
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) keys: LayerKeyArgs,
}

/// Where the keys of single layers come from: the agent, unless there is a licence.
#[derive(Debug, Args)]
pub(crate) struct LayerKeyArgs {
    #[command(flatten)]
    pub(crate) agent: AgentSocketArgs,
    /// The sealed image that is decrypted: docker://, oci:DIR[:TAG], oci-archive:FILE[:TAG]. Its layers' keys only are given.
    #[arg(long = "image", value_name = "REF", env = "SEALIFT_IMAGE")]
    pub(crate) reference: Option<ImageReference>,
    /// The licence that the vendor issued: attest here for each layer, without an agent.
    #[arg(long, value_name = "FILE", env = "SEALIFT_LICENSE")]
    pub(crate) license: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: OpeningArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "containerd starts it for each layer; `sealift-shim install containerd` writes the configuration. \
The key packet comes on file descriptor 3, the ciphertext on stdin; the plain layer, still compressed, goes to stdout."
)]
pub(crate) struct StreamProcessorArgs {
    #[command(flatten)]
    pub(crate) keys: LayerKeyArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Containers hold a lease each, and stop when it is lost: at once on revocation, else when lease and grace \
are over. An agent that is started again takes up the containers of the one before."
)]
pub(crate) struct AgentArgs {
    /// The licences that the vendors issued; the first one that fits an image and is not denied serves.
    #[arg(long = "license", value_name = "FILE", env = "SEALIFT_LICENSE", value_delimiter = ':', required = true)]
    pub(crate) licenses: Vec<PathBuf>,
    /// Where engines reach the agent. The directory is made for its owner alone.
    #[arg(long, value_name = "PATH", env = "SEALIFT_AGENT", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// A sealed image that this node may open. Needed for faces that cannot say which image a key is of.
    #[arg(long = "image", value_name = "REF")]
    pub(crate) images: Vec<ImageReference>,
    /// Where the agent keeps what it knows of sealed images and of containers; no keys. Must be storage of the TEE.
    #[arg(long, value_name = "DIR", env = "SEALIFT_AGENT_STATE", default_value = DEFAULT_STATE)]
    pub(crate) state_dir: PathBuf,
    /// How long a container has between SIGTERM and SIGKILL when its lease is lost; five minutes at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=300))]
    pub(crate) stop_timeout: u64,
    #[command(flatten)]
    pub(crate) opening: OpeningArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Engines take a program without arguments: link `sealift-runtime` to this program and name the link.\n  \
podman --runtime /usr/bin/sealift-runtime [--runtime-flag inner=/usr/bin/crun] run IMAGE\n  \
containerd: BinaryName = \"/usr/bin/sealift-runtime\"\n\
Options before the command, beside those of the runtime:\n  \
--inner PATH  the runtime (SEALIFT_INNER_RUNTIME; else runc or crun on the PATH)\n  \
--agent PATH  the agent's socket (SEALIFT_AGENT)"
)]
pub(crate) struct OciRuntimeArgs {
    /// The runtime's own command line.
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// The licence, which names the service.
    #[arg(long, value_name = "FILE")]
    pub(crate) license: PathBuf,
    /// The initialisation data of this guest's launch, whose SHA-256 the host passed in `HOST_DATA`.
    #[arg(long, value_name = "FILE", env = "SEALIFT_INIT_DATA")]
    pub(crate) init_data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A licence, to try the service that it names.
    #[arg(long, value_name = "FILE")]
    pub(crate) license: Option<PathBuf>,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeKind {
    /// runc or crun where there is one that works, else the embedded runtime.
    #[default]
    Auto,
    /// crun
    Crun,
    /// The runtime inside this program.
    Embedded,
    /// runc
    Runc,
}

/// The container's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkMode {
    /// The guest's own.
    #[default]
    Host,
    /// None but loopback.
    None,
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
