//! The switches of `install`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::AgentSocketArgs;

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is written without `--write`. What is written is noted in /etc/sealift, and `--undo` removes exactly that."
)]
pub(crate) struct InstallArgs {
    /// What is to know of this program.
    #[arg(value_enum, value_name = "ENGINE")]
    pub(crate) engine: Engine,
    /// Only print what would be written; this is the default.
    #[arg(long, conflicts_with_all = ["write", "undo"])]
    pub(crate) dry_run: bool,
    /// Write it.
    #[arg(long, conflicts_with = "undo")]
    pub(crate) write: bool,
    /// Remove what `--write` wrote.
    #[arg(long)]
    pub(crate) undo: bool,
    /// The root directory of the system to install in; paths inside files are as seen from there.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// The engine's version; found out by running it by default.
    #[arg(long, value_name = "VERSION")]
    pub(crate) engine_version: Option<String>,
    #[command(flatten)]
    pub(crate) program: ProgramArgs,
    /// The OCI runtime that starts what holds a lease.
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/runc")]
    pub(crate) oci_runtime: PathBuf,
    #[command(flatten)]
    pub(crate) agent: AgentSocketArgs,
}

/// Where this program is, or is to be.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// This program as the engine will find it; where it is now by default.
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,
    /// Put this program there, too (below `--root`): for a container, which has no other tool to do it.
    #[arg(long, requires = "shim", conflicts_with = "undo")]
    pub(crate) copy: bool,
}

/// A container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// containerd 1.6, 1.7, and 2.1 and later, driven by CRI
    Containerd,
    /// Podman and Buildah 4.4 and later
    Podman,
    /// CRI-O
    Crio,
    /// Docker
    Docker,
}

impl Engine {
    /// The program that says its version.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::Docker => "docker",
        }
    }
}
