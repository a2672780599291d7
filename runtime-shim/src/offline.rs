//! Doing without the service for a while: what a guest needs to start is kept sealed to it (`sealed.rs`), and how long it may still
//! do so is counted there, while it runs and over restarts (`allowance.rs`). A renewal can be carried by file (`renewal.rs`).

mod allowance;
mod record;
mod renewal;
mod sealed;

use std::convert::Infallible;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use command_line::{Answerer, ExitCode, Failure};
use held_lease::BootTime;
use jiff::Timestamp;
use jose::jwe::EphemeralKey;
use launch_evidence::Attester;
use ocicrypt::options::PrivateOptions;
use release_protocol::{Lease, LeaseId, Obligations, Workload};
use transparency_log::{Receipt, VerifierKey};
use zeroize::Zeroizing;

use self::allowance::{Allowance, Refusal};
use self::record::Record;
use self::sealed::SealedFile;

pub(crate) use self::renewal::run;

/// The sealed state of one image before it is known whether the service answers.
pub(crate) struct OfflineState {
    file: SealedFile,
    /// Another instance would share the seat.
    instance: File,
    /// What is kept already; or why it does not open.
    kept: Result<Option<Record>, Failure>,
}

/// What an instance holds besides its lease, that may do without the service.
pub(crate) struct Offline {
    file: SealedFile,
    _instance: File,
    counted: Mutex<Counted>,
    /// Whether the service has not answered since the start.
    is_cut_off: AtomicBool,
}

/// The allowance as it was last counted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    allowance: Allowance,
    at: BootTime,
}

/// What the newest attestation gave.
pub(crate) struct Grant<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) obligations: &'a Obligations,
    pub(crate) lease: &'a Lease,
    pub(crate) token: &'a str,
    pub(crate) since: Option<u64>,
    pub(crate) key: &'a EphemeralKey,
    pub(crate) log_key: Option<&'a VerifierKey>,
    pub(crate) receipt: Option<&'a Receipt>,
    /// When it was asked for.
    pub(crate) asked: BootTime,
}

/// What an instance starts from without the service.
pub(crate) struct Resumed {
    pub(crate) offline: Offline,
    pub(crate) lease: Lease,
    pub(crate) key: EphemeralKey,
    pub(crate) token: Zeroizing<String>,
    pub(crate) since: Option<u64>,
    pub(crate) obligations: Obligations,
    pub(crate) layer_keys: Vec<Option<PrivateOptions>>,
}

impl OfflineState {
    /// Looks for what is kept in `directory` of this licence and image.
    pub(crate) fn open(
        directory: &Path,
        attester: &dyn Attester,
        license: &str,
        manifest: &str,
    ) -> Result<Self, Failure> {
        let file = SealedFile::at(directory, attester, license, manifest)?;
        let instance = file.instance_lock()?;
        let kept = file.read();
        Ok(Self { file, instance, kept })
    }

    /// The lease that is kept, which a start continues, and its key.
    pub(crate) fn lease(&self) -> Result<Option<(LeaseId, EphemeralKey)>, Failure> {
        let Ok(Some(record)) = &self.kept else { return Ok(None) };
        Ok(Some((record.lease.id.clone(), record.lease_key()?)))
    }

    /// Keeps what the service has granted; none where it grants no allowance.
    pub(crate) fn keep(
        self,
        grant: &Grant<'_>,
        layer_keys: &[Option<PrivateOptions>],
    ) -> Result<Option<Offline>, Failure> {
        let Some(seconds) = grant.obligations.offline_seconds else {
            self.file.remove()?;
            return Ok(None);
        };
        let allowance = granted(seconds, grant.asked);
        let record = Record {
            workload: grant.workload.clone(),
            obligations: grant.obligations.clone(),
            lease: grant.lease.clone(),
            since: grant.since,
            token: Zeroizing::new(grant.token.to_owned()),
            key: Record::encoded_key(grant.key)?,
            layers: Record::encoded(layer_keys),
            log_key: grant.log_key.cloned(),
            receipt: grant.receipt.cloned(),
            allowance,
            pending: None,
        };
        let _lock = self.file.lock()?;
        self.file.write(&record)?;
        Ok(Some(self.running(allowance, false)))
    }

    /// Starts from what is kept, because the service does not answer. Nothing but the workload that was attested runs so.
    pub(crate) fn resume(self, unavailable: Failure, workload: &Workload) -> Result<Resumed, Failure> {
        let _lock = self.file.lock()?;
        // Another process of this guest may have accepted a renewal since it was looked for.
        let mut record = match self.kept.and_then(|_| self.file.read()) {
            Ok(Some(record)) => record,
            Ok(None) => {
                let none =
                    format!("there is no sealed state of this image and licence: `{}`", self.file.path().display());
                return Err(unavailable.cause(none));
            }
            Err(failure) => return Err(failure.cause(unavailable.message)),
        };
        if record.workload != *workload {
            return Err(Failure::denied("without the service only the command that was attested can run")
                .cause(format!("the sealed state is of the command {:?}", record.workload.command))
                .hint("leave the arguments as they were, or start once where the service can be reached"));
        }
        let taken_up = record.allowance.take_up(now());
        // An end that was seen is the end, wherever the clock is set to then.
        self.file.write(&record)?;
        taken_up.map_err(|refusal| refused(refusal, &unavailable))?;
        let (key, layer_keys) = (record.lease_key()?, record.layer_keys()?);
        let Record { lease, token, since, obligations, allowance, .. } = record;
        let offline = Self { kept: Ok(None), file: self.file, instance: self.instance }.running(allowance, true);
        Ok(Resumed { offline, lease, key, token, since, obligations, layer_keys })
    }

    /// Forgets what is kept where the service itself has refused.
    pub(crate) fn refused(&self, failure: &Failure) {
        forget_if_refused(&self.file, failure);
    }

    fn running(self, allowance: Allowance, is_cut_off: bool) -> Offline {
        let counted = Counted { allowance, at: BootTime::now() };
        Offline {
            file: self.file,
            _instance: self.instance,
            counted: Mutex::new(counted),
            is_cut_off: AtomicBool::new(is_cut_off),
        }
    }
}

impl Offline {
    /// When the allowance is over, unless it is renewed.
    pub(crate) fn ends_at(&self) -> BootTime {
        let Counted { mut allowance, at } = *self.counted();
        allowance.count(now(), at.since());
        BootTime::now().plus(allowance.left())
    }

    /// Whether the service has not answered since the start: nothing but the allowance bounds this instance then.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Acquire)
    }

    /// Takes up a renewal by the service. One that cannot be kept costs a later start, not this one.
    pub(crate) fn renewed(&self, grant: &Grant<'_>) {
        self.is_cut_off.store(false, Ordering::Release);
        let allowance = granted(grant.obligations.offline_seconds.unwrap_or_default(), grant.asked);
        *self.counted() = Counted { allowance, at: BootTime::now() };
        if grant.obligations.offline_seconds.is_none() {
            return self.forget();
        }
        let kept = self.change(|record| {
            record.obligations = grant.obligations.clone();
            record.lease = grant.lease.clone();
            record.token = Zeroizing::new(grant.token.to_owned());
            record.since = grant.since;
            record.receipt = grant.receipt.cloned();
            record.allowance = allowance;
            record.pending = None;
        });
        if let Err(failure) = kept {
            tracing::warn!("the renewal could not be kept for a start without the service: {failure}");
        }
    }

    /// Counts the time that has gone by since the last time, so that it stays counted; takes up what was renewed by file.
    pub(crate) fn count(&self) {
        let Counted { mut allowance, at: before } = *self.counted();
        let at = BootTime::now();
        let ran = before.until_that(at);
        let mut is_counted = false;
        // Nobody who asks for the end waits for the disk meanwhile.
        let kept = self.change(|record| {
            record.allowance.count(now(), ran);
            (allowance, is_counted) = (record.allowance, true);
        });
        if let Err(failure) = kept {
            tracing::warn!("the offline allowance could not be counted on disk: {failure}");
        }
        if !is_counted {
            // The host may take the disk away, but not the count of this very instance.
            allowance.count(now(), ran);
        }
        *self.counted() = Counted { allowance, at };
    }

    /// Counts for as long as the instance runs, beside what watches the lease's end.
    pub(crate) async fn keep_counting(self: Arc<Self>) -> Infallible {
        loop {
            tokio::time::sleep(COUNT_EVERY).await;
            let offline = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || offline.count()).await {
                tracing::warn!(%error, "the offline allowance could not be counted");
            }
        }
    }

    /// Forgets what is kept where the service itself has ended it.
    pub(crate) fn lost(&self, failure: &Failure) {
        forget_if_refused(&self.file, failure);
    }

    /// Forgets what is kept: it is not to be started from again.
    pub(crate) fn forget(&self) {
        if let Err(failure) = self.file.remove() {
            tracing::warn!("{failure}");
        }
    }

    /// Changes what is kept; nothing, where it is there no more.
    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), Failure> {
        let _lock = self.file.lock()?;
        let Some(mut record) = self.file.read()? else { return Ok(()) };
        change(&mut record);
        self.file.write(&record)
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often the time that goes by is counted on disk.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// An allowance that counts from when it was asked for.
fn granted(seconds: u64, asked: BootTime) -> Allowance {
    let now = now();
    let since = i64::try_from(asked.since().as_millis()).unwrap_or(i64::MAX);
    Allowance::granted(seconds, now.saturating_sub(since), now)
}

/// The wall clock, in milliseconds.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

fn refused(refusal: Refusal, unavailable: &Failure) -> Failure {
    let failure = Failure::denied("nothing can start without the service any more").caused_by(&refusal);
    let hint = match refusal {
        Refusal::ClockBack { .. } => "set this machine's clock right, then start again",
        Refusal::Over { .. } => {
            "start where the service can be reached, or renew by file (`sealift-shim renewal request`)"
        }
    };
    failure.cause(unavailable.message.clone()).hint(hint)
}

/// The service's no ends what is kept; its silence, or somebody else in its place, does not.
fn forget_if_refused(file: &SealedFile, failure: &Failure) {
    let is_final = matches!(failure.code, ExitCode::Denied | ExitCode::VerificationFailed);
    if failure.answerer != Answerer::Service || !is_final {
        return;
    }
    if let Err(failure) = file.remove() {
        tracing::warn!("{failure}");
    }
}
