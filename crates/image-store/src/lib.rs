//! Where images live: registries, OCI layouts and archives. Bytes stream in and out, digests and sizes are checked on
//! the way; this crate knows no keys and no encryption.
//!
//! ```no_run
//! use image_store::{Document, Store, StoreOptions};
//!
//! # async fn copy() -> Result<(), image_store::Error> {
//! let options = StoreOptions::default();
//! let source = Store::open(&"docker://registry.example/app:v1".parse()?, &options).await?;
//! let destination = Store::create(&"oci:copy:v1".parse()?, &options).await?;
//! let raw = source.resolve().await?;
//! if let Ok(Document::Manifest(manifest)) = raw.parse() {
//!     for blob in manifest.layers.iter().chain([&manifest.config]) {
//!         destination.copy_blob(&source, blob).await?;
//!     }
//!     destination.put_image(raw.bytes.clone(), &raw.media_type).await?;
//!     destination.commit().await?;
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod archive;
mod blob;
mod chunk;
mod credential;
mod descriptor;
mod digest;
mod error;
mod layout;
mod local;
mod local_images;
mod manifest;
pub mod media_type;
mod options;
mod reference;
mod registry;
mod store;
mod writer;

pub use blob::{BlobCheck, BlobStream, BlockingBlob};
pub use chunk::{CHUNK, Chunk, Pool};
pub use descriptor::{Descriptor, Platform, REF_NAME};
pub use digest::{Digest, Hasher, ParseDigestError};
pub use error::{Corruption, Error, ErrorKind, Unavailability, UsageError};
pub use manifest::{Document, Index, Manifest, ManifestError, RawManifest};
pub use options::{RetryPolicy, StoreOptions};
pub use reference::{ImageReference, ParseReferenceError, RegistryReference, Selector, is_tag};
pub use store::{CopyOutcome, Place, Store};
pub use writer::BlobWriter;

/// Limits on what is read from a store.
pub mod limits {
    /// The largest manifest or index in bytes: what registries commonly accept.
    pub const MANIFEST_BYTES: usize = 4 * 1024 * 1024;
    /// The most layers of an image.
    pub const LAYERS: usize = 1_000;
    /// The most entries of an index.
    pub const ENTRIES: usize = 10_000;
    /// The largest blob, and the largest sum of the sizes in one manifest: 2^53, what a JSON number holds exactly.
    pub const BLOB_BYTES: u64 = 1 << 53;
}
