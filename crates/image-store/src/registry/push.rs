//! Writing to a registry: uploads whose digest comes last, mounts, manifests.
//!
//! An upload is a session (POST), one streamed PATCH fed through a bounded channel, and a PUT that names the digest. The
//! streamed bytes are gone once sent, so a broken PATCH ends the upload; everything else is repeated.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Purpose, Registry, Shared, digest_header};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};
use crate::error::{Corruption, Error, Unavailability};
use crate::local::stopped;
use crate::manifest::RawManifest;
use crate::reference::RegistryReference;
use crate::writer::{Hashing, settle};

impl Registry {
    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        let purpose = Purpose::read(&format!("blob {}", descriptor.digest));
        let url = self.url(&format!("blobs/{}", descriptor.digest), &purpose)?;
        let response = self.send(&purpose, || self.http.request(Method::HEAD, url.clone())).await?;
        match response.status() {
            StatusCode::OK => {
                let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
                Ok(length.is_none_or(|length: u64| length == descriptor.size))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.fail(&purpose, response).await),
        }
    }

    /// Asks the registry to take a blob from another of its repositories. `false` when it would rather have the bytes.
    pub(crate) async fn mount(&self, from: &RegistryReference, digest: &Digest) -> Result<bool, Error> {
        let purpose = Purpose::write(&format!("blob {digest}"));
        let mut url = self.url("blobs/uploads/", &purpose)?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from.repository());
        let response =
            self.send(&purpose, || self.http.request(Method::POST, url.clone()).header(CONTENT_LENGTH, 0)).await?;
        if response.status() == StatusCode::ACCEPTED {
            // It began an upload in place of the mount.
            if let Ok(session) = self.location(&purpose, &url, response.headers()) {
                self.cancel(session).await;
            }
        }
        Ok(response.status() == StatusCode::CREATED)
    }

    /// Writes a blob that is in memory; repeated on failure, unlike a stream.
    pub(crate) async fn put_bytes(&self, digest: &Digest, bytes: Bytes) -> Result<(), Error> {
        let purpose = Purpose::write(&format!("blob {digest}"));
        let session = self.begin_session(&purpose).await?;
        self.finish_session(&purpose, session, digest, bytes).await
    }

    /// Writes a manifest under a tag or its digest. Gives whether the registry lists it for its subject from now on.
    pub(crate) async fn put_manifest(&self, raw: &RawManifest, name: &str) -> Result<SubjectNoted, Error> {
        let purpose = Purpose::write(&format!("manifest {name}"));
        let url = self.url(&format!("manifests/{name}"), &purpose)?;
        let media_type = HeaderValue::from_str(&raw.media_type)
            .map_err(|_| self.protocol(&purpose, "the media type is no header value"))?;
        let response = self
            .send(&purpose, || {
                let request = self.http.request(Method::PUT, url.clone());
                request.header(CONTENT_TYPE, media_type.clone()).body(raw.bytes.clone())
            })
            .await?;
        if !response.status().is_success() {
            return Err(self.fail(&purpose, response).await);
        }
        match digest_header(response.headers()) {
            Some(found) if found != raw.digest => {
                let source = Corruption::Digest { found, wanted: raw.digest };
                Err(Error::corrupt(purpose.object, &*self.name, source))
            }
            _ if response.headers().contains_key(SUBJECT) => Ok(SubjectNoted::Yes),
            _ => Ok(SubjectNoted::No),
        }
    }

    async fn begin_session(&self, purpose: &Purpose) -> Result<Url, Error> {
        let url = self.url("blobs/uploads/", purpose)?;
        let response =
            self.send(purpose, || self.http.request(Method::POST, url.clone()).header(CONTENT_LENGTH, 0)).await?;
        if response.status() == StatusCode::ACCEPTED {
            self.location(purpose, &url, response.headers())
        } else {
            Err(self.fail(purpose, response).await)
        }
    }

    /// Names the digest of an upload, with its last (or only) bytes.
    async fn finish_session(
        &self,
        purpose: &Purpose,
        mut session: Url,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), Error> {
        session.query_pairs_mut().append_pair("digest", &digest.to_string());
        let size = bytes.len() as u64;
        let response = self
            .send_within(COMMIT_TIMEOUT, purpose, || {
                let request = self.http.request(Method::PUT, session.clone());
                let request = request.header(CONTENT_TYPE, OCTETS).header(CONTENT_LENGTH, size);
                request.body(bytes.clone())
            })
            .await?;
        if response.status().is_success() {
            return Ok(());
        }
        let is_gone = response.status() == StatusCode::NOT_FOUND;
        let error = self.fail(purpose, response).await;
        // When the answer to a first PUT was lost, the second finds no session, but the blob is there.
        if is_gone {
            let url = self.url(&format!("blobs/{digest}"), purpose)?;
            let response = self.send(purpose, || self.http.request(Method::HEAD, url.clone())).await?;
            if response.status() == StatusCode::OK {
                return Ok(());
            }
        }
        Err(error)
    }

    /// Ends an upload session, as far as the registry lets us.
    async fn cancel(&self, session: Url) {
        let (request, _) = self.authorized(self.http.request(Method::DELETE, session)).await;
        if let Err(error) = request.timeout(self.idle_timeout).send().await {
            tracing::debug!(error = %error.without_url(), "an upload session could not be cancelled");
        }
    }

    /// The session that an answer points at. From https it does not lead to http.
    fn location(&self, purpose: &Purpose, asked: &Url, headers: &HeaderMap) -> Result<Url, Error> {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| asked.join(location).ok());
        let url = url.ok_or_else(|| self.protocol(purpose, "it named no upload session"))?;
        if url.scheme() == "https" || url.scheme() == self.base.scheme() {
            Ok(url)
        } else {
            Err(self.protocol(purpose, "it wants the upload sent over plain http"))
        }
    }
}

/// A blob on its way into a registry. Dropped, its session is cancelled.
#[derive(Debug)]
pub(crate) struct UploadSink {
    registry: Shared,
    /// The session to cancel, until the blob is in place.
    session: Option<Url>,
    hasher: Option<Hasher>,
    /// Gone once the request has failed.
    chunks: Option<mpsc::Sender<Part>>,
    /// Gone once its result was taken.
    patch: Option<JoinHandle<Result<Url, Error>>>,
}

/// What goes through the channel. Without `End` the request's body breaks off: a process that stops looks like a broken
/// connection.
#[derive(Debug)]
enum Part {
    Chunk(Bytes),
    End,
}

impl UploadSink {
    pub(crate) async fn begin(registry: &Shared, hashing: Hashing) -> Result<Self, Error> {
        let purpose = Purpose::write("blob");
        let session = registry.begin_session(&purpose).await?;
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        let (shared, url) = (registry.clone(), session.clone());
        let patch = tokio::spawn(async move { shared.patch(&purpose, url, Body::wrap_stream(body(receiver))).await });
        Ok(Self {
            registry: registry.clone(),
            session: Some(session),
            hasher: (hashing == Hashing::Store).then(Hasher::default),
            chunks: Some(chunks),
            patch: Some(patch),
        })
    }

    /// Hashes and sends in steps of at most [`Hasher::STEP`] bytes.
    pub(crate) async fn write(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        while !chunk.is_empty() {
            let step = chunk.split_to(chunk.len().min(Hasher::STEP));
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&step);
            }
            self.send(Part::Chunk(step)).await?;
        }
        Ok(())
    }

    pub(crate) async fn place(mut self, announced: Option<(Digest, u64)>, bytes: u64) -> Result<Digest, Error> {
        let digest = settle(announced, self.hasher.take().map(Hasher::finish), bytes)?;
        self.send(Part::End).await?;
        let session = self.patched(COMMIT_TIMEOUT).await?;
        let purpose = Purpose::write(&format!("blob {digest}"));
        self.registry.finish_session(&purpose, session, &digest, Bytes::new()).await?;
        self.session = None;
        Ok(digest)
    }

    async fn send(&mut self, part: Part) -> Result<(), Error> {
        let Some(chunks) = &self.chunks else { return Err(self.ended()) };
        match tokio::time::timeout(self.registry.idle_timeout, chunks.send(part)).await {
            Ok(Ok(())) => Ok(()),
            // The receiver goes only with the request: its result says why.
            Ok(Err(_)) => {
                self.chunks = None;
                Err(self.patched(self.registry.idle_timeout).await.err().unwrap_or_else(|| self.ended()))
            }
            Err(_) => Err(self.registry.unavailable(&Purpose::write("blob"), self.registry.timeout())),
        }
    }

    /// The result of the streamed request: where the session goes on.
    async fn patched(&mut self, patience: Duration) -> Result<Url, Error> {
        let Some(patch) = &mut self.patch else { return Err(self.ended()) };
        let Ok(result) = tokio::time::timeout(patience, patch).await else {
            let source = Unavailability::Timeout { seconds: patience.as_secs() };
            return Err(self.registry.unavailable(&Purpose::write("blob"), source));
        };
        self.patch = None;
        result.map_err(stopped)?
    }

    fn ended(&self) -> Error {
        self.registry.protocol(&Purpose::write("blob"), "it ended the upload before its end")
    }
}

impl Drop for UploadSink {
    fn drop(&mut self) {
        let (Some(session), Ok(runtime)) = (self.session.take(), tokio::runtime::Handle::try_current()) else { return };
        let (registry, chunks, patch) = (self.registry.clone(), self.chunks.take(), self.patch.take());
        runtime.spawn(async move {
            // Docker's registry cancels a session only at the place that the end of a request gave. The request is
            // therefore ended, not cut; without a PUT nothing comes of it.
            if let Some(chunks) = chunks {
                chunks.send(Part::End).await.ok();
            }
            let mut current = session;
            if let Some(mut patch) = patch {
                match tokio::time::timeout(registry.idle_timeout, &mut patch).await {
                    Ok(Ok(Ok(next))) => current = next,
                    Ok(_) => {}
                    Err(_) => patch.abort(),
                }
            }
            registry.cancel(current).await;
        });
    }
}

impl Registry {
    /// The one request that carries the bytes. It cannot be repeated.
    async fn patch(&self, purpose: &Purpose, session: Url, body: Body) -> Result<Url, Error> {
        let request = self.http.request(Method::PATCH, session.clone()).header(CONTENT_TYPE, OCTETS);
        let (request, _) = self.authorized(request).await;
        let response =
            request.body(body).send().await.map_err(|error| {
                self.unavailable(purpose, Unavailability::Connection(Box::new(error.without_url())))
            })?;
        if response.status().is_success() {
            self.location(purpose, &session, response.headers())
        } else {
            Err(self.fail(purpose, response).await)
        }
    }
}

fn body(receiver: mpsc::Receiver<Part>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Part::Chunk(chunk)) => Some((Ok(chunk), Some(receiver))),
            Some(Part::End) => None,
            None => Some((Err(io::ErrorKind::ConnectionAborted.into()), None)),
        }
    })
}

/// Whether a registry keeps a list of what refers to a manifest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SubjectNoted {
    No,
    Yes,
}

/// The header by which a registry says so (distribution-spec v1.1, "Pushing Manifests with Subject").
const SUBJECT: &str = "oci-subject";
const OCTETS: &str = "application/octet-stream";
/// Steps that wait for the connection: 1 MiB.
const CHUNKS_WAITING: usize = 8;
/// Registries check or move the whole blob before they answer its end.
const COMMIT_TIMEOUT: Duration = Duration::from_mins(15);
