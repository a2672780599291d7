//! Judging evidence: what is expected, what is required, and the two outcomes.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::{Check, Verdict};
use crate::claims::Claims;
use crate::devices::{DeviceClaims, JudgedDevices, UnverifiedDevices};
use crate::identity::{ChipId, KeyDigest, Measurement};
use crate::snp::Product;
use crate::tdx::TdxRequirements;

/// TEE evidence by its name behind one trait, one implementation a file.
pub trait Verifier: Send + Sync {
    /// The TEE's name as the key broker protocol spells it, for example `snp`.
    fn tee(&self) -> &'static str;

    /// Whether `primary` looks like evidence of this TEE, by its members alone: to pick a verifier by.
    fn recognises(&self, primary: &Value) -> bool;

    /// What `primary` itself says it is bound to; `None` where it cannot be read. Nothing of it is verified.
    fn binding(&self, primary: &Value) -> Option<Binding>;

    /// Judges `primary`, the protocol's `primary_evidence`. Pure: no I/O, no clock of its own, and no memory of
    /// evidence or verdicts.
    ///
    /// # Errors
    /// [`EvidenceRejected`] with every check that was made when at least one failed.
    ///
    /// # Security
    /// Whether the measurement is one to trust, and whether the platform is denied, is left to the release
    /// policy unless [`Requirements`] name reference values. Do not key a replay cache by
    /// [`VerifiedEvidence::evidence_digest`]: an ECDSA signature has a second valid form.
    fn verify(&self, primary: &Value, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected>;
}

/// What one piece of evidence must say.
#[derive(Clone, Debug)]
pub struct Expected {
    /// All 64 bytes of the report data, zero-padded by the caller where its digest is shorter.
    pub report_data: [u8; 64],
    /// What the host had to pass at launch.
    pub host_data: HostData,
    /// What is required of every guest.
    pub requirements: Requirements,
    /// The verifier's clock.
    pub now: Timestamp,
}

/// What evidence says it is bound to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Binding {
    /// The report data, or what stands for them.
    pub report_data: [u8; 64],
    /// The host's data; `None` where the caller's are not compared with it.
    pub host_data: Option<HostData>,
}

/// What the host had to pass at launch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostData {
    /// Nothing: 32 zero bytes.
    Zero,
    /// The SHA-256 of the initialisation data presented.
    Sha256([u8; 32]),
}

impl HostData {
    /// The 32 bytes as a report carries them, the other way round.
    pub(crate) fn from_report(bytes: [u8; 32]) -> Self {
        if bytes == [0; 32] { Self::Zero } else { Self::Sha256(bytes) }
    }

    /// The 32 bytes as a report carries them.
    pub fn bytes(self) -> [u8; 32] {
        match self {
            Self::Zero => [0; 32],
            Self::Sha256(digest) => digest,
        }
    }
}

/// What is required of every guest, whatever its workload. The default is the strict one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in a configuration file")]
pub struct Requirements {
    /// The privilege level that must have asked for the report. Default 0, the most privileged.
    pub vmpl: u32,
    /// The oldest report version accepted: 2, 3 or 5. Default 2.
    pub minimum_version: u32,
    /// Accept guests that the host may debug, that is, read. Default no.
    pub allow_debug: bool,
    /// Accept SNP guests that may be associated with a migration agent. Default no. A TD that can be migrated is
    /// never accepted.
    pub allow_migration_agent: bool,
    /// Refuse SNP reports that a provider's key signed, which names no chip. Default no.
    pub require_chip_binding: bool,
    /// Refuse guests whose policy lets sibling threads of a core run at once. Default no.
    pub forbid_smt: bool,
    /// Refuse guests whose policy lets them span sockets. Default no.
    pub require_single_socket: bool,
    /// The lowest firmware ABI (major, minor) that the guest's policy must demand. Default (0, 0).
    pub minimum_abi: (u8, u8),
    /// The lowest TCB accepted, by product; a product that is not named has no minimum.
    pub minimum_tcb: BTreeMap<Product, MinimumTcb>,
    /// What to do without a revocation list. Default [`Revocation::IfPresent`].
    pub revocation: Revocation,
    /// Reference values of the launch measurement. Together with `id_keys` empty: the check is left to the
    /// release policy.
    pub measurements: Vec<Measurement>,
    /// ID keys whose signature over the launch is as good as a reference value.
    pub id_keys: Vec<IdKey>,
    /// What to do with a guest that shows devices (GPUs) whose reports nobody here verifies. Default
    /// [`UnverifiedDevices::Refuse`].
    pub unverified_devices: UnverifiedDevices,
    /// What is required of TDX guests besides.
    pub tdx: TdxRequirements,
}

impl Default for Requirements {
    fn default() -> Self {
        Self {
            vmpl: 0,
            minimum_version: 2,
            allow_debug: false,
            allow_migration_agent: false,
            require_chip_binding: false,
            forbid_smt: false,
            require_single_socket: false,
            minimum_abi: (0, 0),
            minimum_tcb: BTreeMap::new(),
            revocation: Revocation::IfPresent,
            measurements: Vec::new(),
            id_keys: Vec::new(),
            unverified_devices: UnverifiedDevices::Refuse,
            tdx: TdxRequirements::default(),
        }
    }
}

/// The lowest TCB accepted of one product, each component by itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MinimumTcb {
    /// The PSP bootloader.
    pub bootloader: u8,
    /// The PSP operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The microcode, of CPUID models that `microcode_by_model` does not name.
    pub microcode: u8,
    /// The FMC firmware; Turin only.
    pub fmc: u8,
    /// The microcode by CPUID model: patch levels of different models of one product do not compare.
    pub microcode_by_model: BTreeMap<u8, u8>,
}

/// An ID key that vouches for launches.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IdKey {
    /// The SHA-384 of the key in the ID block's form.
    pub digest: KeyDigest,
    /// The lowest security version of the guest accepted.
    #[serde(default)]
    pub minimum_guest_svn: u32,
}

/// What to do about revocation lists.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revocation {
    /// A list that is at hand must be valid and must not name the chain; without one the check is skipped.
    #[default]
    IfPresent,
    /// No list, no trust.
    Require,
}

/// Evidence whose every check held. Only a [`Verifier`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedEvidence {
    claims: Claims,
    devices: Vec<DeviceClaims>,
    checks: Vec<Check>,
    evidence_digest: String,
}

impl VerifiedEvidence {
    pub(crate) fn new(claims: impl Into<Claims>, checks: Vec<Check>, evidence_digest: String) -> Self {
        Self { claims: claims.into(), devices: Vec::new(), checks, evidence_digest }
    }

    /// The same with the devices that the guest showed beside the CPU.
    #[must_use]
    pub fn with_devices(mut self, judged: JudgedDevices) -> Self {
        self.devices = judged.claims;
        self.checks.extend(judged.checks);
        self
    }

    /// What devices beside the CPU say of themselves; serialises to the policy's `input.devices`. Not verified unless each
    /// says so.
    pub fn devices(&self) -> &[DeviceClaims] {
        &self.devices
    }

    /// Everything the evidence says, for a release policy; serialises to the policy's `input.tee`.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Every check, in the order of judgement: passed or skipped.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The SHA-256 of the raw report or quote, in hexadecimal. Names the evidence in an audit log; no replay protection.
    pub fn evidence_digest(&self) -> &str {
        &self.evidence_digest
    }

    /// The launch measurement; of a TD its MRTD.
    pub fn measurement(&self) -> Measurement {
        self.claims.measurement()
    }

    /// The processor; zero where the platform masks it. Of a TD its platform's PPID, zero behind it.
    pub fn chip_id(&self) -> ChipId {
        self.claims.chip_id()
    }

    /// What tells this guest from every other one for as long as it runs: its report id, hexadecimal. None of a TD or a sample.
    pub fn guest_id(&self) -> Option<&str> {
        self.claims.guest_id()
    }

    /// Whether the chain ends in a simulated root: nothing is proven about hardware.
    pub fn is_simulated(&self) -> bool {
        self.claims.is_simulated()
    }
}

/// Evidence that failed at least one check.
#[derive(Clone, Debug)]
pub struct EvidenceRejected {
    /// Every check, in the order of judgement.
    pub checks: Vec<Check>,
}

impl EvidenceRejected {
    /// The checks that failed; the first decides.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.verdict == Verdict::Failed)
    }
}

impl fmt::Display for EvidenceRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures().next() {
            Some(check) => write!(f, "the evidence failed the check {check}"),
            None => f.write_str("the evidence was rejected"),
        }
    }
}

impl std::error::Error for EvidenceRejected {}
