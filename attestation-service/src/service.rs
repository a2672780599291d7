//! The service's state: store, keys, verifiers, compiled policies. What it decides stands in `decision.rs`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use jose::KeyError;
use jose::jws::JwsError;
use jose::signing::SigningKey;
use release_protocol::{License, LicenseError, ServiceAddress};

use crate::custodian::Custodian;
use crate::custody::CustodyError;
use crate::endorsement::DistributionError;
use crate::home::{Home, HomeError, ServiceSettings};
use crate::limits::LimitSettings;
use crate::log_head::{LogHead, LogHeadError};
use crate::metrics::Metrics;
use crate::policy::{PolicyError, ReleasePolicy};
use crate::relay::RelayAuthority;
use crate::store::{ProductRules, Store, StoreError};
use crate::token::TokenIssuer;
use crate::verification::Verification;
use crate::verified::Verified;
use crate::watch::Stopping;
use crate::witness::Witnessing;

/// What the service could not do for a reason that is not the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys at rest.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// The home's files.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A token could not be signed.
    #[error("a token could not be signed")]
    Token(#[from] JwsError),
    /// A licence could not be signed.
    #[error("a licence could not be signed")]
    License(#[from] LicenseError),
    /// A signing key is malformed.
    #[error("a signing key is malformed")]
    Key(#[from] KeyError),
    /// An answer could not be encrypted to the guest.
    #[error("an answer could not be encrypted to the guest")]
    Encrypt(#[from] jose::jwe::EncryptError),
    /// The audit log's checkpoint could not be signed.
    #[error("the audit log's checkpoint could not be signed")]
    Checkpoint(#[from] transparency_log::CheckpointError),
    /// The audit log cannot be continued.
    #[error(transparent)]
    LogHead(#[from] LogHeadError),
    /// A policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The client of the key distribution service cannot be set up.
    #[error("endorsements cannot be fetched")]
    Distribution(#[from] DistributionError),
    /// A trust root is malformed.
    #[error("a trust root cannot be used: {0}")]
    TrustRoot(String),
    /// The base64 of a key that is not 32 bytes, or a name that is none.
    #[error("{0}")]
    BadRequest(String),
    /// The cosignatures of witnesses do not go into one note.
    #[error("the witnesses' cosignatures could not be put together")]
    Cosignatures(#[source] transparency_log::WitnessAnswerError),
    /// The client of the audit log's witnesses cannot be set up.
    #[error("witnesses of the audit log cannot be asked")]
    WitnessClient(#[source] reqwest::Error),
    /// A time that no clock reaches.
    #[error("a time is out of range")]
    Time(#[from] jiff::Error),
    /// A task of the runtime was lost.
    #[error("a background task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// How the service runs, beyond what its home says.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Where it is reached; licences carry it.
    pub settings: ServiceSettings,
    /// Root certificates (DER) of simulated platforms whose evidence is accepted. Empty: none is, as it should be.
    pub simulated_roots: Vec<Vec<u8>>,
    /// The clock.
    pub clock: fn() -> Timestamp,
}

/// The attestation service.
pub struct Service {
    pub(crate) store: Store,
    pub(crate) tokens: TokenIssuer,
    pub(crate) license_key: SigningKey,
    /// Licences by the files that were presented.
    pub(crate) licenses: Verified<License>,
    pub(crate) log_signer: transparency_log::NoteSigner,
    pub(crate) log_head: LogHead,
    pub(crate) witnessing: Witnessing,
    pub(crate) custodian: Custodian,
    pub(crate) verification: Verification,
    pub(crate) address: ServiceAddress,
    pub(crate) stopping: Stopping,
    pub(crate) allows_simulated: bool,
    pub(crate) limits: LimitSettings,
    pub(crate) metrics: Metrics,
    /// Until when it hands on what another service delegated to it.
    pub(crate) relay: RelayAuthority,
    /// How far from now a request for renewal by file may have been made.
    pub(crate) renewal_window: SignedDuration,
    policies: Mutex<HashMap<String, ReleasePolicy>>,
    clock: fn() -> Timestamp,
}

impl Service {
    /// Opens the home's database and keys.
    pub async fn open(home: &Home, options: ServiceOptions) -> Result<Self, ServiceError> {
        let allows_simulated = !options.simulated_roots.is_empty();
        let verification = Verification::new(home, &options.settings.evidence, &options.simulated_roots)?;
        let log_signer = home.log_signer(&options.settings.url)?;
        let metrics = Metrics::default();
        let renewal_window = options.settings.renewal_window();
        let witnessing = Witnessing::new(home, &options.settings.log, &log_signer.verifier_key())?;
        metrics.cosigned(witnessing.newest().map_or(0, |newest| newest.unverified().size.get()));
        let store = Store::open(&home.database(&options.settings)).await?;
        let custodian = Custodian::open(home, &options.settings, &store, (options.clock)()).await?;
        Ok(Self {
            tokens: TokenIssuer::new(home.token_key()?),
            license_key: home.license_key()?,
            licenses: Verified::default(),
            address: ServiceAddress {
                url: options.settings.url,
                ca_pem: home.ca_pem()?,
                log_key: Some(log_signer.verifier_key()),
            },
            log_head: LogHead::open(home, &log_signer.verifier_key(), &store).await?,
            log_signer,
            store,
            witnessing,
            custodian,
            verification,
            allows_simulated,
            stopping: Stopping::new(),
            renewal_window,
            limits: options.settings.limits,
            metrics,
            relay: RelayAuthority::default(),
            policies: Mutex::new(HashMap::new()),
            clock: options.clock,
        })
    }

    /// Whether evidence of simulated platforms is accepted.
    pub fn allows_simulated(&self) -> bool {
        self.allows_simulated
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps revocation lists and collateral fresh, for ever. Until it has run for the first time there are none.
    pub async fn keep_endorsements_fresh(&self) {
        self.verification.keep_fresh(self.clock).await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The product's policy, compiled once for each version of its source.
    pub(crate) async fn policy(&self, product: &ProductRules) -> Result<ReleasePolicy, ServiceError> {
        let policies = || self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = policies().get(&product.policy_digest) {
            return Ok(policy.clone());
        }
        let policy = ReleasePolicy::compile_in_turn(product.policy.clone()).await??;
        policies().insert(product.policy_digest.clone(), policy.clone());
        Ok(policy)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("address", &self.address.url).finish_non_exhaustive()
    }
}

/// The service as the HTTP layer shares it.
pub(crate) type SharedService = Arc<Service>;
