//! Endorsements for evidence that comes without: from the operator's directory, else from the service's own store of
//! what it fetched before, else from AMD's key distribution service. Judging them is the verifier's.

mod distribution;
mod shelf;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use launch_evidence::TrustRoots;
use launch_evidence::snp::Product;
use launch_evidence::snp::wanted::{WantedEndorsement, revocation_list_path, with_certificates};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

pub use distribution::DistributionError;
use distribution::DistributionService;
pub use shelf::Shelf;

/// AMD's key distribution service.
const AMD: &str = "https://kdsintf.amd.com/";

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
}

impl Default for EndorsementSettings {
    fn default() -> Self {
        let distribution_service = Url::parse(AMD).unwrap_or_else(|_| unreachable!("a constant that parses"));
        Self { directory: None, fetch: true, distribution_service, pause_seconds: 10 }
    }
}

/// Why evidence could not be completed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndorsementError {
    /// The key distribution service cannot answer now.
    #[error("AMD's key distribution service cannot be asked now")]
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
        })
    }

    /// The evidence with the certificate that it lacks, where one is to be had. What lacks nothing, and what no
    /// certificate can be found for, stays as it is: the verifier says what is missing.
    ///
    /// # Errors
    /// [`EndorsementError::Unavailable`] when the certificate may exist and cannot be fetched now.
    pub async fn complete(&self, primary: Value, roots: &TrustRoots) -> Result<Value, EndorsementError> {
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
            // Whoever answered in AMD's name: only what AMD signed is kept.
            let Some(der) = found.filter(|der| roots.endorse(der, &primary)) else { continue };
            self.kept.write(&path, &der);
            return Ok(with_certificates(primary, &[der]));
        }
        Ok(primary)
    }

    /// Collateral of TDX platforms in the operator's directory (`tdx/*.json`), each with its name.
    pub(crate) fn collateral(&self) -> Vec<(String, Vec<u8>)> {
        self.given.as_ref().map(|shelf| shelf.files("tdx", "json")).unwrap_or_default()
    }

    /// The revocation list of a product's root (DER), no older than a day where it can be fetched.
    pub async fn revocation_list(&self, product: Product, now: Timestamp) -> Option<Vec<u8>> {
        let path = PathBuf::from(product.as_str()).join("crl.der");
        if let Some(list) = self.given.as_ref().and_then(|shelf| shelf.read(&path)) {
            return Some(list);
        }
        let fresh = self.kept.age(&path, now).is_some_and(|age| age < LIST_FRESH);
        if let (false, Some(service)) = (fresh, &self.service) {
            match service.fetch(&revocation_list_path(product), || None).await {
                Ok(Some(list)) => self.kept.write(&path, &list),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%product, error = &error as &dyn std::error::Error, "no fresh revocation list");
                }
            }
        }
        self.kept.read(&path)
    }
}

/// How old a list may be before a newer one is asked for.
const LIST_FRESH: Duration = Duration::from_hours(24);

fn unavailable(service: &DistributionService, source: DistributionError) -> EndorsementError {
    EndorsementError::Unavailable { retry_after: service.pause(), source }
}
