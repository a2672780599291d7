//! The messages of containerd's API (v1) that are asked for here, with the members that count, and the calls. From
//! `api/services/{containers,content,images,snapshots}/v1` of containerd 1.7, which 2.x has unchanged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use command_line::{ExitCode, Failure, FailureContext as _};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(20);

/// The longest manifest or config that is read, in bytes.
const DOCUMENT_MAX: usize = 8 << 20;

#[derive(Clone, Message, PartialEq)]
struct GetContainer {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, Message, PartialEq)]
struct GotContainer {
    #[prost(message, optional, tag = "1")]
    container: Option<Container>,
}

/// `containerd.services.containers.v1.Container`
#[derive(Clone, Message, PartialEq)]
pub(super) struct Container {
    /// The name of the image; empty for a container of none.
    #[prost(string, tag = "3")]
    pub(super) image: String,
    #[prost(string, tag = "6")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "7")]
    pub(super) snapshot_key: String,
}

#[derive(Clone, Message, PartialEq)]
struct GetImage {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, Message, PartialEq)]
struct GotImage {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, Message, PartialEq)]
struct Image {
    #[prost(message, optional, tag = "3")]
    target: Option<Descriptor>,
}

#[derive(Clone, Message, PartialEq)]
struct Descriptor {
    #[prost(string, tag = "2")]
    digest: String,
}

#[derive(Clone, Message, PartialEq)]
struct ReadContent {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, Message, PartialEq)]
struct Content {
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

#[derive(Clone, Message, PartialEq)]
struct StatSnapshot {
    #[prost(string, tag = "1")]
    snapshotter: String,
    #[prost(string, tag = "2")]
    key: String,
}

#[derive(Clone, Message, PartialEq)]
struct SnapshotStat {
    #[prost(message, optional, tag = "1")]
    info: Option<SnapshotInfo>,
}

#[derive(Clone, Message, PartialEq)]
struct SnapshotInfo {
    #[prost(string, tag = "2")]
    parent: String,
}

/// containerd, for one of its namespaces.
pub(super) struct Containerd {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    socket: PathBuf,
}

impl Containerd {
    /// Connects to the socket.
    pub(super) async fn connect(socket: &Path, namespace: &str) -> Result<Self, Failure> {
        let cannot = || format!("cannot ask containerd at `{}`", socket.display());
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address says nothing: the connector knows the way.
        let endpoint = Endpoint::from_static("http://containerd").timeout(CALL);
        let channel = endpoint.connect_with_connector(connector).await.or_fail(ExitCode::Unavailable, cannot)?;
        let namespace = namespace.parse().or_fail(ExitCode::BadInput, cannot)?;
        Ok(Self { channel, namespace, socket: socket.to_owned() })
    }

    /// A container's record.
    pub(super) async fn container(&self, id: &str) -> Result<Container, Failure> {
        let path = "/containerd.services.containers.v1.Containers/Get";
        let got: GotContainer = self.ask(path, GetContainer { id: id.to_owned() }).await?;
        got.container.ok_or_else(|| Failure::other(format!("containerd has no container {id}")))
    }

    /// The digest that an image's name stands for now; `None` when it stands for nothing.
    pub(super) async fn target(&self, name: &str) -> Result<Option<String>, Failure> {
        let path = "/containerd.services.images.v1.Images/Get";
        let got: Option<GotImage> = self.look_for(path, GetImage { name: name.to_owned() }).await?;
        Ok(got.and_then(|got| got.image?.target).map(|target| target.digest))
    }

    /// The parent of a snapshot; empty for the lowest. `None` where there is no such snapshot.
    pub(super) async fn parent(&self, snapshotter: &str, key: &str) -> Result<Option<String>, Failure> {
        let path = "/containerd.services.snapshots.v1.Snapshots/Stat";
        let asked = StatSnapshot { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
        let got: Option<SnapshotStat> = self.look_for(path, asked).await?;
        Ok(got.and_then(|got| got.info).map(|info| info.parent))
    }

    /// A small blob of the content store; `None` where it is not there.
    pub(super) async fn content(&self, digest: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = "/containerd.services.content.v1.Content/Read";
        let mut client = self.client().await?;
        let request = self.request(ReadContent { digest: digest.to_owned() });
        let codec = ProstCodec::<ReadContent, Content>::default();
        let failed = |status: &Status| self.failed(path, status);
        let opened = client.server_streaming(request, PathAndQuery::from_static(path), codec).await;
        let mut stream = match opened {
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            opened => opened.map_err(|status| failed(&status))?.into_inner(),
        };
        let mut bytes = Vec::new();
        loop {
            match stream.message().await {
                Ok(None) => return Ok(Some(bytes)),
                Ok(Some(part)) if bytes.len() + part.data.len() <= DOCUMENT_MAX => bytes.extend_from_slice(&part.data),
                Ok(Some(_)) => return Err(Failure::bad_input(format!("the document {digest} is too long"))),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(failed(&status)),
            }
        }
    }

    async fn ask<T, R>(&self, path: &'static str, message: T) -> Result<R, Failure>
    where
        T: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        self.look_for(path, message).await?.ok_or_else(|| self.failed(path, &Status::not_found("not found")))
    }

    /// The answer; `None` when there is no such thing.
    async fn look_for<T, R>(&self, path: &'static str, message: T) -> Result<Option<R>, Failure>
    where
        T: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let mut client = self.client().await?;
        let codec = ProstCodec::<T, R>::default();
        match client.unary(self.request(message), PathAndQuery::from_static(path), codec).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failed(path, &status)),
        }
    }

    async fn client(&self) -> Result<tonic::client::Grpc<Channel>, Failure> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let ready = client.ready().await;
        ready.or_fail(ExitCode::Unavailable, || format!("cannot ask containerd at `{}`", self.socket.display()))?;
        Ok(client)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    fn failed(&self, path: &str, status: &Status) -> Failure {
        Failure::unavailable(format!("containerd at `{}` does not answer `{path}`", self.socket.display()))
            .cause(status.message())
    }
}
