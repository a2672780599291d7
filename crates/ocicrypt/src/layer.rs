//! The annotations of an encrypted layer's descriptor as one value: made when a layer is sealed,
//! read when it is opened. Start here; the modules beside it are the parts.

use std::collections::BTreeMap;

use crate::cipher::{CipherError, LayerDecryptor, by_name};
use crate::jwe::{self, DecryptionKey, JweError, Recipient};
use crate::options::{self, OptionsError, PrivateOptions, PublicOptions};
use crate::packet::{self, BrokerPacket, Kid, Packet, PacketError, UnsupportedPacket};
use crate::secret::KeyEncryptionKey;

/// What all annotations of the format begin with.
pub const ANNOTATION_PREFIX: &str = "org.opencontainers.image.enc.";

/// The longest annotation that is read, in bytes.
const ANNOTATION_MAX: usize = 256 * 1024;
/// The most packets, and the most JWE messages, that one layer may have.
const WRAPS_MAX: usize = 32;

/// Why a layer could not be sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The key could not be encrypted for the recipients.
    #[error(transparent)]
    Jwe(#[from] JweError),
    /// Nothing wraps the key: nobody could ever open the layer.
    #[error("nobody was named who may open the layer")]
    NoWrap,
    /// The key could not be wrapped.
    #[error(transparent)]
    Packet(#[from] PacketError),
}

/// Why a descriptor's annotations are none of an encrypted layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseLayerError {
    /// The public options are missing.
    #[error("the layer has no public options (`{}`)", options::ANNOTATION)]
    NoPublicOptions,
    /// The public options are not usable.
    #[error("the layer's public options are not usable")]
    PublicOptions(#[source] OptionsError),
    /// A key packet is malformed.
    #[error("the layer's key packets are not usable")]
    Packet(#[source] PacketError),
    /// A JWE is malformed.
    #[error("the layer's encrypted keys are not usable")]
    Jwe(#[source] JweError),
    /// No key, for anyone.
    #[error("the layer has no wrapped key")]
    NoWrap,
    /// More than 256 KiB in one annotation, or more than 32 keys.
    #[error("the layer's annotation `{name}` is too long")]
    TooLong {
        /// The annotation.
        name: String,
    },
}

/// Why no key opened a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// None of the layer's wrapped keys opens with this one, or they were changed.
    #[error("this key does not open the layer")]
    Key,
    /// A wrapped key opened, but what is inside is not usable.
    #[error("the layer's private options are not usable")]
    PrivateOptions(#[source] OptionsError),
    /// No wrapped key opens, and there is one in a form that is not known here.
    #[error("this key does not open the layer, and one of its key packets is of an unknown kind: {0}")]
    Unsupported(UnsupportedPacket),
}

/// Makes the annotations of a sealed layer.
#[derive(Debug)]
#[must_use]
pub struct LayerAnnotations<'a> {
    public: PublicOptions,
    private: &'a PrivateOptions,
    wraps: BTreeMap<String, Vec<String>>,
}

impl<'a> LayerAnnotations<'a> {
    /// Begins with the options that the layer's encryptor gave.
    pub fn new(public: PublicOptions, private: &'a PrivateOptions) -> Self {
        Self { public, private, wraps: BTreeMap::new() }
    }

    /// Lets everyone open the layer who gets `kek` from the key broker under `kid`.
    pub fn with_kek(mut self, kid: &Kid, kek: &KeyEncryptionKey) -> Result<Self, SealError> {
        let packet = BrokerPacket::seal(kid, kek, self.private)?;
        self.push(packet::ANNOTATION, packet.to_annotation());
        Ok(self)
    }

    /// Lets the owners of these public keys open the layer. An empty list adds nothing.
    pub fn with_recipients(mut self, recipients: &[Recipient]) -> Result<Self, SealError> {
        if !recipients.is_empty() {
            let message = jwe::seal(self.private, recipients)?;
            self.push(jwe::ANNOTATION, jwe::to_annotation(&message));
        }
        Ok(self)
    }

    /// Keeps everyone who could open `sealed`, the same layer, already. Call it first to keep the
    /// order in which other tools try them.
    pub fn keeping(mut self, sealed: &SealedLayer) -> Self {
        for (name, elements) in &sealed.wraps {
            for element in elements.split(',') {
                self.push(name, element.to_owned());
            }
        }
        self
    }

    /// The annotations. Those that the descriptor has beside them stay the caller's.
    ///
    /// # Errors
    /// [`SealError::NoWrap`] when nobody could open the layer.
    pub fn build(self) -> Result<BTreeMap<String, String>, SealError> {
        if self.wraps.is_empty() {
            return Err(SealError::NoWrap);
        }
        let mut annotations: BTreeMap<_, _> =
            self.wraps.into_iter().map(|(name, elements)| (name, elements.join(","))).collect();
        annotations.insert(options::ANNOTATION.to_owned(), self.public.to_annotation());
        Ok(annotations)
    }

    fn push(&mut self, annotation: &str, element: String) {
        let elements = self.wraps.entry(annotation.to_owned()).or_default();
        elements.push(element);
    }
}

/// The annotations of an encrypted layer, read and bounded, not yet opened.
#[derive(Clone, Debug)]
pub struct SealedLayer {
    /// The public options.
    pub public: PublicOptions,
    /// The packets for a key broker's keys, in the image's order.
    pub packets: Vec<Packet>,
    /// The messages for public keys, in the image's order.
    pub jwe: Vec<jose::jwe::Jwe>,
    /// Every annotation that wraps the key, ours and others', as it came.
    wraps: BTreeMap<String, String>,
}

impl SealedLayer {
    /// Reads a descriptor's annotations; those of other matters are passed over.
    pub fn parse<K, V>(annotations: impl IntoIterator<Item = (K, V)>) -> Result<Self, ParseLayerError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut public = None;
        let mut wraps = BTreeMap::new();
        for (name, value) in annotations {
            let (name, value) = (name.as_ref(), value.as_ref());
            if value.len() > ANNOTATION_MAX && is_encryption_annotation(name) {
                return Err(too_long(name));
            }
            if name == options::ANNOTATION {
                let options = PublicOptions::from_annotation(value);
                public = Some(options.map_err(ParseLayerError::PublicOptions)?);
            } else if name.starts_with(KEYS_PREFIX) {
                wraps.insert(name.to_owned(), value.to_owned());
            }
        }
        let public = public.ok_or(ParseLayerError::NoPublicOptions)?;
        if wraps.is_empty() {
            return Err(ParseLayerError::NoWrap);
        }
        let mut packets = elements(&wraps, packet::ANNOTATION)?;
        packets.extend(elements(&wraps, packet::OWN_ANNOTATION)?);
        let packets = packets
            .into_iter()
            .map(Packet::from_annotation)
            .collect::<Result<_, _>>()
            .map_err(ParseLayerError::Packet)?;
        let jwe = elements(&wraps, jwe::ANNOTATION)?
            .into_iter()
            .map(jwe::from_annotation)
            .collect::<Result<_, _>>()
            .map_err(ParseLayerError::Jwe)?;
        Ok(Self { public, packets, jwe, wraps })
    }

    /// Where a key broker has keys that open the layer.
    pub fn kids(&self) -> impl Iterator<Item = &Kid> {
        self.packets.iter().filter_map(|packet| match packet {
            Packet::Broker(packet) => Some(packet.kid()),
            Packet::Unsupported(_) => None,
        })
    }

    /// Packets of a key broker's annotation that are not for us: another provider or way of wrapping.
    pub fn unsupported(&self) -> impl Iterator<Item = &UnsupportedPacket> {
        self.packets.iter().filter_map(|packet| match packet {
            Packet::Broker(_) => None,
            Packet::Unsupported(packet) => Some(packet),
        })
    }

    /// The names of the annotations that wrap the key in ways that are not opened here: PGP,
    /// PKCS #7, PKCS #11, other key providers.
    pub fn other_wraps(&self) -> impl Iterator<Item = &str> {
        let opened = [packet::ANNOTATION, packet::OWN_ANNOTATION, jwe::ANNOTATION];
        self.wraps.keys().map(String::as_str).filter(move |name| !opened.contains(name))
    }

    /// Opens the layer with a key-encryption key.
    pub fn open_with_kek(&self, kek: &KeyEncryptionKey) -> Result<PrivateOptions, OpenError> {
        let mut unsupported = None;
        for packet in &self.packets {
            match packet {
                Packet::Broker(packet) => {
                    if let Some(json) = packet.open(kek) {
                        return read_private(&json);
                    }
                }
                Packet::Unsupported(packet) => unsupported = Some(packet),
            }
        }
        Err(unsupported.map_or(OpenError::Key, |packet| OpenError::Unsupported(packet.clone())))
    }

    /// Opens the layer with a private key.
    pub fn open_with_key(&self, key: &DecryptionKey) -> Result<PrivateOptions, OpenError> {
        match self.jwe.iter().find_map(|message| message.decrypt(key).ok()) {
            Some(json) => read_private(&json),
            None => Err(OpenError::Key),
        }
    }

    /// Starts to decrypt the layer.
    pub fn decryptor(&self, private: PrivateOptions) -> Result<LayerDecryptor, CipherError> {
        by_name(self.public.cipher())?.decryptor(&self.public, private)
    }
}

/// Whether an annotation belongs to the format, and goes away when the layer is decrypted.
pub fn is_encryption_annotation(name: &str) -> bool {
    name.starts_with(ANNOTATION_PREFIX)
}

/// Moves the packets of [`packet::OWN_ANNOTATION`] to [`packet::ANNOTATION`], where every guest looks for them. Says
/// whether there were any.
pub fn move_packets_for_guests(annotations: &mut BTreeMap<String, String>) -> bool {
    let Some(own) = annotations.remove(packet::OWN_ANNOTATION) else { return false };
    let all = match annotations.remove(packet::ANNOTATION) {
        Some(packets) => format!("{packets},{own}"),
        None => own,
    };
    annotations.insert(packet::ANNOTATION.to_owned(), all);
    true
}

/// Puts `packet` in the place of all packets whose keys `is_ours`, and adds `message`, for public keys. Whoever else can open
/// the layer still can.
pub fn replace_packets(
    annotations: &mut BTreeMap<String, String>,
    is_ours: impl Fn(&Kid) -> bool,
    packet: &str,
    message: Option<&str>,
) {
    move_packets_for_guests(annotations);
    let others = annotations.remove(packet::ANNOTATION).unwrap_or_default();
    let is_kept = |element: &&str| match Packet::from_annotation(element) {
        Ok(Packet::Broker(packet)) => !is_ours(packet.kid()),
        Ok(Packet::Unsupported(_)) => true,
        Err(_) => !element.is_empty(),
    };
    let packets: Vec<_> = [packet].into_iter().chain(others.split(',').filter(is_kept)).collect();
    annotations.insert(packet::ANNOTATION.to_owned(), packets.join(","));
    if let Some(message) = message {
        let messages = annotations.entry(jwe::ANNOTATION.to_owned()).or_default();
        if !messages.is_empty() {
            messages.push(',');
        }
        messages.push_str(message);
    }
}

fn read_private(json: &[u8]) -> Result<PrivateOptions, OpenError> {
    PrivateOptions::from_json(json).map_err(OpenError::PrivateOptions)
}

/// The elements of an annotation, none when it is not there.
fn elements<'a>(wraps: &'a BTreeMap<String, String>, name: &str) -> Result<Vec<&'a str>, ParseLayerError> {
    let elements: Vec<_> = wraps.get(name).into_iter().flat_map(|value| value.split(',').take(WRAPS_MAX + 1)).collect();
    if elements.len() > WRAPS_MAX {
        return Err(too_long(name));
    }
    Ok(elements)
}

fn too_long(name: &str) -> ParseLayerError {
    ParseLayerError::TooLong { name: name.chars().take(128).collect() }
}

const KEYS_PREFIX: &str = "org.opencontainers.image.enc.keys.";

#[cfg(test)]
mod tests;
