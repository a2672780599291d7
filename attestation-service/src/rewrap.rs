//! Layers' keys under another image key. Whoever asks sees neither: what opens a layer stays in the service.

use std::collections::{BTreeMap, BTreeSet};

use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::jwe::{self, Recipient};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Kid, Packet};
use release_protocol::{ProductName, ResourcePath};

use crate::administration::KeptKey;
use crate::api::{Rewrap, Rewrapped, RewrappedLayer};
use crate::service::{Service, ServiceError};
use crate::store::{Rewrapping, StoreError};

/// The most packets of one request: more than any image has layers.
pub(crate) const PACKETS_MAX: usize = 1024;
/// The most recipients.
const RECIPIENTS_MAX: usize = 32;

impl Service {
    /// Wraps the layers that `request` names under a new image key of `product`, which is pending until it is bound.
    pub(crate) async fn rewrap(&self, product: &ProductName, request: Rewrap) -> Result<Rewrapped, ServiceError> {
        let Rewrap { id, image, packets, recipients } = request;
        if !(1..=PACKETS_MAX).contains(&packets.len()) || recipients.len() > RECIPIENTS_MAX {
            return Err(bad(format!(
                "1 to {PACKETS_MAX} layers are wrapped at a time, for {RECIPIENTS_MAX} recipients at the most"
            )));
        }
        let recipients = recipients
            .iter()
            .map(|pem| Recipient::from_pem(pem).map_err(|error| bad(format!("a recipient cannot be used: {error}"))))
            .collect::<Result<Vec<_>, _>>()?;
        let path = ResourcePath::image_key(product.clone(), &id).map_err(|error| bad(format!("`{id}`: {error}")))?;
        let kek = KeyEncryptionKey::generate().map_err(|_| library())?;
        let mut opener = Opener::new(self, product);
        let mut layers = Vec::with_capacity(packets.len());
        for packet in &packets {
            let (kid, private) = opener.open(packet).await?;
            // Guests ask where they asked before.
            let kid = Kid::new(kid.authority(), [product.as_str(), ResourcePath::IMAGE_KEY, &id])
                .map_err(|error| bad(format!("`{id}`: {error}")))?;
            let packet = BrokerPacket::seal(&kid, &kek, &private).map_err(|_| library())?.to_annotation();
            let message = match recipients.as_slice() {
                [] => None,
                recipients => Some(jwe::to_annotation(&jwe::seal(&private, recipients).map_err(|_| library())?)),
            };
            layers.push(RewrappedLayer { packet, message });
        }
        let rewrapping = Rewrapping {
            from: opener.used(),
            recipients: recipients.iter().map(|recipient| recipient.key().thumbprint()).collect(),
            import_key: None,
        };
        // The key is new: one that is there under this id is another.
        let kept = KeptKey { id: &id, kek: kek.expose(), image: &image, manifests: &[], rewrapped: Some(&rewrapping) };
        self.keep_key(&path, kept).await?;
        Ok(Rewrapped { layers })
    }
}

/// Opens packets; each key is looked up once.
pub(crate) struct Opener<'a> {
    service: &'a Service,
    product: &'a ProductName,
    keys: BTreeMap<String, KeyEncryptionKey>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(service: &'a Service, product: &'a ProductName) -> Self {
        Self { service, product, keys: BTreeMap::new() }
    }

    /// The keys that packets were opened with.
    pub(crate) fn used(self) -> BTreeSet<String> {
        self.keys.into_keys().collect()
    }

    pub(crate) async fn open(&mut self, element: &str) -> Result<(Kid, PrivateOptions), ServiceError> {
        let packet = match Packet::from_annotation(element) {
            Ok(Packet::Broker(packet)) => packet,
            Ok(other) => return Err(bad(format!("a packet of another kind: {other:?}"))),
            Err(error) => return Err(bad(error.to_string())),
        };
        let kid = packet.kid().clone();
        let [product, kind, id] = kid.parts();
        if product != self.product.as_str() || kind != ResourcePath::IMAGE_KEY {
            return Err(bad(format!("`{kid}` is no image key of {}", self.product)));
        }
        if !self.keys.contains_key(id) {
            let kek = self.key(id).await?;
            self.keys.insert(id.to_owned(), kek);
        }
        let json = self.keys.get(id).and_then(|kek| packet.open(kek));
        let json = json.ok_or_else(|| bad(format!("`{kid}` does not open its packet")))?;
        let private = PrivateOptions::from_json(&json)
            .map_err(|error| bad(format!("what `{kid}` wraps cannot be used: {error}")))?;
        Ok((kid, private))
    }

    async fn key(&self, id: &str) -> Result<KeyEncryptionKey, ServiceError> {
        let path =
            ResourcePath::image_key(self.product.clone(), id).map_err(|error| bad(format!("`{id}`: {error}")))?;
        let sealed = self.service.store.sealed_key(self.product, id).await?;
        let sealed = sealed.ok_or_else(|| StoreError::Unknown { kind: "image key", name: id.to_owned() })?;
        let key = self.service.custodian.unwrap(&sealed, &path.to_string()).await?;
        KeyEncryptionKey::try_from(key.as_slice()).map_err(|_| ServiceError::Store(StoreError::Value("image key")))
    }
}

pub(crate) fn bad(why: String) -> ServiceError {
    ServiceError::BadRequest(why)
}

pub(crate) fn library() -> ServiceError {
    ServiceError::Custody(crate::custody::CustodyError::Library)
}
