//! Keys of layers: which image a packet is of, and the key under a licence that was judged for this very answer. Keys lie in
//! memory that is locked, as all of the agent's is, and are wiped when they go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use command_line::{ExitCode, Failure, FailureContext as _};
use image_store::ImageReference;
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Packet};

use super::Agent;
use super::licenses::Turn;
use super::protocol::{ImageHint, UnwrapRequest};
use super::record::KnownImage;
use crate::image::SignedImage;
use crate::session::LeaseHolder;
use crate::supervise::Deadlines;

/// The sealed images that were opened since the agent was started, by the packets of their layers.
#[derive(Default)]
pub(crate) struct Openables {
    by_packet: Mutex<HashMap<String, (Arc<Openable>, usize)>>,
}

/// A sealed image whose manifest was read and whose signature holds.
struct Openable {
    known: Arc<KnownImage>,
    image: SignedImage,
    /// One for each layer, once they were released.
    keys: Mutex<Option<Vec<Option<PrivateOptions>>>>,
    /// How many requests for its keys are under way.
    asking: AtomicUsize,
    /// The attestation that they share; the last of them gives its lease back, since nothing runs under it.
    attestation: tokio::sync::Mutex<Option<Attestation>>,
}

struct Attestation {
    holder: LeaseHolder,
    deadlines: Deadlines,
    _turn: Turn,
}

impl Agent {
    /// The key of the layer that carries the packet.
    pub(crate) async fn unwrap(&self, request: &UnwrapRequest) -> Result<PrivateOptions, Failure> {
        let packet = Packet::from_json(request.packet.as_bytes());
        let packet = match packet.or_fail(ExitCode::BadInput, || "the key packet cannot be used".to_owned())? {
            Packet::Broker(packet) => packet,
            Packet::Unsupported(packet) => {
                return Err(Failure::bad_input(format!("the layer's key packet is of an unknown kind: {packet}")));
            }
            _ => return Err(Failure::bad_input("the layer's key packet is of an unknown kind")),
        };
        let (image, layer) = self.find(&packet, request.image.as_ref()).await?;
        if self.containers.has_live_lease(&image.known.manifest_digest)
            && let Some(key) = image.key(layer)
        {
            return Ok(key);
        }
        image.asking.fetch_add(1, Ordering::SeqCst);
        let mut attestation = image.attestation.lock().await;
        let key = self.judged_key(&image, layer, &mut attestation).await;
        if image.asking.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(Attestation { holder, .. }) = attestation.take()
        {
            holder.release().await;
        }
        key
    }

    /// The key, with the licence judged now or for a request that was under way at the same time.
    async fn judged_key(
        &self,
        image: &Openable,
        layer: usize,
        attestation: &mut Option<Attestation>,
    ) -> Result<PrivateOptions, Failure> {
        if attestation.as_ref().is_none_or(|attestation| attestation.deadlines.left().is_zero()) {
            let command = image.image.command(&[]);
            let held = self.licenses.hold(&image.known, &command).await;
            if held.as_ref().is_err_and(|failure| failure.code != ExitCode::Unavailable) {
                image.wipe();
            }
            let held = held?;
            *attestation = Some(Attestation { holder: held.holder, deadlines: held.deadlines, _turn: held.turn });
        }
        if let Some(key) = image.key(layer) {
            return Ok(key);
        }
        let attestation = attestation.as_ref().ok_or_else(|| Failure::other("there is no attestation"))?;
        let keys = attestation.holder.fetch_keys(&image.image.key_paths()?).await?;
        let keys = image.image.unwrap(&keys)?;
        *image.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        image.key(layer).ok_or_else(|| Failure::verification("the layer of the key packet is plain"))
    }

    /// The image whose layer carries the packet: the one that is hinted at, or one of those that this node may open. A packet
    /// of another image is not opened, whoever wrapped it: what the guest states in its evidence is this image.
    async fn find(&self, packet: &BrokerPacket, hint: Option<&ImageHint>) -> Result<(Arc<Openable>, usize), Failure> {
        let packet = packet.to_json();
        if let Some(found) = self.openables.find(&packet, hint) {
            return Ok(found);
        }
        let Some(hint) = hint else {
            let mut failed = None;
            for reference in &self.images {
                // Tags move: each is read again.
                if let Err(failure) = self.open(reference).await {
                    failed = failed.or(Some(failure));
                }
                if let Some(found) = self.openables.find(&packet, None) {
                    return Ok(found);
                }
            }
            return Err(failed.unwrap_or_else(|| {
                Failure::verification("no image that this node's agent was told of has the key packet")
                    .hint("start the agent with `--image REF` for each image that this node may open")
            }));
        };
        self.open(&hint.reference()?).await?;
        self.openables.find(&packet, Some(hint)).ok_or_else(|| {
            Failure::verification(format!("no layer of the image `{}` has the key packet", hint.reference))
                .hint("name the image that is decrypted by `--image` or SEALIFT_IMAGE")
        })
    }

    /// Reads an image's manifest, checks its signature, and remembers it.
    pub(crate) async fn open(&self, reference: &ImageReference) -> Result<Arc<KnownImage>, Failure> {
        let opening = self.licenses.opening();
        let store = opening.registry.open(reference).await?;
        let image = SignedImage::open(&store, &self.licenses.signers()?, opening.platform.as_deref()).await?;
        let known = self.known.remember(KnownImage::of(reference.to_string(), &image)?)?;
        self.openables.add(Arc::clone(&known), image);
        Ok(known)
    }
}

impl Openables {
    fn add(&self, known: Arc<KnownImage>, image: SignedImage) {
        let mut by_packet = self.by_packet.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = by_packet.values().any(|(open, _)| open.known.manifest_digest == known.manifest_digest);
        if is_there {
            return;
        }
        let packets: Vec<(String, usize)> = image
            .layers
            .iter()
            .enumerate()
            .flat_map(|(layer, found)| {
                let packets = found.sealed.iter().flat_map(|sealed| &sealed.packets);
                packets.filter_map(move |packet| match packet {
                    Packet::Broker(packet) => Some((packet.to_json(), layer)),
                    _ => None,
                })
            })
            .collect();
        let open = Arc::new(Openable {
            known,
            image,
            keys: Mutex::default(),
            asking: AtomicUsize::default(),
            attestation: tokio::sync::Mutex::default(),
        });
        by_packet.extend(packets.into_iter().map(|(packet, layer)| (packet, (Arc::clone(&open), layer))));
    }

    fn find(&self, packet: &str, hint: Option<&ImageHint>) -> Option<(Arc<Openable>, usize)> {
        let by_packet = self.by_packet.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, layer) = by_packet.get(packet)?;
        let wanted = hint.and_then(|hint| hint.manifest_digest.as_ref());
        let is_it = wanted.is_none_or(|digest| *digest == open.known.manifest_digest);
        is_it.then(|| (Arc::clone(open), *layer))
    }
}

impl Openable {
    fn key(&self, layer: usize) -> Option<PrivateOptions> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // Options have no copies of themselves: they are written and read, through memory that is wiped.
        let json = keys.as_ref()?.get(layer)?.as_ref()?.to_json();
        PrivateOptions::from_json(json.as_bytes()).ok()
    }

    /// Lets go of the keys: the licence does not give them any more.
    fn wipe(&self) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
