//! AMD's key distribution service, asked with restraint: it allows about one request in ten seconds and answers 429
//! beyond. Requests go out one after the other; whoever waited looks first whether another has fetched it meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::EndorsementSettings;

/// The longest pause that the service's own word can impose.
const PAUSE_MAX: Duration = Duration::from_mins(10);
/// The longest that a guest's request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(20);
/// The most requests that wait at once; further ones are told to come back.
const WAITING: usize = 16;
/// How long a certificate that does not exist is not asked for again.
const ABSENT_FOR: Duration = Duration::from_hours(1);
/// The most absent certificates that are remembered.
const ABSENT_MAX: usize = 4096;
/// The largest answer, in bytes.
const ANSWER_MAX: usize = 256 * 1024;

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributionError {
    /// The client could not be set up.
    #[error("the HTTPS client cannot be set up")]
    Client(#[source] reqwest::Error),
    /// It does not answer.
    #[error("it does not answer")]
    Network(#[source] reqwest::Error),
    /// It answers with an error.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// Its answer is too long.
    #[error("its answer has more than {ANSWER_MAX} bytes")]
    TooLong,
    /// Its answer is not of the documented form.
    #[error("its answer is not of the documented form")]
    Malformed,
    /// Too many requests wait, or the pause that it asked for lasts longer than a guest can wait.
    #[error("it has been asked too often")]
    Busy,
}

/// A client of the service.
#[derive(Debug)]
pub(super) struct DistributionService {
    http: reqwest::Client,
    base: Url,
    /// Between two requests.
    pause: Duration,
    waiting: Semaphore,
    /// When the next request may go out; held while one is under way.
    turn: tokio::sync::Mutex<Instant>,
    /// The same for those who only look.
    not_before: Mutex<Instant>,
    absent: Mutex<HashMap<String, Instant>>,
}

impl DistributionService {
    pub(super) fn new(settings: &EndorsementSettings) -> Result<Self, DistributionError> {
        // One provider for all TLS of the process; where there is one already this changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(15))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(DistributionError::Client)?;
        let now = Instant::now();
        Ok(Self {
            http,
            base: settings.distribution_service.clone(),
            pause: Duration::from_secs(settings.pause_seconds),
            waiting: Semaphore::new(WAITING),
            turn: tokio::sync::Mutex::new(now),
            not_before: Mutex::new(now),
            absent: Mutex::default(),
        })
    }

    /// What lies at `path`; `None` when there is nothing. `look` finds what another request has brought meanwhile.
    pub(super) async fn fetch(
        &self,
        path: &str,
        look: impl Fn() -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, DistributionError> {
        if self.is_absent(path) {
            return Ok(None);
        }
        let _place = self.waiting.try_acquire().map_err(|_| DistributionError::Busy)?;
        let deadline = Instant::now() + TURN_MAX;
        let mut turn =
            tokio::time::timeout_at(deadline, self.turn.lock()).await.map_err(|_| DistributionError::Busy)?;
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        if self.is_absent(path) {
            return Ok(None);
        }
        if *turn > deadline {
            return Err(DistributionError::Busy);
        }
        tokio::time::sleep_until(*turn).await;
        let (answer, pause) = self.ask(path).await;
        *turn = Instant::now() + pause;
        *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = *turn;
        if matches!(answer, Ok(None)) {
            self.remember_absent(path);
        }
        answer
    }

    /// How long to wait before asking makes sense again.
    pub(super) fn pause(&self) -> Duration {
        let not_before = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        not_before.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
    }

    async fn ask(&self, path: &str) -> (Result<Option<Vec<u8>>, DistributionError>, Duration) {
        let Ok(url) = self.base.join(path) else { return (Ok(None), Duration::ZERO) };
        let mut answer = match self.http.get(url).send().await {
            Ok(answer) => answer,
            Err(error) => return (Err(DistributionError::Network(error)), self.pause),
        };
        let told = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let pause = told.map_or(self.pause, Duration::from_secs).max(self.pause).min(PAUSE_MAX);
        match answer.status() {
            StatusCode::NOT_FOUND => (Ok(None), self.pause),
            status if !status.is_success() => (Err(DistributionError::Status(status)), pause),
            _ => (read(&mut answer).await.map(Some), self.pause),
        }
    }

    fn is_absent(&self, path: &str) -> bool {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(path).is_some_and(|until| *until > Instant::now())
    }

    fn remember_absent(&self, path: &str) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        absent.retain(|_, until| *until > now);
        if absent.len() < ABSENT_MAX {
            absent.insert(path.to_owned(), now + ABSENT_FOR);
        }
    }
}

async fn read(answer: &mut reqwest::Response) -> Result<Vec<u8>, DistributionError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(DistributionError::Network)? {
        if bytes.len() + chunk.len() > ANSWER_MAX {
            return Err(DistributionError::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
