//! From a session to a root file system and an OCI bundle on disk.

use std::future::Future;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use command_line::{ByteProgress, Console, ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{BlockingBlob, Descriptor};
use ocicrypt::media_type::{Compression, LayerType};
use ocicrypt::options::PrivateOptions;
use runtime_shim::bundle::{self, BundleOptions, Network, SecretFile};
use runtime_shim::unpack::{
    self, Blob, LayerCompression, LayerError, LayerInput, Limits, OpenBlob, Privilege, RootFilesystem, Sealing,
    UnpackError, UnpackReport,
};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::image::Layer;
use crate::session::Released;
use crate::stop::Stop;

/// Fetches, checks and unpacks all layers; the root file system is at `target` when this returns and not before.
///
/// `stop` ends it early, wherever it is.
pub(crate) async fn root_filesystem(
    released: &mut Released,
    target: &Path,
    stop: &Arc<Stop>,
    console: &Console,
) -> Result<UnpackReport, Failure> {
    let root = RootFilesystem::create(target, Limits::default(), Privilege::current())
        .map_err(|error| failure("cannot start to unpack", &error))?;
    let unpack = move |layers: Vec<LayerInput>, on_failure: &(dyn Fn(usize) + Sync)| {
        let mut root = root;
        root.apply(layers, on_failure).map(|()| root)
    };
    let root = with_layers(released, "unpack", stop, console, unpack).await?;
    let report = root.finish().map_err(|error| failure("cannot put the root file system in place", &error))?;
    if report.skipped_devices + report.skipped_xattrs > 0 {
        console.say(format!(
            "note: left out {} device nodes and {} extended attributes, which only root can make",
            report.skipped_devices, report.skipped_xattrs
        ));
    }
    Ok(report)
}

/// Fetches and checks all layers and writes nothing; gives the bytes of each plain tar.
pub(crate) async fn verify(released: &mut Released, console: &Console) -> Result<Vec<u64>, Failure> {
    let verify = |layers: Vec<LayerInput>, on_failure: &(dyn Fn(usize) + Sync)| {
        unpack::verify(layers, Limits::default(), on_failure)
    };
    with_layers(released, "verify", &Arc::default(), console, verify).await
}

/// Has all layers requested, and the blocking `work` done on them.
async fn with_layers<T: Send + 'static>(
    released: &mut Released,
    verb: &str,
    stop: &Arc<Stop>,
    console: &Console,
    work: impl FnOnce(Vec<LayerInput>, &(dyn Fn(usize) + Sync)) -> Result<T, LayerError> + Send + 'static,
) -> Result<T, Failure> {
    let total = released.image.layers.iter().map(|layer| layer.descriptor.size).sum();
    let progress = console.byte_progress(&format!("{verb}ing"), total);
    let keys = std::mem::take(&mut released.layer_keys);
    let layers = released.image.layers.iter().zip(keys).enumerate();
    let layers = layers.map(|(number, (layer, key))| {
        let stopped = stop.of_layer(number);
        layer_input(layer, key, opener(released, layer, stopped, &progress))
    });
    let layers: Vec<_> = layers.collect::<Result<_, _>>()?;
    let on_failure = stop.clone();
    let done = spawn_blocking(move || work(layers, &|layer| on_failure.all_but(layer))).await;
    progress.finish();
    done.or_fail(ExitCode::Other, || format!("cannot {verb} the layers"))?.map_err(
        |LayerError { layer, error, .. }| {
            let digest = released.image.layers.get(layer).map(|layer| layer.descriptor.digest.to_string());
            failure(&format!("cannot {verb} layer {layer} ({})", digest.unwrap_or_default()), &error)
        },
    )
}

/// Requests a layer, on the thread that will read it: the first request for it, and only after the keys are here.
fn opener(
    released: &Released,
    layer: &Layer,
    stopped: impl Future<Output = ()> + Send + 'static,
    progress: &ByteProgress,
) -> OpenBlob {
    let (store, descriptor, progress) = (released.store.clone(), layer.descriptor.clone(), progress.clone());
    let runtime = Handle::current();
    Box::new(move || {
        let mut stopped = Box::pin(stopped);
        let (stream, check) = runtime.block_on(async {
            tokio::select! {
                opened = store.unverified_blob(&descriptor) => Ok(opened?),
                () = &mut stopped => Err(io::Error::other("reading was stopped")),
            }
        })?;
        let _inside = runtime.enter();
        let blob = stream.into_blocking().stopped_by(stopped);
        Ok(Blob { reader: Box::new(Counted { blob, progress }), check: Some(check) })
    })
}

/// A blob whose bytes a progress bar counts.
struct Counted {
    blob: BlockingBlob,
    progress: ByteProgress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.blob.read(buffer)?;
        self.progress.add(bytes as u64);
        Ok(bytes)
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

fn layer_input(layer: &Layer, key: Option<PrivateOptions>, open: OpenBlob) -> Result<LayerInput, Failure> {
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
    Ok(LayerInput { open, sealing, compression, diff_id, confinement: layer.confinement.clone() })
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
