//! Witnesses of the audit log (C2SP tlog-witness): whoever the settings name is shown the log with the proof that it has
//! only grown, and what they cosign is kept in the home. Without witnesses nothing is asked of anybody.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use release_protocol::LogPlace;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use transparency_log::{
    LeafIndex, SignedCheckpoint, TreeSize, VerifierKey, WitnessAnswerError, Witnesses, add_checkpoint_request,
    witness_size,
};
use url::Url;

use crate::home::{Home, HomeError};
use crate::release::chain;
use crate::service::{Service, ServiceError};
use crate::store::StoreError;

/// What the settings say of the audit log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How many of the witnesses have to cosign a checkpoint before it is kept and shown; all of them by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<usize>,
    /// How often a log that has grown is shown to the witnesses, in seconds.
    pub interval_seconds: u64,
    /// Who is asked to cosign checkpoints; nobody by default.
    pub witnesses: Vec<WitnessSettings>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { quorum: None, interval_seconds: 60, witnesses: Vec::new() }
    }
}

/// A witness.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessSettings {
    /// Its verifier key, of the kind 0x04 (cosignature/v1).
    pub key: VerifierKey,
    /// Its submission prefix: `add-checkpoint` is below it.
    pub url: Url,
}

/// Why a witness has not cosigned.
#[derive(Debug, thiserror::Error)]
enum WitnessError {
    /// It has cosigned more entries than there are.
    #[error("it has seen {seen} entries of this log, which has {own}: an old copy of the database is being served")]
    Ahead { seen: TreeSize, own: TreeSize },
    /// Its answer is malformed or signed by somebody else.
    #[error("its answer gives no cosignature")]
    Answer(#[from] WitnessAnswerError),
    /// It has seen another history.
    #[error("it does not find this log to be the continuation of what it has seen: the history was rewritten")]
    Inconsistent,
    /// The log does not give the proof.
    #[error("there is no proof for it")]
    Proof(#[from] StoreError),
    /// It says something else.
    #[error("it answers with HTTP status {0}")]
    Status(StatusCode),
    /// It does not know the log or its key.
    #[error("it does not know this log: give its operator `log.pub`")]
    Unknown,
    /// It cannot be asked.
    #[error("it does not answer")]
    Unreachable(#[from] reqwest::Error),
    /// It names another size each time it is asked.
    #[error("it does not stay with the size that it has seen")]
    Unsteady,
}

/// The witnesses, and the newest checkpoint that enough of them cosigned.
pub(crate) struct Witnessing {
    witnesses: Vec<Witness>,
    known: Witnesses,
    every: Duration,
    http: reqwest::Client,
    path: PathBuf,
    newest: Mutex<Option<SignedCheckpoint>>,
}

struct Witness {
    key: VerifierKey,
    url: Url,
    state: Mutex<WitnessState>,
}

#[derive(Clone, Copy, Default)]
struct WitnessState {
    /// The size that it cosigned last, as far as this process knows.
    seen: TreeSize,
    /// Whether it failed when it was last asked: said once.
    is_failing: bool,
}

impl Witnessing {
    pub(crate) fn new(home: &Home, settings: &LogSettings, log: &VerifierKey) -> Result<Self, ServiceError> {
        let malformed = |why: String| ServiceError::from(HomeError::Settings(format!("[service.log] {why}")));
        let keys: Vec<_> = settings.witnesses.iter().map(|witness| witness.key.clone()).collect();
        let quorum = settings.quorum.unwrap_or(keys.len());
        if quorum == 0 && !keys.is_empty() {
            return Err(malformed("a quorum of 0 witnesses is none".to_owned()));
        }
        let known = Witnesses::new(keys, quorum).map_err(|error| malformed(error.to_string()))?;
        let witnesses = settings.witnesses.iter().map(Witness::new).collect::<Result<_, _>>().map_err(malformed)?;
        // One provider for all TLS of the process; where there is one already this changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ServiceError::WitnessClient)?;
        let path = home.cosigned_checkpoint_path();
        let witnessing = Self {
            witnesses,
            known,
            every: Duration::from_secs(settings.interval_seconds.max(1)),
            http,
            path,
            newest: Mutex::default(),
        };
        witnessing.recall(log)?;
        Ok(witnessing)
    }

    /// The newest checkpoint that enough witnesses cosigned.
    pub(crate) fn newest(&self) -> Option<SignedCheckpoint> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up what was kept. What other witnesses cosigned, before the settings changed, counts no more.
    fn recall(&self, log: &VerifierKey) -> Result<(), ServiceError> {
        if self.witnesses.is_empty() || !self.path.exists() {
            return Ok(());
        }
        let failed = |source| HomeError::File { action: "read", path: self.path.clone(), source };
        let kept = SignedCheckpoint::from_bytes(&fs::read(&self.path).map_err(failed)?);
        match kept.and_then(|kept| kept.verify_witnessed(log, &self.known).map(|_| kept)) {
            Ok(kept) => *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept),
            Err(error) => tracing::warn!(%error, "the cosigned checkpoint that was kept is not used"),
        }
        Ok(())
    }

    fn keep(&self, cosigned: SignedCheckpoint) -> Result<(), ServiceError> {
        let failed = |source| HomeError::File { action: "write", path: self.path.clone(), source };
        let partial = self.path.with_extension("partial");
        fs::write(&partial, cosigned.to_string()).and_then(|()| fs::rename(&partial, &self.path)).map_err(failed)?;
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(cosigned);
        Ok(())
    }
}

impl Witness {
    fn new(settings: &WitnessSettings) -> Result<Self, String> {
        let mut url = settings.url.clone();
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("the witness's address `{url}` is not https"));
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("add-checkpoint");
        }
        Ok(Self { key: settings.key.clone(), url, state: Mutex::default() })
    }

    fn state(&self) -> WitnessState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how it went, and says so where that has changed.
    fn note(&self, result: Result<TreeSize, &WitnessError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let witness = self.key.name().as_str();
        match result {
            Ok(seen) => {
                if state.is_failing {
                    tracing::info!(witness, "the witness cosigns again");
                }
                *state = WitnessState { seen, is_failing: false };
            }
            Err(error @ (WitnessError::Ahead { .. } | WitnessError::Inconsistent)) => {
                tracing::error!(witness, "a witness refuses the audit log: {error}");
                state.is_failing = true;
            }
            Err(error) => {
                if !std::mem::replace(&mut state.is_failing, true) {
                    tracing::warn!(witness, "a witness has not cosigned the audit log: {}", chain(error));
                }
            }
        }
    }
}

impl Service {
    /// Shows the log to its witnesses whenever it has grown, for ever. Returns where there are none.
    pub async fn keep_witnessed(self: Arc<Self>) {
        if self.witnessing.witnesses.is_empty() {
            return;
        }
        loop {
            if let Err(error) = Arc::clone(&self).ask_witnesses().await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the audit log could not be shown to witnesses"
                );
            }
            tokio::time::sleep(self.witnessing.every).await;
        }
    }

    /// Shows the log to its witnesses now, unless they have cosigned it as it is; gives how many cosigned. The checkpoint is
    /// kept where they are enough.
    pub async fn ask_witnesses(self: Arc<Self>) -> Result<usize, ServiceError> {
        if self.witnessing.witnesses.is_empty() {
            return Ok(0);
        }
        let checkpoint = self.log_checkpoint().await?;
        let size = checkpoint.unverified().size;
        if self.witnessing.newest().is_some_and(|newest| newest.unverified() == checkpoint.unverified()) {
            return Ok(0);
        }
        let mut asked = JoinSet::new();
        for place in 0..self.witnessing.witnesses.len() {
            let (service, checkpoint) = (Arc::clone(&self), checkpoint.clone());
            asked.spawn(async move {
                let witness = service.witnessing.witnesses.get(place)?;
                let answer = service.ask_witness(witness, &checkpoint).await;
                witness.note(answer.as_ref().map(|_| size));
                Some((place, answer.ok()?))
            });
        }
        let mut answers: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(place, _)| *place);
        let mut cosigned = checkpoint;
        for (place, answer) in &answers {
            if let Some(witness) = self.witnessing.witnesses.get(*place) {
                cosigned.add_cosignature(answer, &witness.key).map_err(ServiceError::Cosignatures)?;
            }
        }
        if answers.len() >= self.witnessing.known.quorum() {
            self.witnessing.keep(cosigned)?;
            self.metrics.cosigned(size.get());
        }
        Ok(answers.len())
    }

    /// The answer of one witness, seen to be a cosignature of this checkpoint.
    async fn ask_witness(&self, witness: &Witness, checkpoint: &SignedCheckpoint) -> Result<Vec<u8>, WitnessError> {
        let own = checkpoint.unverified().size;
        // It may have forgotten more than this process: it says what it has seen.
        let mut seen = witness.state().seen.min(own);
        for _ in 0..ROUNDS {
            let proof = self.store.consistency_proof(seen, own).await?;
            let body = add_checkpoint_request(seen, &proof, checkpoint);
            let (status, answer) = self.witnessing.post(&witness.url, body).await?;
            match status {
                StatusCode::OK => {
                    checkpoint.clone().add_cosignature(&answer, &witness.key)?;
                    return Ok(answer);
                }
                StatusCode::CONFLICT => seen = witness_size(&answer)?,
                StatusCode::UNPROCESSABLE_ENTITY => return Err(WitnessError::Inconsistent),
                StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Err(WitnessError::Unknown),
                other => return Err(WitnessError::Status(other)),
            }
            if seen > own {
                return Err(WitnessError::Ahead { seen, own });
            }
        }
        Err(WitnessError::Unsteady)
    }

    /// Where the leaf at `index` stands in the newest checkpoint that witnesses cosigned: hashes and signatures only.
    pub async fn witnessed_place(&self, index: u64) -> Result<LogPlace, ServiceError> {
        let unknown = || StoreError::Unknown { kind: "cosigned checkpoint over leaf", name: index.to_string() };
        let leaf = LeafIndex::try_from(index).map_err(|_| unknown())?;
        let checkpoint = self.witnessing.newest().ok_or_else(unknown)?;
        let size = checkpoint.unverified().size;
        if index >= size.get() || size > self.store.log_range().await?.size() {
            return Err(unknown().into());
        }
        Ok(LogPlace { inclusion_proof: self.store.inclusion_proof(leaf, size).await?, checkpoint })
    }
}

impl Witnessing {
    async fn post(&self, url: &Url, body: String) -> Result<(StatusCode, Vec<u8>), WitnessError> {
        let mut answer = self.http.post(url.clone()).body(body).send().await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(WitnessAnswerError::Syntax("it is too long").into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((answer.status(), bytes))
    }
}

/// How long a witness may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often it may name another size before it is left alone.
const ROUNDS: usize = 4;
/// The longest answer that is read, in bytes; a cosignature has some 150, those to come (ML-DSA-44) 3,400.
const ANSWER_MAX: usize = 64 * 1024;
