//! Reading blobs from a registry: after a break the stream goes on where it broke, with a `Range` request.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::{Purpose, Shared};
use crate::blob::{BlobStream, Verifier};
use crate::descriptor::Descriptor;
use crate::digest::Hasher;
use crate::error::{Corruption, Error, Unavailability};

/// Streams a blob and checks it.
pub(crate) async fn download(registry: &Shared, descriptor: &Descriptor) -> Result<BlobStream, Error> {
    start(registry, descriptor, 0..descriptor.size, Check::Whole).await
}

/// Streams a part of a blob; only its length is checked.
pub(crate) async fn download_range(
    registry: &Shared,
    descriptor: &Descriptor,
    range: Range<u64>,
) -> Result<BlobStream, Error> {
    start(registry, descriptor, range, Check::Length).await
}

async fn start(
    registry: &Shared,
    descriptor: &Descriptor,
    range: Range<u64>,
    check: Check,
) -> Result<BlobStream, Error> {
    let purpose = Purpose::read(&format!("blob {}", descriptor.digest));
    let url = registry.url(&format!("blobs/{}", descriptor.digest), &purpose)?;
    let mut download = Download {
        registry: registry.clone(),
        purpose,
        url,
        verifier: Verifier::new(descriptor, &registry.name),
        size: descriptor.size,
        range,
        check,
        response: None,
        pending: Bytes::new(),
        skip: 0,
        failures: 0,
    };
    // The first request is made at once, so that a missing blob is an error of the call and not of the stream.
    download.open().await?;
    Ok(BlobStream::new(stream::try_unfold(Some(download), |download| async move {
        let Some(mut download) = download else { return Ok(None) };
        Ok(download.next().await?.map(|chunk| (chunk, Some(download))))
    })))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Check {
    Length,
    Whole,
}

struct Download {
    registry: Shared,
    purpose: Purpose,
    url: Url,
    verifier: Verifier,
    /// Bytes of the whole blob.
    size: u64,
    /// What is still to be yielded.
    range: Range<u64>,
    check: Check,
    response: Option<Response>,
    pending: Bytes,
    /// Bytes to pass over where the registry ignored the range.
    skip: u64,
    /// Breaks since bytes last came.
    failures: u32,
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if !self.pending.is_empty() {
                return self.take().map(Some);
            }
            if self.range.is_empty() {
                return self.finish().await.map(|()| None);
            }
            let Some(response) = &mut self.response else {
                self.open().await?;
                continue;
            };
            let (cause, is_clean_end) = match tokio::time::timeout(self.registry.idle_timeout, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    self.accept(chunk)?;
                    continue;
                }
                Ok(Ok(None)) => {
                    let cause = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    (Unavailability::Connection(Box::new(cause)), true)
                }
                Ok(Err(error)) => (Unavailability::Connection(Box::new(error.without_url())), false),
                Err(_) => (self.registry.timeout(), false),
            };
            self.response = None;
            let paused = self.registry.pause(&self.purpose, &mut self.failures, cause, None).await;
            if let Err(error) = paused {
                // A registry that always ends early, and says so politely, has a shorter blob.
                return Err(if is_clean_end { self.wrong_size(self.range.start) } else { error });
            }
        }
    }

    /// Requests what is missing.
    async fn open(&mut self) -> Result<(), Error> {
        if self.range.is_empty() {
            return Ok(());
        }
        let Range { start, end } = self.range;
        let is_partial = start > 0 || end < self.size;
        let response = self
            .registry
            .send(&self.purpose, || {
                let request = self.registry.http.request(Method::GET, self.url.clone());
                if is_partial { request.header(RANGE, format!("bytes={start}-{}", end - 1)) } else { request }
            })
            .await?;
        match response.status() {
            StatusCode::OK => {
                if let Some(found) = response.content_length()
                    && found != self.size
                {
                    return Err(self.wrong_size(found));
                }
                self.skip = start;
            }
            StatusCode::PARTIAL_CONTENT if is_partial => {
                let expected = format!("bytes {start}-{}/{}", end - 1, self.size);
                let found = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let open_end = expected.rsplit_once('/').map(|(range, _)| format!("{range}/*"));
                if found != Some(&expected) && found != open_end.as_deref() {
                    return Err(self.registry.protocol(&self.purpose, "it sent another range than was asked for"));
                }
                self.skip = 0;
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.wrong_size(start)),
            _ => return Err(self.registry.fail(&self.purpose, response).await),
        }
        self.response = Some(response);
        Ok(())
    }

    fn accept(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        let passed = chunk.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= passed as u64;
        drop(chunk.split_to(passed));
        if chunk.is_empty() {
            return Ok(());
        }
        self.failures = 0;
        let wanted = self.range.end - self.range.start;
        if chunk.len() as u64 > wanted {
            if self.range.end == self.size {
                return Err(self.wrong_size(self.size + (chunk.len() as u64 - wanted)));
            }
            // A registry that ignored the range goes on after its end.
            chunk.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        }
        self.pending = chunk;
        Ok(())
    }

    /// Hands out at most [`Hasher::STEP`] bytes, so that no poll hashes longer than that takes.
    fn take(&mut self) -> Result<Bytes, Error> {
        let chunk = self.pending.split_to(self.pending.len().min(Hasher::STEP));
        if self.check == Check::Whole {
            self.verifier.update(&chunk)?;
        }
        self.range.start += chunk.len() as u64;
        Ok(chunk)
    }

    /// Refuses bytes after the end, then judges the whole.
    async fn finish(&mut self) -> Result<(), Error> {
        if let Some(mut response) = self.response.take()
            && self.range.end == self.size
        {
            while let Ok(Ok(Some(chunk))) = tokio::time::timeout(self.registry.idle_timeout, response.chunk()).await {
                if !chunk.is_empty() {
                    return Err(self.wrong_size(self.size + chunk.len() as u64));
                }
            }
        }
        if self.check == Check::Whole { self.verifier.finish() } else { Ok(()) }
    }

    fn wrong_size(&self, found: u64) -> Error {
        self.verifier.corrupt(Corruption::Size { found, wanted: self.size })
    }
}
