//! From a session to a root file system and an OCI bundle on disk.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use command_line::{Console, ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{BlockingBlob, Descriptor};
use ocicrypt::media_type::{Compression, LayerType};
use ocicrypt::options::PrivateOptions;
use runtime_shim::bundle::{self, BundleOptions, Network, SecretFile};
use runtime_shim::unpack::{
    LayerCompression, LayerInput, Limits, Privilege, RootFilesystem, Sealing, UnpackError, UnpackReport,
};
use tokio::task::spawn_blocking;

use crate::image::Layer;
use crate::session::{Released, layer_blob};

/// Fetches, checks and unpacks all layers; the root file system is at `target` when this returns and not before.
///
/// `stop` ends it early, at the next chunk of a layer.
pub(crate) async fn root_filesystem(
    released: &mut Released,
    target: &Path,
    stop: &Arc<AtomicBool>,
    console: &Console,
) -> Result<UnpackReport, Failure> {
    let total = released.image.layers.iter().map(|layer| layer.descriptor.size).sum();
    let progress = console.byte_progress("unpacking", total);
    let mut root = RootFilesystem::create(target, Limits::default(), Privilege::current())
        .map_err(|error| failure("cannot start to unpack", &error))?;
    let keys = std::mem::take(&mut released.layer_keys);
    for (position, (layer, key)) in released.image.layers.iter().zip(keys).enumerate() {
        let blob = layer_blob(released, layer).await?.into_blocking();
        let blob = Stoppable { blob, stop: stop.clone() };
        let message = format!("cannot unpack layer {position} ({})", layer.descriptor.digest);
        let input = layer_input(layer, key, blob)?;
        let applied = spawn_blocking(move || root.apply(input).map(|()| root));
        root =
            applied.await.or_fail(ExitCode::Other, || message.clone())?.map_err(|error| failure(&message, &error))?;
        progress.add(layer.descriptor.size);
    }
    let report = root.finish().map_err(|error| failure("cannot put the root file system in place", &error))?;
    progress.finish();
    if report.skipped_devices + report.skipped_xattrs > 0 {
        console.say(format!(
            "note: left out {} device nodes and {} extended attributes, which only root can make",
            report.skipped_devices, report.skipped_xattrs
        ));
    }
    Ok(report)
}

/// A blob that ends with an error once it is told to.
struct Stoppable {
    blob: BlockingBlob,
    stop: Arc<AtomicBool>,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("unpacking was stopped"));
        }
        self.blob.read(buffer)
    }
}

/// Writes `config.json` beside the root file system.
pub(crate) fn config(
    released: &Released,
    directory: &Path,
    network: Network,
    secrets: &[SecretFile],
) -> Result<(), Failure> {
    let options = BundleOptions {
        config: &released.image.config,
        command: &released.command,
        read_only_root: released.obligations.read_only_root,
        network,
        secrets,
        rootless: Privilege::current() == Privilege::User,
    };
    bundle::write(directory, &options)
        .or_fail(ExitCode::BadInput, || "cannot make an OCI bundle of the image".to_owned())
}

fn layer_input(layer: &Layer, key: Option<PrivateOptions>, blob: Stoppable) -> Result<LayerInput<'static>, Failure> {
    let descriptor = &layer.descriptor;
    let compression = compression(descriptor)?;
    let sealing = match (&layer.sealed, key) {
        (Some(sealed), Some(key)) => {
            let decryptor = sealed
                .decryptor(key)
                .or_fail(ExitCode::VerificationFailed, || format!("cannot decrypt the layer {}", descriptor.digest))?;
            Sealing::Sealed(Box::new(decryptor))
        }
        (None, None) => Sealing::Plain,
        _ => return Err(Failure::verification(format!("the key of the layer {} is missing", descriptor.digest))),
    };
    let diff_id = layer
        .diff_id
        .parse()
        .or_fail(ExitCode::BadInput, || format!("the image's config names `{}` as a diff_id", layer.diff_id))?;
    Ok(LayerInput { blob: Box::new(blob), sealing, compression, diff_id })
}

/// How the plain layer is compressed.
pub(crate) fn compression(layer: &Descriptor) -> Result<LayerCompression, Failure> {
    let layer_type = LayerType::parse(&layer.media_type).ok_or_else(|| {
        Failure::bad_input(format!("the layer {} is of the unknown type `{}`", layer.digest, layer.media_type))
    })?;
    Ok(match layer_type.compression {
        Compression::Gzip => LayerCompression::Gzip,
        Compression::None => LayerCompression::None,
        Compression::Zstd => LayerCompression::Zstd,
    })
}

/// An unpacking error as a command's.
pub(crate) fn failure(message: &str, error: &UnpackError) -> Failure {
    match error {
        UnpackError::Read(source) => {
            match source.get_ref().and_then(|inner| inner.downcast_ref::<image_store::Error>()) {
                Some(error) => store_failure(message, error),
                None => Failure::unavailable(message).caused_by(error),
            }
        }
        UnpackError::Check(_) | UnpackError::Cipher(_) => Failure::verification(message)
            .caused_by(error)
            .hint("the image was changed on its way; fetch it again from the vendor"),
        UnpackError::Archive(_) | UnpackError::Entry { .. } | UnpackError::Limit { .. } | UnpackError::Exists(_) => {
            Failure::bad_input(message).caused_by(error)
        }
        _ => Failure::other(message).caused_by(error),
    }
}
