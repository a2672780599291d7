//! From a layer's ciphertext to files: a pipeline of checks, then a careful tar reader, all inside a staging directory.
//!
//! Nothing reaches its final place before every layer's ciphertext digest, HMAC, plain digest and `diff_id` were checked:
//! [`RootFilesystem::finish`] is the one rename. Knows no network, no TEE, no licence.

mod apply;
mod chunk;
mod decompress;
mod directories;
mod error;
mod front;
mod limits;
mod pipeline;
mod root;
mod sparse;
mod staging;
mod stream;

pub use decompress::LayerCompression;
pub use error::{LayerError, UnpackError, What};
pub use limits::Limits;
pub use pipeline::{Blob, LayerInput, OpenBlob, Sealing};

use std::path::Path;
use std::sync::atomic::Ordering;

use apply::LayerWriter;
use limits::Entries;
use pipeline::Shared;
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
    entries: Entries,
    privilege: Privilege,
    report: UnpackReport,
}

impl RootFilesystem {
    /// Starts a root file system that will be at `target`, which must not exist.
    pub fn create(target: &Path, limits: Limits, privilege: Privilege) -> Result<Self, UnpackError> {
        let staging = Staging::create(target)?;
        let root = Root::open(staging.path())?;
        let (entries, report) = (Entries::default(), UnpackReport::default());
        Ok(Self { staging, root, limits, entries, privilege, report })
    }

    /// Applies the image's layers, one upon the other; the next ones are read, checked and decompressed meanwhile. Blocks;
    /// call it where a thread may block.
    ///
    /// `on_failure` is called with the first layer that fails: what reads the others should end.
    ///
    /// # Errors
    /// The first layer that failed; the file system can then only be dropped.
    pub fn apply(
        &mut self,
        layers: impl IntoIterator<Item = LayerInput>,
        on_failure: &(dyn Fn(usize) + Sync),
    ) -> Result<(), LayerError> {
        let Self { root, limits, entries, privilege, report, .. } = self;
        let shared = Shared::new(*limits, on_failure);
        let layers: Vec<LayerInput> = layers.into_iter().collect();
        let confinements: Vec<_> = layers.iter().map(|layer| layer.confinement.clone()).collect();
        pipeline::run(layers, &shared, |number, tar| {
            let confinement = confinements.get(number).and_then(Option::as_ref);
            LayerWriter::new(root, limits, entries, *privilege, report, confinement).apply(tar)
        })?;
        report.plain_bytes = shared.plain_bytes.into_inner();
        Ok(())
    }

    /// Moves the file system to its place. Every layer was checked by then.
    pub fn finish(self) -> Result<UnpackReport, UnpackError> {
        self.staging.commit()?;
        Ok(self.report)
    }
}

/// Makes every check of the image's layers and writes nothing; gives the bytes of each plain tar. Archives are not read: what
/// is in them is as the vendor packed it, when this succeeds. Blocks, and calls `on_failure`, as [`RootFilesystem::apply`].
///
/// # Errors
/// The first layer that failed.
pub fn verify(
    layers: impl IntoIterator<Item = LayerInput>,
    limits: Limits,
    on_failure: &(dyn Fn(usize) + Sync),
) -> Result<Vec<u64>, LayerError> {
    let shared = Shared::new(limits, on_failure);
    let mut bytes = Vec::new();
    pipeline::run(layers, &shared, |_, tar| {
        tar.drain();
        bytes.push(tar.count().load(Ordering::Relaxed));
        Ok(())
    })?;
    Ok(bytes)
}
