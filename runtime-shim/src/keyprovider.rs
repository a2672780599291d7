//! `keyprovider`: gives skopeo, buildah and podman the key of one layer, by the same road as `unpack`: the image's
//! signature, the guest's evidence, the licence. The lease is given back at once: nothing runs here.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use ocicrypt::keyprovider::{Answer, PROVIDER, Request};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Packet};

use crate::cli::{ImageArgs, KeyProviderArgs};
use crate::session::{self, Released, Session};

pub(crate) async fn run(args: KeyProviderArgs, console: &Console) -> Result<(), Failure> {
    let packet = asked_packet()?;
    let KeyProviderArgs { reference, license, opening } = args;
    let _turn = turn(&license)?;
    let image = ImageArgs { reference, license, opening };
    let Session { released, holder } = session::open(&image, &[], console).await?;
    let key = layer_key(released, &packet);
    holder.release().await;
    let answer = Answer::Unwrapped(key?);
    std::io::stdout().write_all(answer.to_json().as_bytes()).or_fail(ExitCode::Other, || "cannot answer".to_owned())
}

/// Waits for this guest's other calls with the same licence, until the file is dropped: tools ask for all layers at once,
/// and each call takes a seat while it lasts.
fn turn(license: &Path) -> Result<File, Failure> {
    let cannot = || format!("cannot lock the licence `{}`", license.display());
    let file = File::open(license).or_fail(ExitCode::BadInput, cannot)?;
    file.lock().or_fail(ExitCode::Other, cannot)?;
    Ok(file)
}

/// The packet that another tool wants to have opened. Nothing is asked of anybody before it is found usable.
fn asked_packet() -> Result<BrokerPacket, Failure> {
    let request =
        Request::read(std::io::stdin()).or_fail(ExitCode::BadInput, || "cannot answer the request".to_owned());
    let hint = format!("this program is run by skopeo, buildah or podman as the key provider `{PROVIDER}`");
    let Request::Unwrap(request) = request.map_err(|failure| failure.hint(hint))? else {
        return Err(Failure::usage("the customer's key provider opens keys and wraps none")
            .hint("images are encrypted with `sealift keyprovider`"));
    };
    match request.packet {
        Packet::Broker(packet) => Ok(packet),
        Packet::Unsupported(packet) => {
            Err(Failure::bad_input(format!("the layer's key packet is of an unknown kind: {packet}")))
        }
        _ => Err(Failure::bad_input("the layer's key packet is of an unknown kind")),
    }
}

/// The key of the layer that carries the packet. A packet of another image is not opened, whoever wrapped it: what the
/// guest stated in its evidence is this image.
fn layer_key(released: Released, packet: &BrokerPacket) -> Result<PrivateOptions, Failure> {
    let wanted = packet.to_json();
    let is_wanted =
        |candidate: &Packet| matches!(candidate, Packet::Broker(candidate) if candidate.to_json() == wanted);
    let Released { image, layer_keys, .. } = released;
    let layers = image.layers.iter().zip(layer_keys);
    let found = layers
        .filter(|(layer, _)| layer.sealed.as_ref().is_some_and(|sealed| sealed.packets.iter().any(is_wanted)))
        .find_map(|(_, key)| key);
    found.ok_or_else(|| {
        Failure::verification(format!("no layer of the image {} has the key packet", image.manifest_digest))
            .hint("name the image that is decrypted by `--image` or SEALIFT_IMAGE")
    })
}
