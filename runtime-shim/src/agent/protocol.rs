//! What the agent and its faces say to each other over the unix socket: frames of a big-endian length and JSON, one request
//! per connection. Who may ask, and what is decided, is not here.

use std::io;

use command_line::{ExitCode, Failure, FailureContext as _};
use image_store::{Digest, ImageReference};
use ocicrypt::options::PrivateOptions;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// The longest frame, in bytes of its content.
pub(crate) const FRAME_MAX: usize = 1 << 20;

/// What a face asks.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) enum Request {
    /// The key of the layer that carries a packet. Answered by [`Answer::Key`].
    Unwrap(UnwrapRequest),
    /// Whether a container may be created. Answered by [`Answer::Granted`] or [`Answer::NotSealed`].
    Start(StartRequest),
    /// A container that was granted a lease is there. Answered by [`Answer::Done`].
    Started(StartedRequest),
    /// A container that was granted a lease did not come to be, or is gone. Answered by [`Answer::Done`].
    Ended(ContainerName),
    /// Until when a container may go on: an [`Answer::Deadline`] at once and after each renewal, until the connection ends.
    Watch(ContainerName),
    /// Which containers hold leases. Answered by [`Answer::Status`].
    Status,
}

/// See [`Request::Unwrap`].
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnwrapRequest {
    /// The JSON of the layer's [`BrokerPacket`](ocicrypt::packet::BrokerPacket).
    pub(crate) packet: String,
    /// The image that is opened, where the face knows it; else the agent looks through those that it was told of.
    #[serde(default)]
    pub(crate) image: Option<ImageHint>,
}

/// An image that a face names.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageHint {
    /// `docker://…`, `oci:DIR[:TAG]`, or a name as engines have it (`registry/name:tag`).
    pub(crate) reference: String,
    /// The platform's manifest (`sha256:…`), where it is known.
    #[serde(default)]
    pub(crate) manifest_digest: Option<String>,
}

impl ImageHint {
    /// The reference that it stands for; engines write registries' names without a transport.
    pub(crate) fn reference(&self) -> Result<ImageReference, Failure> {
        let cannot = || format!("`{}` names no image", self.reference);
        let parsed = self.reference.parse().or_else(|_| format!("docker://{}", self.reference).parse());
        let reference: ImageReference = parsed.or_fail(ExitCode::BadInput, cannot)?;
        match &self.manifest_digest {
            None => Ok(reference),
            Some(digest) => {
                let digest: Digest = digest.parse().or_fail(ExitCode::BadInput, cannot)?;
                Ok(reference.with_digest(digest))
            }
        }
    }
}

/// A container of an OCI runtime.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerName {
    /// Its id, unique below `root`.
    pub(crate) id: String,
    /// The runtime's state directory (`--root`).
    pub(crate) root: String,
}

/// See [`Request::Start`].
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRequest {
    pub(crate) container: ContainerName,
    pub(crate) image: ContainerImage,
    /// The whole command line that will run.
    pub(crate) command: Vec<String>,
    /// Whether the root file system is mounted read-only.
    pub(crate) has_read_only_root: bool,
}

/// The image of a container, as the engine's storage has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerImage {
    /// What the engine calls it; empty where it has no name.
    pub(crate) reference: String,
    /// The platform's manifest (`sha256:…`), where the engine keeps it.
    pub(crate) manifest_digest: Option<String>,
    /// Whether a layer of that manifest is sealed to a service.
    pub(crate) is_sealed: bool,
    /// The digests of the plain layers (`sha256:…`), lowest first; empty where the engine has no config any more.
    pub(crate) diff_ids: Vec<String>,
    /// The names of the snapshots that it is made of, uppermost first, where they are called after their layers: the chain
    /// ids of the OCI image specification.
    #[serde(default)]
    pub(crate) chain_ids: Vec<String>,
}

/// See [`Request::Started`].
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartedRequest {
    pub(crate) container: ContainerName,
    /// The container's first process.
    pub(crate) pid: i32,
    /// The program and the words before its command by which the container is killed.
    pub(crate) runtime: Vec<String>,
}

/// What the agent answers.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Until when a container may go on without another word, on `CLOCK_BOOTTIME`.
    Deadline { stop_at_nanoseconds: u64 },
    /// It is done.
    Done,
    /// It failed or was denied: the failure's JSON.
    Failed(Value),
    /// There is a lease; the container may be created. How long it may go on without another word.
    Granted { lease: String, stop_at_nanoseconds: u64 },
    /// The key: the layer's private options follow in a frame of their own.
    Key,
    /// The image is none that needs a lease.
    NotSealed,
    /// Which containers hold leases.
    Status(Vec<ContainerStatus>),
}

/// One container that holds a lease.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ContainerStatus {
    pub(crate) container: ContainerName,
    pub(crate) reference: String,
    pub(crate) manifest_digest: String,
    /// The lease's id; `None` while there is none, after a restart.
    pub(crate) lease: Option<String>,
    /// The first process, once it is there.
    pub(crate) pid: Option<i32>,
    /// How long the container may go on without the service, in seconds.
    pub(crate) seconds_left: u64,
}

/// Why a conversation broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FrameError {
    /// The other side closed in the middle, or is gone.
    #[error("the conversation broke off")]
    Io(#[from] io::Error),
    /// No JSON of the protocol.
    #[error("a message is none of the protocol")]
    Json(#[source] serde_json::Error),
    /// A frame beyond its bound.
    #[error("a message has {length} bytes, more than {FRAME_MAX}")]
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
}

/// Writes one message.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> Result<(), FrameError> {
    write_bytes(stream, &serde_json::to_vec(message).map_err(FrameError::Json)?).await
}

/// Reads one message.
pub(crate) async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<T, FrameError> {
    serde_json::from_slice(&read_bytes(stream).await?).map_err(FrameError::Json)
}

/// Writes the key of a layer after [`Answer::Key`].
pub(crate) async fn write_key(stream: &mut (impl AsyncWrite + Unpin), key: &PrivateOptions) -> Result<(), FrameError> {
    write_bytes(stream, key.to_json().as_bytes()).await
}

/// Reads the key of a layer after [`Answer::Key`].
pub(crate) async fn read_key(stream: &mut (impl AsyncRead + Unpin)) -> Result<PrivateOptions, Failure> {
    let cannot = || "the agent's answer cannot be used".to_owned();
    let bytes = read_bytes(stream).await.or_fail(ExitCode::Unavailable, cannot)?;
    PrivateOptions::from_json(&bytes).or_fail(ExitCode::Other, cannot)
}

async fn write_bytes(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), FrameError> {
    let too_long = FrameError::TooLong { length: bytes.len() };
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_MAX).ok_or(too_long)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

/// One frame's content, in memory that is wiped and never grows: it may be a key.
async fn read_bytes(stream: &mut (impl AsyncRead + Unpin)) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        return Err(FrameError::TooLong { length });
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_message_and_a_key_come_as_they_were_sent() {
        let key = r#"{"symkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","cipheroptions":{"nonce":"AAECAwQFBgcICQoLDA0ODw=="}}"#;
        let key = PrivateOptions::from_json(key.as_bytes()).unwrap();
        let (mut here, mut there) = tokio::io::duplex(FRAME_MAX);
        write(&mut here, &Answer::Key).await.unwrap();
        write_key(&mut here, &key).await.unwrap();
        assert!(matches!(read::<Answer>(&mut there).await, Ok(Answer::Key)));
        assert_eq!(*read_key(&mut there).await.unwrap().to_json(), *key.to_json());
    }

    #[tokio::test]
    async fn what_is_too_long_cut_off_or_unknown_is_refused() {
        let refused = async |bytes: &[u8]| read::<Request>(&mut &bytes[..]).await.unwrap_err();
        assert!(matches!(refused(&[0, 16, 0, 1]).await, FrameError::TooLong { length: 1_048_577 }));
        assert!(matches!(refused(&[0, 0, 0, 9, b'"']).await, FrameError::Io(_)));
        let unknown = json!({"unwrap": {"packet": "{}", "secret": 1}}).to_string();
        let framed = [&u32::try_from(unknown.len()).unwrap().to_be_bytes()[..], unknown.as_bytes()].concat();
        assert!(matches!(refused(&framed).await, FrameError::Json(_)));
    }

    fn named(reference_text: &str, digest: Option<&str>) -> Option<String> {
        let hint = ImageHint { reference: reference_text.to_owned(), manifest_digest: digest.map(ToOwned::to_owned) };
        hint.reference().ok().map(|reference| reference.to_string())
    }

    #[test]
    fn an_engines_name_of_an_image_is_a_registrys() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let pinned = |name: &str| Some(format!("{name}@{digest}"));
        assert_eq!(
            named("registry.example:5000/a/b:v1", None).as_deref(),
            Some("docker://registry.example:5000/a/b:v1")
        );
        assert_eq!(named("registry.example/a:v1", Some(&digest)), pinned("docker://registry.example/a"));
        assert_eq!(
            named(&format!("registry.example/a@{digest}"), Some(&digest)),
            pinned("docker://registry.example/a")
        );
        assert_eq!(named("oci:/images:v1", None).as_deref(), Some("oci:/images:v1"));
        assert_eq!(named("registry.example/a:v1", Some("sha256:1")), None);
        assert_eq!(named("", None), None);
    }
}
