//! What a verified quote says, as release policies and tokens read it.

use serde::Serialize;

use super::TEE;
use super::endorsement::Endorsement;
use super::quote::{
    MR_CONFIG_ID, MR_OWNER, MR_OWNER_CONFIG, MR_SEAM, MR_SIGNER_SEAM, MR_TD, Quote, REPORT_DATA, RTMR, SEAM_ATTRIBUTES,
    TD_ATTRIBUTES, TEE_TCB_SVN, XFAM,
};
use super::status::TcbStatus;
use crate::identity::{ChipId, Measurement};

/// Every field of a quote's TD report, and what Intel says of the platform. Byte strings are lower-case
/// hexadecimal. There is no member `measurement`: MRTD measures the firmware only, what boots above it is in
/// the RTMRs, and a policy that names one must name the others.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    /// `tdx`.
    pub tee: &'static str,
    /// False: there is no simulated TDX platform.
    pub simulated: bool,
    /// The quote's version: 4 or 5.
    pub quote_version: u16,
    /// `TEE_TCB_SVN`: what ran when the TD was launched.
    pub tee_tcb_svn: String,
    /// `TEE_TCB_SVN2`: what runs now; absent before TDX 1.5.
    pub tee_tcb_svn2: Option<String>,
    /// The measurement of the TDX module.
    pub mr_seam: String,
    /// Who signed the TDX module; zero for Intel.
    pub mr_signer_seam: String,
    /// The TDX module's attributes.
    pub seam_attributes: String,
    /// The TD's attributes.
    pub td_attributes: TdAttributes,
    /// The processor features that the TD may use.
    pub xfam: String,
    /// MRTD: the measurement of what was in the TD's memory at launch, its firmware.
    pub mrtd: Measurement,
    /// What the host passed at launch: the digest of the initialisation data, or zero.
    pub mr_config_id: String,
    /// The owner, as the host has it.
    pub mr_owner: String,
    /// The owner's configuration, as the host has it.
    pub mr_owner_config: String,
    /// Run-time measurements: the firmware's configuration.
    pub rtmr0: Measurement,
    /// Run-time measurements: the boot loader or kernel.
    pub rtmr1: Measurement,
    /// Run-time measurements: the operating system.
    pub rtmr2: Measurement,
    /// Run-time measurements: left to applications.
    pub rtmr3: Measurement,
    /// The 64 bytes that the guest passed.
    pub report_data: String,
    /// The service TDs; absent before TDX 1.5.
    pub mr_service_td: Option<String>,
    /// Intel's verdict on the platform.
    pub tcb_status: TcbStatus,
    /// The security advisories that concern the platform.
    pub advisory_ids: Vec<String>,
    /// The number of Intel's TCB evaluation behind the verdict.
    pub tcb_evaluation_data_number: u32,
    /// The platform's family, model, stepping, type and customisation.
    pub fmspc: String,
    /// The platform, by the PPID in its certificate.
    pub ppid: String,
}

/// A TD's attributes (Intel TDX module ABI, `TD_ATTRIBUTES`).
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "these are the bits of the report")]
pub struct TdAttributes {
    /// The whole field, with bits that have no name here.
    pub bits: u64,
    /// The host may debug, that is, read the TD.
    pub debug: bool,
    /// Accesses to pending pages fault instead of raising an exception that the host can inject.
    pub sept_ve_disable: bool,
    /// The TD can be migrated.
    pub migratable: bool,
    /// Supervisor protection keys.
    pub pks: bool,
    /// Key locker.
    pub kl: bool,
    /// Performance monitoring.
    pub perfmon: bool,
}

impl TdAttributes {
    pub(crate) fn new(quote: &Quote<'_>) -> Self {
        let bits = u64::from_le_bytes(quote.array(TD_ATTRIBUTES));
        let bit = |index: u32| bits & (1 << index) != 0;
        Self {
            bits,
            debug: bit(0),
            sept_ve_disable: bit(28),
            migratable: bit(29),
            pks: bit(30),
            kl: bit(31),
            perfmon: bit(63),
        }
    }
}

impl Claims {
    pub(crate) fn new(quote: &Quote<'_>, endorsement: Endorsement) -> Self {
        let digest = |offset| hex::encode(quote.array::<48>(offset));
        let register = |index: usize| Measurement(quote.array(RTMR + 48 * index));
        Self {
            tee: TEE,
            simulated: false,
            quote_version: quote.version,
            tee_tcb_svn: hex::encode(quote.array::<16>(TEE_TCB_SVN)),
            tee_tcb_svn2: quote.tee_tcb_svn2().map(hex::encode),
            mr_seam: digest(MR_SEAM),
            mr_signer_seam: digest(MR_SIGNER_SEAM),
            seam_attributes: hex::encode(quote.array::<8>(SEAM_ATTRIBUTES)),
            td_attributes: TdAttributes::new(quote),
            xfam: hex::encode(quote.array::<8>(XFAM)),
            mrtd: Measurement(quote.array(MR_TD)),
            mr_config_id: digest(MR_CONFIG_ID),
            mr_owner: digest(MR_OWNER),
            mr_owner_config: digest(MR_OWNER_CONFIG),
            rtmr0: register(0),
            rtmr1: register(1),
            rtmr2: register(2),
            rtmr3: register(3),
            report_data: hex::encode(quote.array::<64>(REPORT_DATA)),
            mr_service_td: quote.mr_service_td().map(hex::encode),
            tcb_status: endorsement.status,
            advisory_ids: endorsement.advisory_ids,
            tcb_evaluation_data_number: endorsement.evaluation,
            fmspc: hex::encode(endorsement.fmspc),
            ppid: hex::encode(endorsement.ppid),
        }
    }

    /// The platform in the form of a chip id: its PPID, zero behind it.
    pub(crate) fn platform(&self) -> ChipId {
        let mut id = [0; ChipId::LEN];
        if let Some(front) = id.get_mut(..self.ppid.len() / 2) {
            // Hexadecimal that was made above.
            let _ = hex::decode_to_slice(&self.ppid, front);
        }
        ChipId(id)
    }
}
