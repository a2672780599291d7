//! The licences of a node: which of them fits an image, and leases under them. The files are read anew each time, so that a
//! renewed licence is put in the place of the old one and serves at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use command_line::{ExitCode, Failure};
use held_lease::BootTime;
use jose::signing::VerifyingKey;
use launch_evidence::Attester;
use release_protocol::{LicenseFile, Obligations, Workload};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::record::KnownImage;
use crate::cli::OpeningArgs;
use crate::kbs::{Refused, ServiceClient};
use crate::license;
use crate::session::{self, LeaseHolder, check_obligations};
use crate::supervise::Deadlines;

/// The licences, and all that an attestation under them takes.
pub(crate) struct Licenses {
    /// The files, each with the right to ask for a seat of it or to give one back: one at a time, so that who comes next
    /// finds the seat that another gives back.
    files: BTreeMap<PathBuf, Arc<Mutex<()>>>,
    attester: Arc<dyn Attester>,
    opening: OpeningArgs,
}

/// A lease, just granted.
pub(crate) struct Held {
    pub(crate) holder: LeaseHolder,
    pub(crate) deadlines: Deadlines,
    pub(crate) obligations: Obligations,
    pub(crate) turn: Turn,
}

/// The right to ask for a seat of a licence.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Licenses {
    /// Reads the licences once, so that what is wrong with them shows at start.
    pub(crate) fn open(
        files: Vec<PathBuf>,
        attester: Arc<dyn Attester>,
        opening: OpeningArgs,
    ) -> Result<Self, Failure> {
        for file in &files {
            license::signers(license::read(file)?.unverified())?;
        }
        let files = files.into_iter().map(|file| (file, Arc::default())).collect();
        Ok(Self { files, attester, opening })
    }

    /// How images are found.
    pub(crate) fn opening(&self) -> &OpeningArgs {
        &self.opening
    }

    /// The signing keys of all licences.
    pub(crate) fn signers(&self) -> Result<Vec<VerifyingKey>, Failure> {
        let mut keys: Vec<VerifyingKey> = Vec::new();
        for file in self.files.keys() {
            for key in license::signers(license::read(file)?.unverified())? {
                if keys.iter().all(|known| known.thumbprint() != key.thumbprint()) {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    }

    /// Attests for the image under the first licence that fits it and is not denied.
    pub(crate) async fn hold(&self, image: &KnownImage, command: &[String]) -> Result<Held, Failure> {
        let mut denied = None;
        for (file, turn) in &self.files {
            let license = license::read(file)?;
            let keys = license::signers(license.unverified())?;
            if !fits(&license, &keys, image) {
                continue;
            }
            let turn = Arc::clone(turn).lock_owned().await;
            match self.hold_under(license, &keys, image, command, turn).await {
                Err(failure) if failure.code == ExitCode::Denied => denied = denied.or(Some(failure)),
                held => return held,
            }
        }
        Err(denied.unwrap_or_else(|| {
            Failure::denied(format!(
                "no licence of this node's agent is for the product `{}`",
                image.products.join("`, `")
            ))
            .hint("give the agent a licence for it by `--license`")
        }))
    }

    async fn hold_under(
        &self,
        license: LicenseFile,
        keys: &[VerifyingKey],
        image: &KnownImage,
        command: &[String],
        turn: Turn,
    ) -> Result<Held, Failure> {
        let workload = Workload {
            manifest_digest: image.manifest_digest.clone(),
            signers: image.signers.clone(),
            command: command.to_vec(),
        };
        let asked_at = BootTime::now();
        let attester = Arc::clone(&self.attester);
        let (holder, obligations) = session::hold(license, workload, attester, &self.opening).await?;
        if let Err(failure) = check_obligations(&obligations, holder.workload(), keys) {
            holder.release().await;
            return Err(failure);
        }
        let deadlines = Deadlines::of(&holder, asked_at);
        Ok(Held { holder, deadlines, obligations, turn })
    }

    /// Gives a lease back: whoever waits for a seat of its licence comes after.
    pub(crate) async fn release(&self, holder: &LeaseHolder) {
        let mut turns = Vec::new();
        for (file, turn) in &self.files {
            if license::read(file).is_ok_and(|license| license.unverified().id.0 == holder.lease.license) {
                turns.push(turn.lock().await);
            }
        }
        holder.release().await;
    }

    /// Gives back a lease of an earlier agent, by its token.
    pub(crate) async fn end(&self, license: &str, token: &str) -> Result<(), Failure> {
        for file in self.files.keys() {
            let read = license::read(file)?;
            if read.unverified().id.0 == license {
                return ServiceClient::new(read)?.end_lease(token).await.map_err(Refused::into_failure);
            }
        }
        Err(Failure::other(format!("the agent has no file of licence {license} any more")))
    }
}

/// Whether a licence is for the image: one of its products, signed by one of its signers.
fn fits(license: &LicenseFile, keys: &[VerifyingKey], image: &KnownImage) -> bool {
    let products = &license.unverified().products;
    image.products.iter().any(|product| products.iter().any(|licensed| licensed.as_str() == product))
        && keys.iter().any(|key| image.signers.contains(&key.thumbprint()))
}
