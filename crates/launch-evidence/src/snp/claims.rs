//! What a verified report says, as release policies and tokens read it.

use serde::Serialize;
use serde_json::{Value, json};
use sev::firmware::host::TcbVersion;

use super::chain::Endorsement;
use super::endorsement::KeyKind;
use super::report::{Report, Tcb};
use super::{Product, TEE};
use crate::identity::{ChipId, KeyDigest, Measurement};

/// Every field of a report, and what the endorsement adds. Byte strings are lower-case hexadecimal.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    /// `snp`.
    pub tee: &'static str,
    /// The chain ends in a simulated root: nothing is proven about hardware.
    pub simulated: bool,
    /// The processor generation.
    pub product: Product,
    /// VERSION of the report.
    pub report_version: u32,
    /// The guest's security version, from its ID block.
    pub guest_svn: u32,
    /// POLICY.
    pub policy: Policy,
    /// `FAMILY_ID` of the ID block.
    pub family_id: String,
    /// `IMAGE_ID` of the ID block.
    pub image_id: String,
    /// The privilege level that asked.
    pub vmpl: u32,
    /// Which kind of key signed: `vcek` or `vlek`.
    pub signing_key: KeyKind,
    /// Whether an author key certified the ID key.
    pub author_key_enabled: bool,
    /// `PLATFORM_INFO`.
    pub platform_info: Platform,
    /// The 64 bytes that the guest passed.
    pub report_data: String,
    /// The launch measurement.
    pub measurement: Measurement,
    /// The 32 bytes that the host passed at launch.
    pub host_data: String,
    /// The digest of the key that signed the ID block; zero without one.
    pub id_key_digest: KeyDigest,
    /// The digest of the key that certified the ID key; zero without one.
    pub author_key_digest: KeyDigest,
    /// The guest's report id, constant over its life.
    pub report_id: String,
    /// The report id of its migration agent; all `f` without one.
    pub report_id_ma: String,
    /// What runs now.
    pub current_tcb: TcbClaims,
    /// What the signing key was derived from.
    pub reported_tcb: TcbClaims,
    /// What the platform cannot roll back below.
    pub committed_tcb: TcbClaims,
    /// What ran when the guest was launched.
    pub launch_tcb: TcbClaims,
    /// CPUID of the processor; absent in version 2.
    pub cpuid: Option<Cpuid>,
    /// The processor; zero where masked.
    pub chip_id: ChipId,
    /// The provider that a VLEK names; absent with a VCEK.
    pub csp_id: Option<String>,
    /// The firmware that runs, as `major.minor.build`.
    pub current_version: String,
    /// The firmware that is committed, as `major.minor.build`.
    pub committed_version: String,
    /// The mitigations in force at launch; version 5.
    pub launch_mit_vector: Option<u64>,
    /// The mitigations in force now; version 5.
    pub current_mit_vector: Option<u64>,
}

/// The guest's policy: what it lets the host do.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "these are the bits of the report")]
pub struct Policy {
    /// The whole field.
    pub bits: u64,
    /// The lowest ABI, major.
    pub abi_major: u8,
    /// The lowest ABI, minor.
    pub abi_minor: u8,
    /// Sibling threads may run at once.
    pub smt: bool,
    /// Association with a migration agent is allowed.
    pub migrate_ma: bool,
    /// The host may debug, that is, read the guest.
    pub debug: bool,
    /// The guest stays on one socket.
    pub single_socket: bool,
    /// CXL may hold devices or memory.
    pub cxl: bool,
    /// Memory is encrypted by AES-256-XTS.
    pub mem_aes_256_xts: bool,
    /// Power metering is off.
    pub rapl_dis: bool,
    /// The host must not read ciphertext.
    pub ciphertext_hiding: bool,
    /// The host cannot swap or move pages.
    pub page_swap_disable: bool,
}

/// What the platform has switched on.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "these are the bits of the report")]
pub struct Platform {
    /// The whole field, with bits that have no name here.
    pub bits: u64,
    /// Simultaneous multithreading.
    pub smt: bool,
    /// Transparent memory encryption.
    pub tsme: bool,
    /// Error-correcting memory.
    pub ecc: bool,
    /// Power metering is off.
    pub rapl_disabled: bool,
    /// The host cannot read ciphertext.
    pub ciphertext_hiding: bool,
    /// No memory aliases since the last reset.
    pub alias_check_complete: bool,
    /// Trusted I/O.
    pub tio: bool,
}

/// A TCB version by component.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TcbClaims {
    /// The FMC firmware; Turin only.
    pub fmc: Option<u8>,
    /// The PSP bootloader.
    pub bootloader: u8,
    /// The PSP operating system.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The microcode.
    pub microcode: u8,
}

/// CPUID of the processor that signed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cpuid {
    /// Family, extended part included.
    pub family: u8,
    /// Model, extended part included.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

impl Claims {
    /// Reads a report; `None` without a known product or endorsement, in which case a check has failed.
    pub(crate) fn new(report: &Report, product: Option<Product>, endorsement: &Endorsement) -> Option<Self> {
        let product = product?;
        let tcb = |which| report.tcb(which, product).ok().map(TcbClaims::from);
        let key_info = report.key_info();
        let vectors = report.mitigation_vectors();
        Some(Self {
            tee: TEE,
            simulated: endorsement.simulated?,
            product,
            report_version: report.version(),
            guest_svn: report.guest_svn(),
            policy: Policy::new(report),
            family_id: hex::encode(report.array::<16>(0x010)),
            image_id: hex::encode(report.array::<16>(0x020)),
            vmpl: report.vmpl(),
            signing_key: endorsement.kind?,
            author_key_enabled: key_info.author_key_en(),
            platform_info: Platform::new(report),
            report_data: hex::encode(report.report_data()),
            measurement: report.measurement(),
            host_data: hex::encode(report.host_data()),
            id_key_digest: report.id_key_digest(),
            author_key_digest: report.author_key_digest(),
            report_id: hex::encode(report.array::<32>(0x140)),
            report_id_ma: hex::encode(report.array::<32>(0x160)),
            current_tcb: tcb(Tcb::Current)?,
            reported_tcb: tcb(Tcb::Reported)?,
            committed_tcb: tcb(Tcb::Committed)?,
            launch_tcb: tcb(Tcb::Launch)?,
            cpuid: report.cpuid().map(|[family, model, stepping]| Cpuid { family, model, stepping }),
            chip_id: report.chip_id(),
            csp_id: endorsement.csp_id.clone(),
            current_version: version(report.array(0x1E8)),
            committed_version: version(report.array(0x1EC)),
            launch_mit_vector: vectors.map(|(launch, _)| launch),
            current_mit_vector: vectors.map(|(_, current)| current),
        })
    }
}

impl Claims {
    /// See [`crate::Claims::platform`].
    pub(crate) fn platform(&self) -> Value {
        let mut platform = json!({"product": self.product, "reported_tcb": self.reported_tcb});
        if let Some(cpuid) = self.cpuid {
            platform["cpuid_model"] = cpuid.model.into();
        }
        if self.signing_key == KeyKind::Vcek {
            platform["chip_id"] = self.chip_id.to_string().into();
        }
        if let Some(provider) = &self.csp_id {
            platform["csp_id"] = provider.as_str().into();
        }
        platform
    }
}

/// What a report says, before anything of it is verified: the claims without what only a chain can say. `None` where it
/// is no report of a known layout. A report of version 2 does not name its product: its TCBs are read as Milan's.
pub fn unverified(report: &[u8]) -> Option<Value> {
    let report = Report(report.try_into().ok()?);
    let product = report.product().or((report.version() == 2).then_some(Product::Milan))?;
    let kind =
        if report.key_info().signing_key() == KeyKind::Vlek.signing_key() { KeyKind::Vlek } else { KeyKind::Vcek };
    let endorsement = Endorsement { kind: Some(kind), simulated: Some(false), ..Endorsement::default() };
    let mut claims = serde_json::to_value(Claims::new(&report, Some(product), &endorsement)?).ok()?;
    let members = claims.as_object_mut()?;
    members.remove("simulated");
    members.remove("csp_id");
    if report.product().is_none() {
        members.insert("product".to_owned(), Value::Null);
    }
    members.insert("verified".to_owned(), false.into());
    Some(claims)
}

fn version([build, minor, major]: [u8; 3]) -> String {
    format!("{major}.{minor}.{build}")
}

impl Policy {
    fn new(report: &Report) -> Self {
        let policy = report.policy();
        let [abi_minor, abi_major, ..] = report.policy_bits().to_le_bytes();
        Self {
            bits: report.policy_bits(),
            abi_major,
            abi_minor,
            smt: policy.smt_allowed(),
            migrate_ma: policy.migrate_ma_allowed(),
            debug: policy.debug_allowed(),
            single_socket: policy.single_socket_required(),
            cxl: policy.cxl_allowed(),
            mem_aes_256_xts: policy.mem_aes_256_xts(),
            rapl_dis: policy.rapl_dis(),
            ciphertext_hiding: policy.ciphertext_hiding(),
            page_swap_disable: policy.page_swap_disabled(),
        }
    }
}

impl Platform {
    fn new(report: &Report) -> Self {
        let platform = report.platform_info();
        Self {
            bits: report.platform_info_bits(),
            smt: platform.smt_enabled(),
            tsme: platform.tsme_enabled(),
            ecc: platform.ecc_enabled(),
            rapl_disabled: platform.rapl_disabled(),
            ciphertext_hiding: platform.ciphertext_hiding_enabled(),
            alias_check_complete: platform.alias_check_complete(),
            tio: platform.tio_enabled(),
        }
    }
}

impl From<TcbVersion> for TcbClaims {
    fn from(tcb: TcbVersion) -> Self {
        let TcbVersion { fmc, bootloader, tee, snp, microcode } = tcb;
        Self { fmc, bootloader, tee, snp, microcode }
    }
}
