//! From a layer's ciphertext to files: a pipeline of checks, then a careful tar reader, all inside a staging directory.
//!
//! Nothing reaches its final place before every layer's ciphertext digest, HMAC, plain digest and `diff_id` were checked:
//! [`RootFilesystem::finish`] is the one rename. Knows no network, no TEE, no licence.

mod apply;
mod directories;
mod error;
mod limits;
mod pipeline;
mod root;
mod sparse;
mod staging;
mod stream;

pub use error::{UnpackError, What};
pub use limits::Limits;
pub use pipeline::{LayerCompression, LayerInput, Sealing};

use std::path::Path;

use apply::LayerWriter;
use limits::Usage;
use root::Root;
use staging::Staging;
pub use staging::remove_tree;
pub use stream::{SealedStream, relay};

/// What could not be made as the image has it, for want of privilege.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct UnpackReport {
    /// How many entries were applied.
    pub entries: u64,
    /// Bytes of plain tar streams.
    pub plain_bytes: u64,
    /// Device nodes that were left out.
    pub skipped_devices: u64,
    /// Extended attributes that were left out.
    pub skipped_xattrs: u64,
}

/// Whether owners, devices and privileged attributes can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// As root: everything as the image has it.
    Root,
    /// As an ordinary user: everything belongs to the caller, devices are left out.
    User,
}

impl Privilege {
    /// What the calling process has.
    pub fn current() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::User }
    }
}

/// A root file system that is being put together in a staging directory. Dropped before [`Self::finish`], nothing is left.
#[derive(Debug)]
pub struct RootFilesystem {
    staging: Staging,
    root: Root,
    limits: Limits,
    usage: Usage,
    privilege: Privilege,
    report: UnpackReport,
}

impl RootFilesystem {
    /// Starts a root file system that will be at `target`, which must not exist.
    pub fn create(target: &Path, limits: Limits, privilege: Privilege) -> Result<Self, UnpackError> {
        let staging = Staging::create(target)?;
        let root = Root::open(staging.path())?;
        Ok(Self { staging, root, limits, usage: Usage::default(), privilege, report: UnpackReport::default() })
    }

    /// Applies the next layer. Blocks; call it where a thread may block.
    ///
    /// # Errors
    /// Any [`UnpackError`]; the file system can then only be dropped.
    pub fn apply(&mut self, layer: LayerInput<'_>) -> Result<(), UnpackError> {
        let Self { root, limits, usage, privilege, report, .. } = self;
        pipeline::run(layer, limits, usage, |stream, usage| {
            LayerWriter::new(root, limits, usage, *privilege, report).apply(stream)
        })?;
        self.report.plain_bytes = self.usage.plain_bytes();
        Ok(())
    }

    /// Moves the file system to its place. Every layer was checked by then.
    pub fn finish(self) -> Result<UnpackReport, UnpackError> {
        self.staging.commit()?;
        Ok(self.report)
    }
}
