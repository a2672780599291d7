//! The messages of ocicrypt's key provider protocol in its `cmd` form: skopeo, buildah, podman and containerd write one
//! JSON document to a program's stdin and read one from its stdout. Who runs the program and where keys come from is not
//! here.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::options::{OptionsError, PrivateOptions};
use crate::packet::{BrokerPacket, Packet, PacketError};

/// The name that a provider has in `OCICRYPT_KEYPROVIDER_CONFIG` where its packets are to be in
/// [`packet::ANNOTATION`](crate::packet::ANNOTATION) at once, since annotations are called after it.
pub const PROVIDER: &str = "attestation-agent";

/// The provider's other name. Its packets are in [`packet::OWN_ANNOTATION`](crate::packet::OWN_ANNOTATION), where guests
/// of others do not look, until the image is finished.
pub const OWN_PROVIDER: &str = "sealift";

/// The longest message that is read, in bytes of JSON. Public keys of other recipients are among the parameters.
pub const INPUT_MAX: usize = 1024 * 1024;
/// The longest parameter that is read, in bytes of base64.
const PARAMETER_MAX: usize = 4096;
/// The longest payload that is read, in bytes of base64: options of a layer or a packet's JSON.
const PAYLOAD_MAX: usize = 32 * 1024;

/// Why a message is none of the protocol, or none that can be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProviderError {
    /// Not base64 with padding where the protocol has it.
    #[error("the member `{0}` of the message is no base64")]
    Base64(&'static str),
    /// Not the JSON of the protocol.
    #[error("this is no message of the key provider protocol")]
    Json(#[source] serde_json::Error),
    /// A member that the operation needs is not there.
    #[error("the message has no `{0}`")]
    Missing(&'static str),
    /// What is to be wrapped are no private options of a layer.
    #[error("what is to be wrapped is not the key of a layer")]
    Options(#[source] OptionsError),
    /// What is to be unwrapped is no packet.
    #[error("what is to be unwrapped is no key packet")]
    Packet(#[source] PacketError),
    /// The provider has another name, after which its annotation would be called: nobody would look for it.
    #[error("the key provider is named neither `{OWN_PROVIDER}` nor `{PROVIDER}`")]
    Name,
    /// A parameter that is no text, or more than one where one can be followed.
    #[error("the parameter of the key provider is not one text")]
    Parameter,
    /// The message did not come.
    #[error("the message cannot be read")]
    Read(#[source] std::io::Error),
    /// A message or member beyond its bound.
    #[error("the message or its member `{0}` is too long")]
    TooLong(&'static str),
}

/// What a key provider is asked (`KeyProviderKeyWrapProtocolInput`).
#[derive(Debug)]
#[non_exhaustive]
pub enum Request {
    /// `keywrap`: a layer was encrypted, its key is to be wrapped.
    Wrap(WrapRequest),
    /// `keyunwrap`: a layer is to be decrypted, its key is wanted.
    Unwrap(UnwrapRequest),
}

/// `keywrapparams`, as far as they are this provider's.
#[derive(Debug)]
pub struct WrapRequest {
    /// What followed the provider's name on the command line; `None` where other tools write just `Enabled`.
    pub parameter: Option<String>,
    /// The key of the layer, checked.
    pub private: PrivateOptions,
}

/// `keyunwrapparams`, as far as they are this provider's.
#[derive(Debug)]
pub struct UnwrapRequest {
    /// What followed the provider's name on the command line.
    pub parameter: Option<String>,
    /// The packet of the annotation, checked.
    pub packet: Packet,
}

impl Request {
    /// Reads a message to its end, within [`INPUT_MAX`], through memory that is wiped and never grows.
    ///
    /// # Errors
    /// As [`Self::from_json`], and [`KeyProviderError::Read`].
    pub fn read(reader: impl Read) -> Result<Self, KeyProviderError> {
        let mut input = Zeroizing::new(Vec::with_capacity(INPUT_MAX + 1));
        reader.take(INPUT_MAX as u64 + 1).read_to_end(&mut input).map_err(KeyProviderError::Read)?;
        Self::from_json(&input)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// For anything but one message of the protocol that names this provider among its parameters.
    pub fn from_json(json: &[u8]) -> Result<Self, KeyProviderError> {
        if json.len() > INPUT_MAX {
            return Err(KeyProviderError::TooLong("op"));
        }
        // A message may carry what another version of the protocol knows: unknown members say nothing to us.
        let raw: RawInput<'_> = serde_json::from_slice(json).map_err(KeyProviderError::Json)?;
        match raw.op {
            RawOperation::Wrap => {
                let params = raw.keywrapparams.ok_or(KeyProviderError::Missing("keywrapparams"))?;
                let config = params.ec.ok_or(KeyProviderError::Missing("ec"))?;
                let options = decode("optsdata", params.optsdata)?;
                let private = PrivateOptions::from_json(&options).map_err(KeyProviderError::Options)?;
                Ok(Self::Wrap(WrapRequest { parameter: config.parameter()?, private }))
            }
            RawOperation::Unwrap => {
                let params = raw.keyunwrapparams.ok_or(KeyProviderError::Missing("keyunwrapparams"))?;
                // Decryption goes through all providers that are set up, with or without a parameter for them.
                let parameter = match params.dc {
                    Some(config) if config.names_us() => config.parameter()?,
                    _ => None,
                };
                let packet = decode("annotation", params.annotation)?;
                let packet = Packet::from_json(&packet).map_err(KeyProviderError::Packet)?;
                Ok(Self::Unwrap(UnwrapRequest { parameter, packet }))
            }
        }
    }
}

/// What a key provider answers (`KeyProviderKeyWrapProtocolOutput`).
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// `keywrapresults`: the packet, which becomes the layer's annotation.
    Wrapped(BrokerPacket),
    /// `keyunwrapresults`: the layer's private options.
    Unwrapped(PrivateOptions),
}

impl Answer {
    /// The message's JSON.
    pub fn to_json(&self) -> Zeroizing<String> {
        let (results, member, payload) = match self {
            Self::Wrapped(packet) => ("keywrapresults", "annotation", Zeroizing::new(packet.to_json())),
            Self::Unwrapped(private) => ("keyunwrapresults", "optsdata", private.to_json()),
        };
        let payload = Zeroizing::new(BASE64_STANDARD.encode(payload.as_bytes()));
        // Grown once: a reallocation would leave a copy behind.
        let mut json = Zeroizing::new(String::with_capacity(payload.len() + 64));
        for part in [r#"{""#, results, r#"":{""#, member, r#"":""#, payload.as_str(), r#""}}"#] {
            json.push_str(part);
        }
        json
    }
}

#[derive(Deserialize)]
enum RawOperation {
    #[serde(rename = "keywrap")]
    Wrap,
    #[serde(rename = "keyunwrap")]
    Unwrap,
}

/// Secrets stay slices of the input, which is wiped by its owner: base64 has no characters that JSON escapes.
#[derive(Deserialize)]
struct RawInput<'a> {
    op: RawOperation,
    #[serde(borrow)]
    keywrapparams: Option<RawWrap<'a>>,
    #[serde(borrow)]
    keyunwrapparams: Option<RawUnwrap<'a>>,
}

#[derive(Deserialize)]
struct RawWrap<'a> {
    #[serde(borrow)]
    ec: Option<RawConfig<'a>>,
    optsdata: Option<&'a str>,
}

#[derive(Deserialize)]
struct RawUnwrap<'a> {
    #[serde(borrow)]
    dc: Option<RawConfig<'a>>,
    annotation: Option<&'a str>,
}

/// `EncryptConfig` or `DecryptConfig`; the former has a latter inside, which is for adding recipients.
#[derive(Deserialize)]
struct RawConfig<'a> {
    #[serde(rename = "Parameters", borrow)]
    parameters: Option<BTreeMap<String, Option<Vec<&'a str>>>>,
}

impl RawConfig<'_> {
    fn names_us(&self) -> bool {
        self.ours().next().is_some()
    }

    /// What was said for this provider, under either of its names.
    fn ours(&self) -> impl Iterator<Item = &[&str]> {
        let parameters = self.parameters.iter().flatten();
        parameters
            .filter(|(name, _)| [OWN_PROVIDER, PROVIDER].contains(&name.as_str()))
            .map(|(_, values)| values.as_deref().unwrap_or_default())
    }

    /// The one parameter of this provider. The message does not say by which of its names it was called, so that two
    /// names must not say two things.
    fn parameter(&self) -> Result<Option<String>, KeyProviderError> {
        let mut ours = self.ours();
        let first = ours.next().ok_or(KeyProviderError::Name)?;
        let [parameter] = first else { return Err(KeyProviderError::Parameter) };
        if ours.any(|other| other != first) {
            return Err(KeyProviderError::Parameter);
        }
        if parameter.len() > PARAMETER_MAX {
            return Err(KeyProviderError::TooLong(PARAMETERS));
        }
        let bytes = BASE64_STANDARD.decode(parameter).map_err(|_| KeyProviderError::Base64(PARAMETERS))?;
        let text = String::from_utf8(bytes).map_err(|_| KeyProviderError::Parameter)?;
        Ok((text != NO_PARAMETER).then_some(text))
    }
}

fn decode(member: &'static str, text: Option<&str>) -> Result<Zeroizing<Vec<u8>>, KeyProviderError> {
    let text = text.ok_or(KeyProviderError::Missing(member))?;
    if text.len() > PAYLOAD_MAX {
        return Err(KeyProviderError::TooLong(member));
    }
    BASE64_STANDARD.decode(text).map(Zeroizing::new).map_err(|_| KeyProviderError::Base64(member))
}

/// The member that has providers' parameters.
const PARAMETERS: &str = "Parameters";

/// What ocicrypt's command line puts where a provider is named without a parameter.
const NO_PARAMETER: &str = "Enabled";

#[cfg(test)]
mod tests;
