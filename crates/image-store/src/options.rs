//! How a store is reached: transport security, credentials, patience.

use std::path::PathBuf;
use std::time::Duration;

/// Options for opening a store. Only registries look at them.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Speak plain http. Without it, http is spoken only to loopback addresses (`localhost`, `127.0.0.0/8`, `::1`), and
    /// there only when https fails for another reason than a bad certificate.
    pub plain_http: bool,
    /// The one auth file to read. Without it, the usual files of Podman and Docker are searched.
    pub auth_file: Option<PathBuf>,
    /// Root certificates in PEM to trust beside those of the system.
    pub extra_root_certificates: Vec<Vec<u8>>,
    /// How failed requests are repeated.
    pub retry: RetryPolicy,
    /// How long a connection may take, and how long nothing may move on it.
    pub idle_timeout: Duration,
    /// The `User-Agent` of all requests.
    pub user_agent: &'static str,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            plain_http: false,
            auth_file: None,
            extra_root_certificates: Vec::new(),
            retry: RetryPolicy::default(),
            idle_timeout: Duration::from_mins(1),
            user_agent: concat!("sealift/", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// How failed requests are repeated: after `first_delay`, then twice as long each time, each delay shortened at random
/// by up to a half so that many clients do not come back together.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries in all. A transfer that moves bytes starts counting afresh.
    pub attempts: u32,
    /// The delay after the first failure.
    pub first_delay: Duration,
    /// The longest delay; also the longest `Retry-After` that is obeyed.
    pub longest_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, first_delay: Duration::from_millis(250), longest_delay: Duration::from_secs(30) }
    }
}
