//! The switches of `sealift guest`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use command_line::RegistryArgs;
use image_store::ImageReference;
use release_protocol::guest::InterfaceAddress;
use url::Url;

#[derive(Debug, Subcommand)]
pub(crate) enum GuestCommand {
    /// Build a guest: kernel, initial RAM disk, command line, and the launch measurements of the three.
    Build(Box<GuestBuildArgs>),
    /// Build a guest that is a relay: likewise, with `sealift serve --relay` for what it runs.
    ///
    /// Its home is in its memory: each boot is a new relay, with a new licence for the site's guests, which it prints on its
    /// console. One that was switched off without an end holds the licence's seats for its lease and grace.
    Relay(Box<GuestRelayArgs>),
    /// Boot a guest under QEMU on a simulated platform. Protects nothing.
    Boot(GuestBootArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GuestBuildArgs {
    /// The sealed image that the guest runs, as the guest reaches it.
    #[arg(value_name = "REF")]
    pub(crate) image: ImageReference,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// What to run instead of the image's own command.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// What every guest is made of.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// The guest's folder; must not exist.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The kernel.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,
    /// Its modules, such as /lib/modules/VERSION; those that a guest needs are picked.
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: PathBuf,
    /// A further module by its name.
    #[arg(long, value_name = "NAME")]
    pub(crate) module: Vec<String>,
    /// The licence. It goes into the initial RAM disk: who has that has the licence.
    #[arg(long, value_name = "FILE")]
    pub(crate) license: PathBuf,
    /// The guest's first process; `sealift-shim` beside this program by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0 quiet panic=-1")]
    pub(crate) append: String,
    /// The guest's address; QEMU's user network by default, and so the next two.
    #[arg(long, value_name = "ADDRESS/LENGTH", default_value = "10.0.2.15/24")]
    pub(crate) address: InterfaceAddress,
    /// The gateway.
    #[arg(long, value_name = "ADDRESS", default_value = "10.0.2.2")]
    pub(crate) gateway: Ipv4Addr,
    /// Name servers.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "10.0.2.3")]
    pub(crate) name_server: Vec<Ipv4Addr>,
    /// The firmware, to compute launch measurements.
    #[arg(long, visible_alias = "ovmf", value_name = "FILE")]
    pub(crate) firmware: Option<PathBuf>,
    /// How many virtual CPUs; a measurement for each number.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    pub(crate) vcpus: Vec<u32>,
    /// Their type, as QEMU names it; a measurement for each.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "EPYC-v4")]
    pub(crate) vcpu_type: Vec<String>,
    /// Memory in the printed command, in MiB; it is not measured.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) memory: u32,
    /// DANGER: build the guest for a simulated platform, which protects nothing. For evaluation and tests.
    #[arg(long)]
    pub(crate) simulated: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GuestRelayArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Where the site's guests reach the relay; it listens on this port.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Url,
    /// The program that serves; this program by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) sealift: Option<PathBuf>,
    /// Certificate authorities (PEM) by which endorsements are fetched from the processor's vendor. Without, the relay fetches
    /// none: its guests have to bring them.
    #[arg(long, value_name = "FILE")]
    pub(crate) authorities: Option<PathBuf>,
    /// The simulated platform whose guests the relay accepts; `simulated-platform` in the home by default.
    #[arg(long, value_name = "DIR", requires = "simulated")]
    pub(crate) platform: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct GuestBootArgs {
    /// The guest's folder, built with `--simulated`.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The platform's directory; `simulated-platform` in the home by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) platform: Option<PathBuf>,
    /// Only print the launch measurement; boot nothing.
    #[arg(long)]
    pub(crate) measure_only: bool,
    /// How many virtual CPUs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) vcpus: u32,
    /// Memory, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) memory: u32,
    /// What runs the virtual CPUs: `tcg`, which is slow and everywhere, or `kvm`.
    #[arg(long = "accel", value_name = "NAME", default_value = "tcg")]
    pub(crate) accelerator: String,
    /// QEMU.
    #[arg(long, value_name = "FILE", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// Further arguments for QEMU.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<std::ffi::OsString>,
}
