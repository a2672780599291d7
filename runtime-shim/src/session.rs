//! The road from a reference and a licence to the layers' keys: verify, attest, receive. `run`, `unpack` and the key provider
//! go all of it at once; the agent goes its parts, each when it is asked for. Where the service does not answer, an image may
//! start from what was kept of an earlier time (`session/opening.rs`).

mod holder;
mod joint;
mod opening;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use held_lease::{BootTime, ClockCheck, ReceiptBook};
use image_store::Store;
use jose::signing::VerifyingKey;
use launch_evidence::Attester;
use ocicrypt::options::PrivateOptions;
use release_protocol::{LeaseId, LicenseFile, Obligations, ProductName, ResourcePath, Workload};
use transparency_log::Receipt;
use zeroize::Zeroizing;

use crate::cli::{ImageArgs, OpeningArgs};
use crate::image::SignedImage;
use crate::kbs::{Challenged, Refused, ServiceClient};
use crate::offline::OfflineState;
use crate::trustee::{self, TrusteeToken};
use crate::{attester, license};
pub(crate) use holder::LeaseHolder;
use joint::Joint;
use opening::Opening;

/// An image that may run, and what lets it.
pub(crate) struct Session {
    pub(crate) released: Released,
    pub(crate) held: Held,
}

/// What lets an image run.
pub(crate) enum Held {
    /// A lease of the vendor's service.
    Lease(Box<LeaseHolder>),
    /// A lease of each partner's service.
    Joint(Joint),
    /// The word of a key broker that knows of no leases: good once, for as long as the workload runs.
    Token(Box<TrusteeToken>),
}

impl Held {
    /// Fetches a secret beside the image's keys.
    pub(crate) async fn secret(&self, path: &ResourcePath) -> Result<Zeroizing<Vec<u8>>, Refused> {
        match self {
            Self::Lease(holder) => holder.secret(path).await,
            Self::Joint(joint) => joint.secret(path).await,
            Self::Token(token) => token.secret(path).await,
        }
    }

    /// Gives back what can be.
    pub(crate) async fn release(&self) {
        match self {
            Self::Lease(holder) => holder.release().await,
            Self::Joint(joint) => joint.release().await,
            Self::Token(_) => {}
        }
    }
}

/// An image with its keys. No layer has been requested yet.
pub(crate) struct Released {
    pub(crate) store: Store,
    pub(crate) image: SignedImage,
    /// One for each layer; `None` for a plain one.
    pub(crate) layer_keys: Vec<Option<PrivateOptions>>,
    pub(crate) command: Vec<String>,
    /// The product that its keys belong to.
    pub(crate) product: ProductName,
    pub(crate) obligations: Obligations,
}

/// Verifies the image, attests, and receives its keys. No layer has been requested when this returns.
pub(crate) async fn open(args: &ImageArgs, command_args: &[String], console: &Console) -> Result<Session, Failure> {
    open_keeping(args, command_args, None, console).await
}

/// The same, and keeps what a later start needs sealed in the directory `offline`, or starts from that.
pub(crate) async fn open_keeping(
    args: &ImageArgs,
    command_args: &[String],
    offline: Option<&Path>,
    console: &Console,
) -> Result<Session, Failure> {
    match (args.license.as_slice(), offline) {
        ([], _) => trustee::open(args, command_args, console).await,
        ([license], _) => open_licensed(args, license, command_args, offline, console).await,
        (several, None) => joint::open(args, several, command_args, console).await,
        (_, Some(_)) => Err(Failure::usage("an image of several partners does not start without their services")
            .hint("leave `--offline-state` away: each of them has to be able to stop it")),
    }
}

async fn open_licensed(
    args: &ImageArgs,
    license: &Path,
    command_args: &[String],
    offline: Option<&Path>,
    console: &Console,
) -> Result<Session, Failure> {
    let license = license::read(license)?;
    let keys = license::signers(license.unverified())?;
    let (registry, reference) = (args.opening.registry.clone(), args.reference.clone());
    // Reads the system's certificates meanwhile.
    let store = tokio::spawn(async move { registry.open(&reference).await });
    let attester = attester::open(console);
    let conversation = Conversation::open(license.clone(), &args.opening)?;
    let asked = BootTime::now();
    // The service is greeted while the registry is asked; a failure of the image ends both.
    let greeting = async {
        match &attester {
            Ok(attester) => Ok::<_, Failure>(Some(conversation.client.challenge(attester).await)),
            Err(_) => Ok(None),
        }
    };
    let image = async {
        let store = store.await.or_fail(ExitCode::Other, || "cannot open the image".to_owned())??;
        let image = SignedImage::open(&store, &keys, args.opening.platform.as_deref()).await?;
        Ok((store, image))
    };
    let ((store, image), challenge) = tokio::try_join!(image, greeting)?;
    let command = image.command(command_args);
    let attester = attester?;
    let challenge = match challenge.filter(|_| asked.plus(CHALLENGE_KEEPS) > BootTime::now()) {
        Some(challenge) => challenge,
        None => conversation.client.challenge(&attester).await,
    };
    let key_paths = image.key_paths()?;
    let product = key_paths.first().map(|path| path.product.clone()).ok_or_else(no_lease)?;
    let workload = image.workload(command.clone());
    let offline = match offline {
        Some(directory) => {
            let id = &license.unverified().id.0;
            Some(OfflineState::open(directory, &*attester, id, &workload.manifest_digest)?)
        }
        None => None,
    };
    let opened = Opening { image: &image, keys: &keys, key_paths: &key_paths, workload, attester };
    let online = opened.online(conversation, challenge, offline.as_ref()).await;
    let (holder, obligations, layer_keys) = match (online, offline) {
        (Ok(online), None) => online.into_held(),
        (Ok(online), Some(offline)) => online.keep(offline, console).await?,
        (Err(failure), Some(offline)) if failure.code == ExitCode::Unavailable => {
            opened.resume(Conversation::open(license, &args.opening)?, offline, failure, console)?
        }
        (Err(failure), offline) => {
            if let Some(offline) = offline {
                offline.refused(&failure);
            }
            return Err(image.of_several(failure));
        }
    };
    let simulated = if holder.attester.is_simulated() { " (SIMULATED platform)" } else { "" };
    if !holder.is_cut_off() {
        let (lease, license) = (&holder.lease.id, &holder.lease.license);
        console.say(format!("attested{simulated}; holding lease {lease} of licence {license}"));
    }
    let released = Released { store, image, layer_keys, command, product, obligations };
    Ok(Session { released, held: Held::Lease(Box::new(holder)) })
}

/// How long a challenge may wait for its answer: services take them for five minutes.
const CHALLENGE_KEEPS: Duration = Duration::from_mins(2);

/// Attests for a workload; gives the lease and what the service obliges this shim to, which nobody has checked yet.
pub(crate) async fn hold(
    license: LicenseFile,
    workload: Workload,
    attester: Arc<dyn Attester>,
    opening: &OpeningArgs,
) -> Result<(LeaseHolder, Obligations), Failure> {
    let conversation = Conversation::open(license, opening)?;
    let challenge = conversation.client.challenge(&attester).await.map_err(Refused::into_failure)?;
    let (holder, attested) = conversation.hold(challenge, workload, attester, None).await?;
    Ok((holder, attested.obligations))
}

/// A service that was not asked for a lease yet, and the book for its receipts.
struct Conversation {
    client: ServiceClient,
    receipts: Option<ReceiptBook>,
}

impl Conversation {
    fn open(license: LicenseFile, opening: &OpeningArgs) -> Result<Self, Failure> {
        let log_key = license.unverified().service.log_key.as_ref();
        let receipts = log_key.map(|key| ReceiptBook::open(key, opening.receipts.as_deref())).transpose()?;
        let client = ServiceClient::new(license)?.with_init_data(opening.init_data.as_deref())?;
        Ok(Self { client, receipts })
    }

    /// Attests; `lease` goes on with one that is held already.
    async fn hold(
        self,
        challenge: Challenged,
        workload: Workload,
        attester: Arc<dyn Attester>,
        lease: Option<LeaseId>,
    ) -> Result<(LeaseHolder, Accepted), Failure> {
        let Self { client, receipts } = self;
        let attested = client.attest(&attester, challenge, Some(&workload), lease.as_ref()).await;
        let mut attested = attested.map_err(Refused::into_failure)?;
        let receipt = attested.answer.receipt.clone();
        let answer = &mut attested.answer;
        let mut holder = LeaseHolder {
            lease: answer.lease.take().ok_or_else(no_lease)?,
            client,
            attester,
            workload,
            token: std::mem::take(&mut answer.token),
            since: answer.news_since,
            receipts,
            clock: ClockCheck::default(),
            offline: None,
        };
        if let Err(refused) = holder.accept_receipt(&mut attested).await {
            // A seat must not stay taken by an instance that never starts; one that was taken before is kept for the next.
            if lease.is_none() {
                holder.release().await;
            }
            return Err(refused.into_failure());
        }
        let obligations = attested.answer.obligations.take().unwrap_or_default();
        Ok((holder, Accepted { obligations, receipt, asked: attested.asked }))
    }
}

/// What came with a lease, nothing of it judged yet.
struct Accepted {
    obligations: Obligations,
    receipt: Option<Receipt>,
    asked: BootTime,
}

fn no_lease() -> Failure {
    Failure::verification("the service attested this guest but granted no lease")
}

/// What the service obliges this shim to, as far as it can be judged before the start.
pub(crate) fn check_obligations(
    obligations: &Obligations,
    workload: &Workload,
    keys: &[VerifyingKey],
) -> Result<(), Failure> {
    if obligations.manifest_digest.as_ref().is_some_and(|digest| *digest != workload.manifest_digest) {
        return Err(Failure::verification("the service released another manifest than the one that was asked for"));
    }
    let (signed, threshold) = obligations.signed(&workload.signers);
    if signed < threshold {
        let known = keys.iter().map(VerifyingKey::thumbprint).collect::<Vec<_>>().join(", ");
        return Err(Failure::verification(format!("{signed} of the required {threshold} signers signed the image"))
            .cause(format!("the licence knows the keys {known}")));
    }
    if obligations.command.as_ref().is_some_and(|required| *required != workload.command) {
        return Err(Failure::denied("the release policy allows another command only")
            .hint("leave the arguments away, or ask the vendor to allow them"));
    }
    Ok(())
}
