//! The named checks that evidence must pass, and what each found.

use std::fmt;

use serde::Serialize;

/// The name of a check. The order is the order of judgement: what costs nothing first, public-key operations
/// last.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckName {
    /// The JSON is one of the known forms of evidence, within its limits.
    EvidenceForm,
    /// The report has exactly 1184 bytes.
    Length,
    /// The quote is of the TEE that it was sent as: a TD, not an SGX enclave.
    TeeType,
    /// The quote is whole: its lengths are used up, its header is the one of its kind.
    QuoteForm,
    /// The report of Azure's paravisor is whole, and names the vTPM's attestation key.
    HclForm,
    /// The report's or quote's version is known and not older than required.
    Version,
    /// Every reserved byte is zero, in the body, behind the signature's numbers, and behind the signature.
    ReservedBytes,
    /// The guest policy's reserved bits: 26 to 63 zero, bit 17 one.
    PolicyReserved,
    /// Debugging of the guest by the host is not allowed by its policy or attributes.
    Debug,
    /// The host cannot inject exceptions for pending pages of a TD (`SEPT_VE_DISABLE`).
    SeptVeDisable,
    /// Association with a migration agent is not allowed by the guest's policy; a TD cannot be migrated.
    MigrationAgent,
    /// No service TD is bound to the TD.
    ServiceTd,
    /// What is required of SMT, sockets and the firmware's ABI.
    GuestPolicy,
    /// The report was requested from the required privilege level.
    Vmpl,
    /// The 64 bytes that bind the report to the caller's key and challenge.
    ReportData,
    /// The report's data are the SHA-256 of the paravisor's runtime data, zero-padded.
    RuntimeData,
    /// The vTPM's quote is bound to the caller's key and challenge.
    Nonce,
    /// The quote is over all registers, with the values given.
    PcrDigest,
    /// The 32 bytes that the host passed at launch: the digest of the initialisation data, or zero.
    HostData,
    /// A register of the vTPM holds the digest of the initialisation data.
    InitData,
    /// Committed and reported TCB are not newer than the current one, component by component.
    TcbOrder,
    /// The reported TCB reaches the required minimum, component by component.
    TcbMinimum,
    /// The launch measurement is one of the reference values, or an ID key vouches for it.
    Measurement,
    /// The signature's algorithm is ECDSA P-384 with SHA-384, its numbers are in range.
    SignatureForm,
    /// The certificates parse, and are of the kind that AMD issues.
    CertificateForm,
    /// Issuer and subject names link the chain, and are those of the product.
    CertificateNames,
    /// The chain ends in a pinned root. A root that comes with the evidence is never used.
    TrustRoot,
    /// CA flags, path lengths, key usage, critical extensions.
    CertificateAuthority,
    /// Every certificate is valid at the verifier's clock.
    CertificateDates,
    /// No certificate of the chain is on the root's revocation list.
    Revocation,
    /// Collateral for the quote's kind of platform is at hand.
    Collateral,
    /// The collateral is current at the verifier's clock.
    CollateralDates,
    /// The report's `SIGNING_KEY` field agrees with the certificate's kind, and the chip key is not masked.
    SigningKey,
    /// CPUID family and model, the certificate's product name and the chain agree.
    Product,
    /// The TCB extensions of the endorsement key's certificate equal the reported TCB.
    TcbExtensions,
    /// The hardware id in the certificate equals the report's chip id.
    HardwareId,
    /// RSA-PSS SHA-384 signatures of the chain.
    ChainSignature,
    /// The endorsement or attestation key's signature over the bytes as received.
    ReportSignature,
    /// The vTPM's attestation key, which the paravisor vouches for, signed the quote.
    AkSignature,
    /// Intel vouches for quoting enclave and platform: chains, revocation lists, identities.
    QuoteEndorsement,
    /// The status of the platform's TCB is one that is accepted.
    TcbStatus,
    /// The evidence of devices beside the CPU is of a known form, within its limits.
    DeviceForm,
    /// Every device's report answers the challenge made of the runtime data.
    DeviceNonce,
    /// The devices' own reports are verified.
    DeviceEndorsement,
}

impl CheckName {
    /// The name in reports and audit entries: lower case, words joined by `-`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EvidenceForm => "evidence-form",
            Self::Length => "length",
            Self::TeeType => "tee-type",
            Self::QuoteForm => "quote-form",
            Self::HclForm => "hcl-form",
            Self::Version => "version",
            Self::ReservedBytes => "reserved-bytes",
            Self::PolicyReserved => "policy-reserved",
            Self::Debug => "debug",
            Self::SeptVeDisable => "sept-ve-disable",
            Self::MigrationAgent => "migration-agent",
            Self::ServiceTd => "service-td",
            Self::GuestPolicy => "guest-policy",
            Self::Vmpl => "vmpl",
            Self::ReportData => "report-data",
            Self::RuntimeData => "runtime-data",
            Self::Nonce => "nonce",
            Self::PcrDigest => "pcr-digest",
            Self::HostData => "host-data",
            Self::InitData => "init-data",
            Self::TcbOrder => "tcb-order",
            Self::TcbMinimum => "tcb-minimum",
            Self::Measurement => "measurement",
            Self::SignatureForm => "signature-form",
            Self::CertificateForm => "certificate-form",
            Self::CertificateNames => "certificate-names",
            Self::TrustRoot => "trust-root",
            Self::CertificateAuthority => "certificate-authority",
            Self::CertificateDates => "certificate-dates",
            Self::Revocation => "revocation",
            Self::Collateral => "collateral",
            Self::CollateralDates => "collateral-dates",
            Self::SigningKey => "signing-key",
            Self::Product => "product",
            Self::TcbExtensions => "tcb-extensions",
            Self::HardwareId => "hardware-id",
            Self::ChainSignature => "chain-signature",
            Self::ReportSignature => "report-signature",
            Self::AkSignature => "ak-signature",
            Self::QuoteEndorsement => "quote-endorsement",
            Self::TcbStatus => "tcb-status",
            Self::DeviceForm => "device-form",
            Self::DeviceNonce => "device-nonce",
            Self::DeviceEndorsement => "device-endorsement",
        }
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It held.
    Passed,
    /// It did not hold: the evidence is refused.
    Failed,
    /// It does not apply, or what it needs was lost to an earlier failure.
    Skipped,
}

/// One check, what it wanted and what it found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// Which check.
    pub name: CheckName,
    /// How it ended.
    pub verdict: Verdict,
    /// What was wanted, for a reader.
    pub expected: String,
    /// What was found, for a reader; for a skipped check, why.
    pub found: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, verdict, expected, found } = self;
        match verdict {
            Verdict::Passed => write!(f, "{name}: {found}"),
            Verdict::Failed => write!(f, "{name}: expected {expected}, found {found}"),
            Verdict::Skipped => write!(f, "{name}: not checked: {found}"),
        }
    }
}

/// The checks of one verification, in the order made.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Notes a check that holds or not.
    pub(crate) fn note(&mut self, name: CheckName, holds: bool, expected: impl Into<String>, found: impl Into<String>) {
        let verdict = if holds { Verdict::Passed } else { Verdict::Failed };
        self.0.push(Check { name, verdict, expected: expected.into(), found: found.into() });
    }

    /// Notes a check by its result: `Ok` says what was found, `Err` what was found instead.
    pub(crate) fn judge(&mut self, name: CheckName, expected: impl Into<String>, result: Result<String, String>) {
        let holds = result.is_ok();
        self.note(name, holds, expected, result.unwrap_or_else(|found| found));
    }

    /// Notes a check that was not made.
    pub(crate) fn skip(&mut self, name: CheckName, why: impl Into<String>) {
        self.0.push(Check { name, verdict: Verdict::Skipped, expected: String::new(), found: why.into() });
    }

    /// Gives the checks of one name another, where the same comparison means something else.
    pub(crate) fn rename(&mut self, from: CheckName, to: CheckName) {
        for check in self.0.iter_mut().filter(|check| check.name == from) {
            check.name = to;
        }
    }

    /// Whether nothing failed.
    pub(crate) fn all_hold(&self) -> bool {
        self.0.iter().all(|check| check.verdict != Verdict::Failed)
    }

    /// The list, in the order of [`CheckName`].
    pub(crate) fn into_list(mut self) -> Vec<Check> {
        self.0.sort_by_key(|check| check.name);
        self.0
    }
}
