//! The SEV-SNP attestation report, read at its offsets from the bytes as received.
//!
//! Layout: AMD 56860, table `ATTESTATION_REPORT`. All numbers are little-endian.
//!
//! | offset | size | field | offset | size | field |
//! |---|---|---|---|---|---|
//! | 0x000 | 4 | VERSION | 0x140 | 32 | `REPORT_ID` |
//! | 0x004 | 4 | `GUEST_SVN` | 0x160 | 32 | `REPORT_ID_MA` |
//! | 0x008 | 8 | POLICY | 0x180 | 8 | `REPORTED_TCB` |
//! | 0x010 | 16 | `FAMILY_ID` | 0x188 | 3 | CPUID family, model, stepping (version ≥ 3) |
//! | 0x020 | 16 | `IMAGE_ID` | 0x1A0 | 64 | `CHIP_ID` |
//! | 0x030 | 4 | VMPL | 0x1E0 | 8 | `COMMITTED_TCB` |
//! | 0x034 | 4 | `SIGNATURE_ALGO` | 0x1E8 | 3 | current build, minor, major |
//! | 0x038 | 8 | `CURRENT_TCB` | 0x1EC | 3 | committed build, minor, major |
//! | 0x040 | 8 | `PLATFORM_INFO` | 0x1F0 | 8 | `LAUNCH_TCB` |
//! | 0x048 | 4 | key information | 0x1F8 | 16 | mitigation vectors: launch, current (version 5) |
//! | 0x050 | 64 | `REPORT_DATA` | 0x2A0 | 72 | signature: R |
//! | 0x090 | 48 | MEASUREMENT | 0x2E8 | 72 | signature: S |
//! | 0x0C0 | 32 | `HOST_DATA` | 0x330 | 368 | reserved |
//! | 0x0E0 | 48 | `ID_KEY_DIGEST` | 0x110 | 48 | `AUTHOR_KEY_DIGEST` |

use std::ops::Range;

use sev::Generation;
use sev::firmware::guest::{GuestPolicy, KeyInfo, PlatformInfo};
use sev::firmware::host::TcbVersion;
use sev::parser::ByteParser as _;

use super::Product;
use crate::identity::{ChipId, KeyDigest, Measurement};

/// The length of a report, in bytes.
pub const REPORT_LEN: usize = 0x4A0;
/// The bytes that the signature covers.
pub(crate) const SIGNED: Range<usize> = 0..0x2A0;
/// The signature's R, little-endian, and S behind it.
pub(crate) const SIGNATURE_R: Range<usize> = 0x2A0..0x2E8;
/// The signature's S, little-endian.
pub(crate) const SIGNATURE_S: Range<usize> = 0x2E8..0x330;
/// The length of one number of a P-384 signature; the 24 bytes above it are zero.
pub(crate) const SCALAR_LEN: usize = 48;

/// The reserved ranges of every version.
const RESERVED: [Range<usize>; 6] =
    [0x04C..0x050, 0x18B..0x1A0, 0x1EB..0x1EC, 0x1EF..0x1F0, 0x208..0x2A0, 0x330..REPORT_LEN];
/// Where version 2 has no CPUID.
const RESERVED_BEFORE_3: Range<usize> = 0x188..0x18B;
/// Where versions before 5 have no mitigation vectors.
const RESERVED_BEFORE_5: Range<usize> = 0x1F8..0x208;
/// The reserved bits of the key information.
const KEY_INFO_RESERVED: u32 = !0x1F;

/// A report as received. Nothing in it may be believed before its checks.
#[derive(Clone)]
pub(crate) struct Report(pub(crate) [u8; REPORT_LEN]);

impl Report {
    pub(crate) fn bytes(&self) -> &[u8; REPORT_LEN] {
        &self.0
    }

    /// The array of `N` bytes at `offset`; offsets are constants of this file, inside the report.
    pub(crate) fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut array = [0; N];
        for (to, from) in array.iter_mut().zip(self.0.iter().skip(offset)) {
            *to = *from;
        }
        array
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }

    pub(crate) fn version(&self) -> u32 {
        self.u32_at(0)
    }

    pub(crate) fn guest_svn(&self) -> u32 {
        self.u32_at(0x004)
    }

    /// POLICY as it stands, without the bit that the `sev` crate's conversion from a number sets.
    pub(crate) fn policy_bits(&self) -> u64 {
        self.u64_at(0x008)
    }

    pub(crate) fn policy(&self) -> GuestPolicy {
        GuestPolicy::from(self.policy_bits())
    }

    pub(crate) fn vmpl(&self) -> u32 {
        self.u32_at(0x030)
    }

    pub(crate) fn signature_algorithm(&self) -> u32 {
        self.u32_at(0x034)
    }

    pub(crate) fn platform_info_bits(&self) -> u64 {
        self.u64_at(0x040)
    }

    pub(crate) fn platform_info(&self) -> PlatformInfo {
        PlatformInfo::from(self.platform_info_bits())
    }

    pub(crate) fn key_info(&self) -> KeyInfo {
        KeyInfo::from(self.u32_at(0x048))
    }

    pub(crate) fn report_data(&self) -> [u8; 64] {
        self.array(0x050)
    }

    pub(crate) fn measurement(&self) -> Measurement {
        Measurement(self.array(0x090))
    }

    pub(crate) fn host_data(&self) -> [u8; 32] {
        self.array(0x0C0)
    }

    pub(crate) fn id_key_digest(&self) -> KeyDigest {
        KeyDigest(self.array(0x0E0))
    }

    pub(crate) fn author_key_digest(&self) -> KeyDigest {
        KeyDigest(self.array(0x110))
    }

    pub(crate) fn chip_id(&self) -> ChipId {
        ChipId(self.array(0x1A0))
    }

    /// CPUID family, model and stepping; version 2 has none.
    pub(crate) fn cpuid(&self) -> Option<[u8; 3]> {
        (self.version() >= 3).then(|| self.array(0x188))
    }

    /// The launch and current mitigation vectors; versions before 5 have none.
    pub(crate) fn mitigation_vectors(&self) -> Option<(u64, u64)> {
        (self.version() >= 5).then(|| (self.u64_at(0x1F8), self.u64_at(0x200)))
    }

    /// The product by CPUID, as the `sev` crate tells them apart; `None` for version 2 and unknown processors.
    pub(crate) fn product(&self) -> Option<Product> {
        let [family, model, _] = self.cpuid()?;
        match Generation::identify_cpu(family, model).ok()? {
            Generation::Milan => Some(Product::Milan),
            Generation::Genoa => Some(Product::Genoa),
            Generation::Turin => Some(Product::Turin),
            Generation::Venice => None,
        }
    }

    pub(crate) fn tcb_bytes(&self, which: Tcb) -> [u8; 8] {
        self.array(which.offset())
    }

    /// A TCB in the layout of `product`, decoded by the `sev` crate.
    pub(crate) fn tcb(&self, which: Tcb, product: Product) -> std::io::Result<TcbVersion> {
        TcbVersion::from_bytes_with(&self.tcb_bytes(which), product.generation())
    }

    /// The first reserved byte that is not zero, or a reserved bit that is set; `product` gives the layout
    /// of the TCBs.
    pub(crate) fn reserved_offence(&self, product: Option<Product>) -> Option<String> {
        let version = self.version();
        let mut ranges = RESERVED.to_vec();
        if version < 3 {
            ranges.push(RESERVED_BEFORE_3);
        }
        if version < 5 {
            ranges.push(RESERVED_BEFORE_5);
        }
        if let Some(product) = product {
            let inside = product.tcb_reserved();
            ranges.extend(Tcb::ALL.map(|tcb| tcb.offset() + inside.start..tcb.offset() + inside.end));
        }
        let mut offences =
            ranges.into_iter().flatten().filter(|offset| self.0.get(*offset).is_some_and(|byte| *byte != 0));
        if let Some(offset) = offences.next() {
            return Some(format!("a byte that is not zero at {offset:#05x}"));
        }
        let key_info = self.u32_at(0x048);
        (key_info & KEY_INFO_RESERVED != 0).then(|| format!("reserved bits of the key information in {key_info:#x}"))
    }
}

/// The four TCB versions of a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tcb {
    Committed,
    Current,
    Launch,
    Reported,
}

impl Tcb {
    pub(crate) const ALL: [Self; 4] = [Self::Committed, Self::Current, Self::Launch, Self::Reported];

    pub(crate) fn offset(self) -> usize {
        match self {
            Self::Committed => 0x1E0,
            Self::Current => 0x038,
            Self::Launch => 0x1F0,
            Self::Reported => 0x180,
        }
    }
}
