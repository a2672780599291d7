//! The rows of the table, a file each: what both sides do, and the bar.

mod cipher;
mod memory;
mod open;
mod pack;
mod root;
mod start;

use std::path::Path;

use clap::ValueEnum as _;

use crate::contest::Contest;
use crate::options::Options;
use crate::stage::{Place, Stage};

/// A row of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Row {
    /// A plain layer to a sealed one.
    Pack,
    /// Five plain layers to sealed ones.
    PackLayers,
    /// A sealed layer to a plain one.
    Open,
    /// A registry to a root file system: an application.
    Application,
    /// A registry to a root file system: one large layer.
    Large,
    /// The layer cipher in memory.
    Cipher,
    /// Peaks of memory as layers grow.
    Memory,
    /// Attestation to the first instruction.
    Start,
}

impl Row {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Where its files may lie, of those that are wanted.
    pub(crate) fn places(self, options: &Options) -> Vec<Place> {
        match self {
            Self::Open | Self::Pack | Self::PackLayers => options.places.clone(),
            // 20 GB would not fit.
            Self::Memory => vec![Place::Disk],
            Self::Application | Self::Cipher | Self::Large | Self::Start => vec![Place::Memory],
        }
    }

    /// Makes the files of the row in `directory`.
    pub(crate) async fn contests<'a>(
        self,
        stage: &'a Stage,
        directory: &'a Path,
        options: &'a Options,
    ) -> Vec<Contest<'a>> {
        vec![match self {
            Self::Application => root::application(stage, directory).await,
            Self::Cipher => cipher::contest(),
            Self::Large => root::large(stage, directory).await,
            Self::Memory => return memory::contests(stage, directory).await,
            Self::Open => return open::contests(stage, directory, options).await,
            Self::Pack => pack::contest(stage, directory, 1, options.layer_mib).await,
            Self::PackLayers => pack::contest(stage, directory, 5, options.layer_mib / 5).await,
            Self::Start => start::contest(stage, directory).await,
        }]
    }
}
