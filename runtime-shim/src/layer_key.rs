//! The key of one layer, for the faces that other tools call: from the node's agent, or, with a licence at hand, by the same
//! road as `unpack`: the image's signature, the guest's evidence, the licence. The lease is given back at once: nothing
//! runs here.

use std::fs::File;
use std::path::{Path, PathBuf};

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use image_store::ImageReference;
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Packet};
use tokio::task::spawn_blocking;

use crate::agent::client::AgentClient;
use crate::agent::protocol::ImageHint;
use crate::cli::{ImageArgs, LayerKeyArgs, OpeningArgs};
use crate::session::{self, Released, Session};

/// Where the keys of layers come from.
pub(crate) struct LayerKeys {
    road: Road,
    /// The image that is opened, where its name was given.
    image: Option<ImageReference>,
}

enum Road {
    Agent(AgentClient),
    Own { license: PathBuf, opening: Box<OpeningArgs>, console: Console },
}

impl LayerKeys {
    /// The road that the command line names.
    pub(crate) fn new(args: LayerKeyArgs, console: Console) -> Self {
        let LayerKeyArgs { agent, reference: image, license, opening } = args;
        let road = match license {
            Some(license) => Road::Own { license, opening: Box::new(opening), console },
            None => Road::Agent(AgentClient::new(agent.socket)),
        };
        Self { road, image }
    }

    /// The key of the layer with this packet, of the image that was named at the start, or else of the one that the
    /// calling tool names.
    pub(crate) async fn open(&self, packet: Packet, named: Option<ImageHint>) -> Result<PrivateOptions, Failure> {
        // Nothing is asked of anybody before the packet is found usable.
        let packet = known(packet)?;
        let image = self.image.as_ref().map(hint).or(named);
        match &self.road {
            Road::Agent(agent) => agent.unwrap(&packet, image).await,
            Road::Own { license, opening, console } => {
                let image = image.ok_or_else(|| {
                    Failure::usage("which image is decrypted is not known")
                        .hint("name it by `--image` or SEALIFT_IMAGE")
                })?;
                own_key(&packet, image.reference()?, license, opening, console).await
            }
        }
    }
}

fn hint(image: &ImageReference) -> ImageHint {
    ImageHint { reference: image.to_string(), manifest_digest: None }
}

async fn own_key(
    packet: &BrokerPacket,
    reference: ImageReference,
    license: &Path,
    opening: &OpeningArgs,
    console: &Console,
) -> Result<PrivateOptions, Failure> {
    let _turn = turn(license.to_owned()).await?;
    let image = ImageArgs::licensed(reference, license, opening);
    let Session { released, held } = session::open(&image, &[], console).await?;
    let key = layer_key(released, packet);
    held.release().await;
    key
}

/// Waits for this guest's other calls with the same licence, until the file is dropped: tools ask for all layers at once,
/// and each call takes a seat while it lasts.
async fn turn(license: PathBuf) -> Result<File, Failure> {
    let locked = spawn_blocking(move || lock(&license)).await;
    locked.or_fail(ExitCode::Other, || "cannot wait for the other calls".to_owned())?
}

fn lock(license: &Path) -> Result<File, Failure> {
    let cannot = || format!("cannot lock the licence `{}`", license.display());
    let file = File::open(license).or_fail(ExitCode::BadInput, cannot)?;
    file.lock().or_fail(ExitCode::Other, cannot)?;
    Ok(file)
}

fn known(packet: Packet) -> Result<BrokerPacket, Failure> {
    match packet {
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
