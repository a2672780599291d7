//! What verified evidence says, one variant for each TEE. What each says stands in the TEE's own module.

use serde::Serialize;

use crate::identity::{ChipId, Measurement};
use crate::snp;

/// The claims of one piece of evidence. Serialises to the variant's own members, flat; the member `tee`
/// tells the variants apart, for policies and tokens alike.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Claims {
    /// AMD SEV-SNP; `tee` is `snp`.
    Snp(Box<snp::claims::Claims>),
}

impl Claims {
    /// The claims of an SEV-SNP report, of its own evidence or inside another's.
    pub fn snp(&self) -> Option<&snp::claims::Claims> {
        match self {
            Self::Snp(claims) => Some(claims),
        }
    }

    /// The TEE's name as the key broker protocol spells it.
    pub fn tee(&self) -> &'static str {
        match self {
            Self::Snp(claims) => claims.tee,
        }
    }

    pub(crate) fn measurement(&self) -> Measurement {
        match self {
            Self::Snp(claims) => claims.measurement,
        }
    }

    pub(crate) fn chip_id(&self) -> ChipId {
        match self {
            Self::Snp(claims) => claims.chip_id,
        }
    }

    pub(crate) fn is_simulated(&self) -> bool {
        match self {
            Self::Snp(claims) => claims.simulated,
        }
    }
}

impl From<snp::claims::Claims> for Claims {
    fn from(claims: snp::claims::Claims) -> Self {
        Self::Snp(Box::new(claims))
    }
}
