//! The checks that need nothing but the report's own bytes and what the caller expects.

use subtle::ConstantTimeEq as _;

use super::Product;
use super::claims::TcbClaims;
use super::report::{Report, Tcb};
use crate::check::{CheckName, Checks};
use crate::verifier::{Expected, MinimumTcb, Requirements};

/// The versions whose layout is known.
const VERSIONS: [u32; 3] = [2, 3, 5];
/// The bits of POLICY that must be zero (AMD 56860, guest policy).
const POLICY_ZERO: u64 = !0 << 26;
/// The bit of POLICY that must be one.
const POLICY_ONE: u64 = 1 << 17;

/// Checks the report's body. `product` gives the layout of its TCBs.
pub(crate) fn check(report: &Report, product: Option<Product>, expected: &Expected, checks: &mut Checks) {
    let requirements = &expected.requirements;
    check_version(report, requirements, checks);
    let offence = report.reserved_offence(product);
    checks.note(CheckName::ReservedBytes, offence.is_none(), "zero", offence.unwrap_or_else(|| "zero".to_owned()));
    check_policy(report, requirements, checks);

    let vmpl = report.vmpl();
    checks.note(CheckName::Vmpl, vmpl == requirements.vmpl, requirements.vmpl.to_string(), vmpl.to_string());

    let found = report.report_data();
    let holds = found[..].ct_eq(&expected.report_data[..]).into();
    checks.note(CheckName::ReportData, holds, hex::encode(expected.report_data), hex::encode(found));
    let (found, wanted) = (report.host_data(), expected.host_data.bytes());
    checks.note(CheckName::HostData, found == wanted, hex::encode(wanted), hex::encode(found));

    check_measurement(report, requirements, checks);
    check_tcb(report, product, requirements, checks);
}

fn check_version(report: &Report, requirements: &Requirements, checks: &mut Checks) {
    let version = report.version();
    let holds = VERSIONS.contains(&version) && version >= requirements.minimum_version;
    let wanted = VERSIONS.iter().filter(|version| **version >= requirements.minimum_version);
    let wanted: Vec<String> = wanted.map(ToString::to_string).collect();
    checks.note(CheckName::Version, holds, wanted.join(" or "), version.to_string());
}

fn check_policy(report: &Report, requirements: &Requirements, checks: &mut Checks) {
    let bits = report.policy_bits();
    let holds = bits & POLICY_ZERO == 0 && bits & POLICY_ONE != 0;
    checks.note(CheckName::PolicyReserved, holds, "bits 26 to 63 zero and bit 17 one", format!("{bits:#x}"));

    let policy = report.policy();
    let allowed = |allowed: bool| if allowed { "allowed" } else { "not allowed" };
    let debug = policy.debug_allowed();
    checks.note(
        CheckName::Debug,
        !debug || requirements.allow_debug,
        "debugging not allowed",
        format!("debugging {}", allowed(debug)),
    );
    let migration = policy.migrate_ma_allowed();
    let holds = !migration || requirements.allow_migration_agent;
    checks.note(
        CheckName::MigrationAgent,
        holds,
        "a migration agent not allowed",
        format!("a migration agent {}", allowed(migration)),
    );

    let [minor, major, ..] = bits.to_le_bytes();
    let (least_major, least_minor) = requirements.minimum_abi;
    let mut wanted = Vec::new();
    let mut offences = Vec::new();
    if requirements.forbid_smt {
        wanted.push("SMT not allowed".to_owned());
        offences.extend(policy.smt_allowed().then(|| "SMT allowed".to_owned()));
    }
    if requirements.require_single_socket {
        wanted.push("a single socket".to_owned());
        offences.extend((!policy.single_socket_required()).then(|| "several sockets allowed".to_owned()));
    }
    if (least_major, least_minor) != (0, 0) {
        wanted.push(format!("ABI {least_major}.{least_minor}"));
        offences.extend(((major, minor) < (least_major, least_minor)).then(|| format!("ABI {major}.{minor}")));
    }
    if wanted.is_empty() {
        checks.skip(CheckName::GuestPolicy, "nothing is required of SMT, sockets and ABI");
    } else {
        let wanted = wanted.join(", ");
        let found = if offences.is_empty() { wanted.clone() } else { offences.join(", ") };
        checks.note(CheckName::GuestPolicy, offences.is_empty(), wanted, found);
    }
}

fn check_measurement(report: &Report, requirements: &Requirements, checks: &mut Checks) {
    let Requirements { measurements, id_keys, .. } = requirements;
    if measurements.is_empty() && id_keys.is_empty() {
        return checks.skip(CheckName::Measurement, "reference values are left to the release policy");
    }
    let measurement = report.measurement();
    let id_key = report.id_key_digest();
    let vouched = || {
        let signed = id_key.as_bytes().iter().any(|byte| *byte != 0);
        signed && id_keys.iter().any(|key| key.digest == id_key && report.guest_svn() >= key.minimum_guest_svn)
    };
    let holds = measurements.contains(&measurement) || vouched();
    let wanted = format!("one of {} reference values or {} ID keys", measurements.len(), id_keys.len());
    checks.note(CheckName::Measurement, holds, wanted, measurement.to_string());
}

fn check_tcb(report: &Report, product: Option<Product>, requirements: &Requirements, checks: &mut Checks) {
    let tcb = |which| report.tcb(which, product?).ok().map(TcbClaims::from);
    let (Some(product), Some(current), Some(committed), Some(reported)) =
        (product, tcb(Tcb::Current), tcb(Tcb::Committed), tcb(Tcb::Reported))
    else {
        checks.skip(CheckName::TcbOrder, "the layout of the TCB is not known");
        checks.skip(CheckName::TcbMinimum, "the layout of the TCB is not known");
        return;
    };
    let above = first_above(committed, current)
        .map(|offence| format!("committed {offence}"))
        .or_else(|| first_above(reported, current).map(|offence| format!("reported {offence}")));
    let order = "committed and reported TCB not above the current one";
    checks.note(CheckName::TcbOrder, above.is_none(), order, above.unwrap_or_else(|| order.to_owned()));

    let Some(minimum) = requirements.minimum_tcb.get(&product) else {
        return checks.skip(CheckName::TcbMinimum, format!("no minimum is set for {product}"));
    };
    let minimum = least(minimum, report.cpuid().map(|[_, model, _]| model), reported.fmc.is_some());
    let below = first_above(minimum, reported);
    checks.note(
        CheckName::TcbMinimum,
        below.is_none(),
        format!("at least {}", described(minimum)),
        described(reported),
    );
}

/// The minimum for one CPUID model.
fn least(minimum: &MinimumTcb, model: Option<u8>, has_fmc: bool) -> TcbClaims {
    let microcode =
        model.and_then(|model| minimum.microcode_by_model.get(&model)).copied().unwrap_or(minimum.microcode);
    TcbClaims {
        fmc: has_fmc.then_some(minimum.fmc),
        bootloader: minimum.bootloader,
        tee: minimum.tee,
        snp: minimum.snp,
        microcode,
    }
}

/// The first component of `one` that is above `other`'s.
fn first_above(one: TcbClaims, other: TcbClaims) -> Option<String> {
    let components = [
        ("FMC", one.fmc.unwrap_or_default(), other.fmc.unwrap_or_default()),
        ("bootloader", one.bootloader, other.bootloader),
        ("TEE", one.tee, other.tee),
        ("SNP", one.snp, other.snp),
        ("microcode", one.microcode, other.microcode),
    ];
    let (name, one, other) = components.into_iter().find(|(_, one, other)| one > other)?;
    Some(format!("{name} {one} above {other}"))
}

fn described(tcb: TcbClaims) -> String {
    let TcbClaims { fmc, bootloader, tee, snp, microcode } = tcb;
    let fmc = fmc.map_or(String::new(), |fmc| format!("FMC {fmc}, "));
    format!("{fmc}bootloader {bootloader}, TEE {tee}, SNP {snp}, microcode {microcode}")
}
