//! What verified evidence says, one variant for each TEE. What each says stands in the TEE's own module.

use serde::Serialize;
use serde_json::{Value, json};

use crate::az_snp_vtpm;
use crate::identity::{ChipId, Measurement};
use crate::sample;
use crate::snp;
use crate::tdx;

/// The claims of one piece of evidence. Serialises to the variant's own members, flat; the member `tee`
/// tells the variants apart, for policies and tokens alike.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Claims {
    /// AMD SEV-SNP; `tee` is `snp`.
    Snp(Box<snp::claims::Claims>),
    /// An Azure machine with SEV-SNP and a vTPM; `tee` is `az-snp-vtpm`.
    AzSnpVtpm(Box<az_snp_vtpm::claims::Claims>),
    /// Intel TDX; `tee` is `tdx`.
    Tdx(Box<tdx::claims::Claims>),
    /// No TEE; `tee` is `sample`. Simulated, whoever sends it.
    Sample(Box<sample::Claims>),
}

impl Claims {
    /// The claims of an SEV-SNP report, of its own evidence or inside another's.
    pub fn snp(&self) -> Option<&snp::claims::Claims> {
        match self {
            Self::Snp(claims) => Some(claims),
            Self::AzSnpVtpm(claims) => Some(&claims.snp),
            Self::Tdx(_) | Self::Sample(_) => None,
        }
    }

    /// The claims of a TDX quote.
    pub fn tdx(&self) -> Option<&tdx::claims::Claims> {
        match self {
            Self::Tdx(claims) => Some(claims),
            Self::Snp(_) | Self::AzSnpVtpm(_) | Self::Sample(_) => None,
        }
    }

    /// The claims of an Azure machine.
    pub fn az_snp_vtpm(&self) -> Option<&az_snp_vtpm::claims::Claims> {
        match self {
            Self::AzSnpVtpm(claims) => Some(claims),
            Self::Snp(_) | Self::Tdx(_) | Self::Sample(_) => None,
        }
    }

    /// The platform in the words that licences and denials use: `product`, and as far as they are known `cpuid_model`,
    /// `chip_id` or `csp_id`, `reported_tcb`; of a TD its `fmspc`.
    pub fn platform(&self) -> Value {
        match self.snp() {
            Some(claims) => claims.platform(),
            None => self.tdx().map_or(
                Value::Null,
                |claims| json!({"product": "TDX", "fmspc": claims.fmspc, "chip_id": claims.platform()}),
            ),
        }
    }

    /// The TEE's name as the key broker protocol spells it.
    pub fn tee(&self) -> &'static str {
        match self {
            Self::Snp(claims) => claims.tee,
            Self::AzSnpVtpm(claims) => claims.snp.tee,
            Self::Tdx(claims) => claims.tee,
            Self::Sample(claims) => claims.tee,
        }
    }

    pub(crate) fn measurement(&self) -> Measurement {
        match self {
            Self::Snp(claims) => claims.measurement,
            Self::AzSnpVtpm(claims) => claims.snp.measurement,
            Self::Tdx(claims) => claims.mrtd,
            Self::Sample(_) => sample::Claims::measurement(),
        }
    }

    pub(crate) fn chip_id(&self) -> ChipId {
        match self {
            Self::Snp(claims) => claims.chip_id,
            Self::AzSnpVtpm(claims) => claims.snp.chip_id,
            Self::Tdx(claims) => claims.platform(),
            Self::Sample(_) => sample::Claims::chip_id(),
        }
    }

    /// A report id is the firmware's random choice. A quote tells one TD from another by nothing that the host cannot choose.
    pub(crate) fn guest_id(&self) -> Option<&str> {
        self.snp().map(|claims| claims.report_id.as_str())
    }

    pub(crate) fn is_simulated(&self) -> bool {
        match self {
            Self::Snp(claims) => claims.simulated,
            Self::AzSnpVtpm(claims) => claims.snp.simulated,
            Self::Tdx(claims) => claims.simulated,
            Self::Sample(claims) => claims.simulated,
        }
    }
}

impl From<snp::claims::Claims> for Claims {
    fn from(claims: snp::claims::Claims) -> Self {
        Self::Snp(Box::new(claims))
    }
}

impl From<sample::Claims> for Claims {
    fn from(claims: sample::Claims) -> Self {
        Self::Sample(Box::new(claims))
    }
}

impl From<tdx::claims::Claims> for Claims {
    fn from(claims: tdx::claims::Claims) -> Self {
        Self::Tdx(Box::new(claims))
    }
}

impl From<az_snp_vtpm::claims::Claims> for Claims {
    fn from(claims: az_snp_vtpm::claims::Claims) -> Self {
        Self::AzSnpVtpm(Box::new(claims))
    }
}
