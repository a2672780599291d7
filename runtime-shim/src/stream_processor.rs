//! `stream-processor`: decrypts one layer for containerd, which starts it in the place of `ctd-decoder`. containerd believes
//! an output that ends before its processor fails, so that the end comes out only once all is checked, and stdout stays
//! open until this process is gone, and where it fails until that is known.

pub(crate) mod holder;
mod payload;

use std::fs::File;
use std::os::fd::BorrowedFd;

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use ocicrypt::layer::SealedLayer;
use ocicrypt::options::PrivateOptions;
use runtime_shim::unpack::{SealedStream, relay};
use tokio::task::spawn_blocking;

pub(crate) use self::payload::Payload;
use crate::agent::protocol::ImageHint;
use crate::cli::StreamProcessorArgs;
use crate::layer_key::LayerKeys;
use crate::materialize::{compression, failure};

/// What containerd says of the layer; `None` where it says nothing.
pub(crate) fn receive() -> Result<Option<Payload>, Failure> {
    payload::receive().inspect_err(|_| holder::leave())
}

/// Decrypts stdin to stdout.
pub(crate) async fn run(args: StreamProcessorArgs, payload: Option<Payload>, console: Console) -> Result<(), Failure> {
    decrypt(args, payload, console).await.inspect_err(|_| holder::leave())
}

async fn decrypt(args: StreamProcessorArgs, payload: Option<Payload>, console: Console) -> Result<(), Failure> {
    let payload = payload.ok_or_else(payload::missing)?;
    let layer = &payload.layer;
    let keys = LayerKeys::new(args.keys, console);
    let cannot = || format!("cannot decrypt the layer {}", layer.digest);
    let layer_compression = compression(layer)?;
    if !ocicrypt::media_type::is_encrypted(&layer.media_type) {
        return Err(Failure::bad_input(format!("the layer {} is not encrypted: `{}`", layer.digest, layer.media_type)));
    }
    let sealed = SealedLayer::parse(&layer.annotations)
        .or_fail(ExitCode::BadInput, || format!("the layer {} cannot be opened by anyone", layer.digest))?;
    let private = open(&keys, &sealed, payload.image().as_ref()).await?;
    let decryptor = sealed.decryptor(private).or_fail(ExitCode::VerificationFailed, cannot)?;
    let stream = SealedStream { decryptor, compression: layer_compression, digest: layer.digest, size: layer.size };
    let mut input = unbuffered(rustix::stdio::stdin()).or_fail(ExitCode::Other, || "cannot read stdin".to_owned())?;
    let mut output =
        unbuffered(rustix::stdio::stdout()).or_fail(ExitCode::Other, || "cannot write stdout".to_owned())?;
    let relayed = spawn_blocking(move || relay(stream, &mut input, &mut output)).await;
    relayed.or_fail(ExitCode::Other, cannot)?.map(drop).map_err(|error| failure(&cannot(), &error))
}

/// The key behind the first of the layer's packets that opens.
async fn open(keys: &LayerKeys, sealed: &SealedLayer, image: Option<&ImageHint>) -> Result<PrivateOptions, Failure> {
    let mut last = None;
    for packet in &sealed.packets {
        match keys.open(packet.clone(), image.cloned()).await {
            Ok(key) => return Ok(key),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| {
        let others = sealed.other_wraps().map(|name| format!("its key is wrapped by `{name}`"));
        let failure = Failure::bad_input("no service's key opens the layer")
            .hint("ask the vendor for an image that was sealed for this shim");
        others.fold(failure, Failure::cause)
    }))
}

/// Without the standard library's buffer, which looks through all that is written for the ends of lines.
fn unbuffered(descriptor: BorrowedFd<'static>) -> std::io::Result<File> {
    descriptor.try_clone_to_owned().map(File::from)
}
