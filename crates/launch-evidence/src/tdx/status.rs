//! Intel's verdict on a platform's TCB, and what of it is acceptable.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a platform's TCB level, as Intel spells it (Intel PCS API version 4, TCB information).
/// `Revoked` is missing: no configuration can accept it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum TcbStatus {
    /// Every part is at the level that Intel asks for.
    UpToDate,
    /// The platform is up to date, but its software must mitigate something.
    SWHardeningNeeded,
    /// The platform is up to date, but must be configured differently.
    ConfigurationNeeded,
    /// Both of these.
    ConfigurationAndSWHardeningNeeded,
    /// Parts are older than Intel asks for.
    OutOfDate,
    /// Parts are older, and the platform must be configured differently.
    OutOfDateConfigurationNeeded,
    /// The TD was launched when parts were older; the platform has been updated under it.
    TDRelaunchAdvised,
    /// That, and the platform must be configured differently.
    TDRelaunchAdvisedConfigurationNeeded,
}

impl TcbStatus {
    /// The one that is called `name`; `None` for `Revoked` and unknown names.
    pub(crate) fn named(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::from(name)).ok()
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are spelled as Intel spells them.
        fmt::Debug::fmt(self, f)
    }
}

/// What is required of TDX guests beyond what is required of all.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TdxRequirements {
    /// The statuses that are accepted of the platform, and of its current TCB where a quote has both. Default
    /// only [`TcbStatus::UpToDate`].
    pub tcb_statuses: Vec<TcbStatus>,
}

impl Default for TdxRequirements {
    fn default() -> Self {
        Self { tcb_statuses: vec![TcbStatus::UpToDate] }
    }
}
