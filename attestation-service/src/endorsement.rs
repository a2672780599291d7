//! Endorsements for evidence that comes without: from the operator's directory, else from the service's own store of
//! what it fetched before, else from AMD's key distribution service. Judging them is the verifier's.

mod collateral;
mod dated;
mod distribution;
mod shelf;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use launch_evidence::TrustRoots;
use launch_evidence::snp::Product;
use launch_evidence::snp::wanted::{WantedEndorsement, revocation_list_path, with_certificates};
use launch_evidence::tdx::wanted::{WantedCollateral, with_collateral};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use collateral::CollateralService;
pub use dated::NotTaken;
pub use distribution::DistributionError;
use distribution::DistributionService;
pub use shelf::Shelf;

/// AMD's key distribution service.
const AMD: &str = "https://kdsintf.amd.com/";

/// Intel's provisioning certification service.
const INTEL: &str = "https://api.trustedservices.intel.com/";

/// Where endorsements come from.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndorsementSettings {
    /// A directory of certificates (`<product>/<chip id>/<tcb>.der`) and revocation lists (`<product>/crl.der`), and of
    /// collateral for TDX (`tdx/*.json`), that the operator keeps; never written to.
    pub directory: Option<PathBuf>,
    /// Whether what is missing is fetched.
    pub fetch: bool,
    /// The base address of the key distribution service, or of a mirror of it.
    pub distribution_service: Url,
    /// The pause between two requests to it, in seconds: AMD allows about one in ten, a mirror of one's own more.
    pub pause_seconds: u64,
    /// The base address of Intel's provisioning certification service, or of a caching service (PCCS).
    pub collateral_service: Url,
}

impl Default for EndorsementSettings {
    fn default() -> Self {
        let parsed = |text| Url::parse(text).unwrap_or_else(|_| unreachable!("a constant that parses"));
        Self {
            directory: None,
            fetch: true,
            distribution_service: parsed(AMD),
            pause_seconds: 10,
            collateral_service: parsed(INTEL),
        }
    }
}

/// Why evidence could not be completed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndorsementError {
    /// AMD's or Intel's service cannot answer now.
    #[error("the service that has this machine's endorsement cannot be asked now")]
    Unavailable {
        /// When to ask again.
        retry_after: Duration,
        /// Why.
        #[source]
        source: DistributionError,
    },
}

/// Finds endorsements.
#[derive(Debug)]
pub struct Endorsements {
    given: Option<Shelf>,
    kept: Shelf,
    service: Option<DistributionService>,
    collateral: Option<CollateralService>,
}

impl Endorsements {
    /// A finder that keeps what it fetches below `kept`.
    ///
    /// # Errors
    /// When the HTTPS client cannot be set up.
    pub fn new(settings: &EndorsementSettings, kept: PathBuf) -> Result<Self, DistributionError> {
        let service = settings.fetch.then(|| DistributionService::new(settings));
        Ok(Self {
            given: settings.directory.clone().map(Shelf::at),
            kept: Shelf::at(kept),
            service: service.transpose()?,
            collateral: settings
                .fetch
                .then(|| CollateralService::new(settings.collateral_service.clone()))
                .transpose()?,
        })
    }

    /// The evidence with the certificate that it lacks, where one is to be had. What lacks nothing, and what no
    /// certificate can be found for, stays as it is: the verifier says what is missing.
    ///
    /// # Errors
    /// [`EndorsementError::Unavailable`] when the certificate may exist and cannot be fetched now.
    pub async fn complete(
        &self,
        primary: Value,
        roots: &TrustRoots,
        now: Timestamp,
    ) -> Result<Value, EndorsementError> {
        if let Some(wanted) = WantedCollateral::of(&primary) {
            return self.complete_quote(primary, &wanted, now).await;
        }
        let candidates = WantedEndorsement::candidates(&primary);
        let shelves = || self.given.iter().chain([&self.kept]);
        for wanted in &candidates {
            if let Some(found) = shelves().find_map(|shelf| shelf.read(&wanted.relative_path())) {
                return Ok(with_certificates(primary, &[found]));
            }
        }
        let Some(service) = &self.service else { return Ok(primary) };
        for wanted in &candidates {
            let path = wanted.relative_path();
            let fetched = service.fetch(&wanted.distribution_path(), || self.kept.read(&path)).await;
            let found = fetched.map_err(|source| unavailable(service, source))?;
            // Whoever answered in AMD's name: only what was wanted, and AMD signed, is kept.
            let Some(der) = found.filter(|der| roots.endorse(der, wanted, &primary)) else { continue };
            self.kept.write(&path, &der);
            return Ok(with_certificates(primary, &[der]));
        }
        Ok(primary)
    }

    /// A quote with its platform's collateral, no older than a day where it can be fetched. The operator's own is with
    /// the verifier already, which prefers it.
    async fn complete_quote(
        &self,
        primary: Value,
        wanted: &WantedCollateral,
        now: Timestamp,
    ) -> Result<Value, EndorsementError> {
        let path = PathBuf::from("tdx").join(format!("{}.json", wanted.fmspc));
        let kept = || self.kept.read(&path).and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let fresh = || self.kept.age(&path, now).is_some_and(|age| age < LIST_FRESH).then(kept).flatten();
        if let Some(collateral) = fresh() {
            return Ok(with_collateral(primary, collateral));
        }
        let Some(service) = &self.collateral else { return Ok(primary) };
        match service.fetch(&wanted.fmspc, wanted.authority, fresh).await {
            Ok(Some(collateral)) => {
                self.kept.write(&path, collateral.to_string().as_bytes());
                Ok(with_collateral(primary, collateral))
            }
            Ok(None) => Ok(primary),
            // Older than a day may still be within its own dates: the verifier judges these.
            Err(source) => match kept() {
                Some(collateral) => Ok(with_collateral(primary, collateral)),
                None => Err(EndorsementError::Unavailable { retry_after: Duration::from_secs(30), source }),
            },
        }
    }

    /// Collateral of TDX platforms in the operator's directory (`tdx/*.json`), each with its name.
    pub(crate) fn collateral(&self) -> Vec<(String, Vec<u8>)> {
        self.given.as_ref().map(|shelf| shelf.files("tdx", "json")).unwrap_or_default()
    }

    /// The revocation list of a product's root (DER), no older than a day where it can be fetched. One that is there and cannot
    /// be read is empty, not missing.
    pub async fn revocation_list(&self, product: Product, roots: &TrustRoots, now: Timestamp) -> Option<Vec<u8>> {
        let path = PathBuf::from(product.as_str()).join("crl.der");
        if let Some(list) = self.given.as_ref().and_then(|shelf| shelf.read_present(&path)) {
            return Some(list);
        }
        let is_usable = |list: Vec<u8>| roots.revocation_list_date(product, &list).is_ok();
        let fresh = self.kept.age(&path, now).is_some_and(|age| age < LIST_FRESH)
            && self.kept.read(&path).is_some_and(is_usable);
        if let (false, Some(service)) = (fresh, &self.service) {
            match service.fetch(&revocation_list_path(product), || None).await {
                // Whoever answered in AMD's name: what is kept makes room for nothing older, and for nothing that is no list.
                Ok(Some(list)) => match self.kept.check(roots, &path.display().to_string(), &list, now) {
                    Ok(()) => self.kept.write(&path, &list),
                    Err(error) => tracing::warn!(%product, %error, "the revocation list that was fetched is not taken"),
                },
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%product, error = &error as &dyn std::error::Error, "no fresh revocation list");
                }
            }
        }
        self.kept.read_present(&path)
    }
}

/// How old a list may be before a newer one is asked for.
const LIST_FRESH: Duration = Duration::from_hours(24);

fn unavailable(service: &DistributionService, source: DistributionError) -> EndorsementError {
    EndorsementError::Unavailable { retry_after: service.pause(), source }
}
