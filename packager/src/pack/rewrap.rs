//! Sealed layers under another image key: for another customer, or in another image. The layers stay as they are; the service
//! wraps their keys anew and shows none.

use std::collections::BTreeMap;

use attestation_service::api::{
    ExportedKeys, ImportKey, KeyExport, KeyImport, KeyManifests, Rewrap, Rewrapped, SealedManifest,
};
use command_line::Failure;
use image_store::{Descriptor, Digest};
use ocicrypt::layer::{SealedLayer, replace_packets};
use ocicrypt::packet::{Kid, Packet};
use release_protocol::{ProductName, ResourcePath};

use crate::client::AdminClient;

/// Layers whose keys were wrapped anew, under an image key that is pending.
pub(crate) struct Rewrapping {
    product: ProductName,
    key_id: String,
    image: String,
    /// By the digest of the sealed layer.
    layers: BTreeMap<Digest, Descriptor>,
}

impl Rewrapping {
    /// Has the service wrap the keys of those `layers` that are sealed to a key of `product`, and for these public keys
    /// (PEM), too. `None` where there is no such layer.
    pub(crate) async fn of<'a>(
        client: &AdminClient,
        product: &ProductName,
        image: &str,
        layers: impl IntoIterator<Item = &'a Descriptor>,
        recipients: Vec<String>,
    ) -> Result<Option<Self>, Failure> {
        let authority = client.key_authority()?;
        let found = found(product, &authority, layers)?;
        if found.is_empty() {
            return Ok(None);
        }
        let key_id = uuid::Uuid::now_v7().to_string();
        let packets = found.values().map(|(_, packet)| packet.clone()).collect();
        let request = Rewrap { id: key_id.clone(), image: image.to_owned(), packets, recipients };
        let rewrapped: Rewrapped = client.post(&format!("/products/{product}/keys/rewrap"), &request).await?;
        let layers = replaced(found, product, &authority, rewrapped)?;
        Ok(Some(Self { product: product.clone(), key_id, image: image.to_owned(), layers }))
    }

    /// The same under a key of another service: it makes a key to import them by, this one's service encrypts them to that.
    /// What passes through here opens by neither.
    pub(crate) async fn across<'a>(
        (from, to): (&AdminClient, &AdminClient),
        product: &ProductName,
        image: &str,
        layers: impl IntoIterator<Item = &'a Descriptor>,
    ) -> Result<Option<Self>, Failure> {
        let authority = from.key_authority()?;
        let found = found(product, &authority, layers)?;
        if found.is_empty() {
            return Ok(None);
        }
        let keys = format!("/products/{product}/keys");
        let import: ImportKey = to.post(&format!("{keys}/import-key"), &()).await?;
        let export = KeyExport {
            image: image.to_owned(),
            packets: found.values().map(|(_, packet)| packet.clone()).collect(),
            recipient: import.public_key,
        };
        let ExportedKeys { messages } = from.post(&format!("{keys}/export"), &export).await?;
        let key_id = uuid::Uuid::now_v7().to_string();
        let request = KeyImport { id: key_id.clone(), image: image.to_owned(), import_key: import.id, messages };
        let layers = replaced(found, product, &authority, to.post(&format!("{keys}/import"), &request).await?)?;
        Ok(Some(Self { product: product.clone(), key_id, image: image.to_owned(), layers }))
    }

    /// The layer as it is now; `None` where it is not one of ours.
    pub(crate) fn layer(&self, digest: &Digest) -> Option<&Descriptor> {
        self.layers.get(digest)
    }

    /// How many layers there are.
    pub(crate) fn len(&self) -> usize {
        self.layers.len()
    }

    /// The new key's id.
    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Lets the new key open these manifests.
    pub(crate) async fn bind(&self, client: &AdminClient, manifests: &[SealedManifest]) -> Result<(), Failure> {
        let path = format!("/products/{}/keys/{}/manifests", self.product, self.key_id);
        client.submit(&path, &KeyManifests { image: self.image.clone(), manifests: manifests.to_vec() }).await
    }
}

/// By the digest of the sealed layer: the layer, and the packet of it that a key of the product opens.
type Found = BTreeMap<Digest, (Descriptor, String)>;

/// Those layers that are sealed to a key of the product at the service `authority`.
fn found<'a>(
    product: &ProductName,
    authority: &str,
    layers: impl IntoIterator<Item = &'a Descriptor>,
) -> Result<Found, Failure> {
    let mut found = BTreeMap::new();
    for layer in layers {
        if let Some(packet) = packet(layer, |kid| is_key_of(kid, product, authority))? {
            found.insert(layer.digest, (layer.clone(), packet));
        }
    }
    Ok(found)
}

/// The layers with their new packets.
fn replaced(
    mut found: Found,
    product: &ProductName,
    authority: &str,
    rewrapped: Rewrapped,
) -> Result<BTreeMap<Digest, Descriptor>, Failure> {
    if rewrapped.layers.len() != found.len() {
        return Err(Failure::other("the service wrapped another number of layers than it was asked to"));
    }
    for ((layer, _), new) in found.values_mut().zip(rewrapped.layers) {
        let is_ours = |kid: &Kid| is_key_of(kid, product, authority);
        replace_packets(&mut layer.annotations, is_ours, &new.packet, new.message.as_deref());
    }
    Ok(found.into_iter().map(|(digest, (layer, _))| (digest, layer)).collect())
}

/// Whether it is an image key of the product at the service `authority`.
pub(super) fn is_key_of(kid: &Kid, product: &ProductName, authority: &str) -> bool {
    let [of, kind, _] = kid.parts();
    kid.authority() == authority && of == product.as_str() && kind == ResourcePath::IMAGE_KEY
}

/// The packet of the layer that one of our keys opens.
fn packet(layer: &Descriptor, is_ours: impl Fn(&Kid) -> bool) -> Result<Option<String>, Failure> {
    if !ocicrypt::media_type::is_encrypted(&layer.media_type) {
        return Ok(None);
    }
    let sealed = SealedLayer::parse(&layer.annotations).map_err(|error| {
        Failure::bad_input(format!("the layer {} cannot be opened by anyone", layer.digest)).caused_by(&error)
    })?;
    Ok(sealed.packets.iter().find_map(|packet| match packet {
        Packet::Broker(packet) if is_ours(packet.kid()) => Some(packet.to_annotation()),
        _ => None,
    }))
}
