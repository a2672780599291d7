//! The checks that need nothing but the quote's own bytes and what the caller expects.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use subtle::ConstantTimeEq as _;

use super::claims::TdAttributes;
use super::quote::{MR_CONFIG_ID, MR_TD, Quote, REPORT_DATA, TD_ATTRIBUTES};
use crate::check::{CheckName, Checks};
use crate::identity::Measurement;
use crate::verifier::Expected;

/// The attributes that put a TD in its host's hands: debug, and the ways of profiling it.
const UNDER_DEBUG: u64 = 0xFF;
/// Attributes with a name in the TDX module ABI: HGS+, profiling and debug in the low byte, single-step
/// defence and service TDs from 16, LASS, `SEPT_VE_DISABLE`, migration, PKS, key locker, and 62 and 63.
const KNOWN: u64 = 0x71 | (0x7F << 16) | (0x1F << 27) | (0x3 << 62);

/// `SERVTD_EXT`: the report speaks of service TDs.
const SERVICE_TD: u64 = 1 << 17;

/// Checks the TD report.
pub(crate) fn check(quote: &Quote<'_>, expected: &Expected, checks: &mut Checks) {
    check_attributes(quote, expected, checks);

    let found = quote.array::<64>(REPORT_DATA);
    let holds = found[..].ct_eq(&expected.report_data[..]).into();
    checks.note(CheckName::ReportData, holds, hex::encode(expected.report_data), hex::encode(found));

    let found = quote.array::<48>(MR_CONFIG_ID);
    let mut wanted = [0; 48];
    for (to, from) in wanted.iter_mut().zip(expected.host_data.bytes()) {
        *to = from;
    }
    checks.note(CheckName::HostData, found == wanted, hex::encode(wanted), hex::encode(found));

    let bound = quote.mr_service_td().is_some_and(|digest| digest != [0; 48]);
    let may_be = u64::from_le_bytes(quote.array(TD_ATTRIBUTES)) & SERVICE_TD != 0;
    let found = if bound || may_be { "one whose measurement is not judged here" } else { "none" };
    checks.note(CheckName::ServiceTd, !bound && !may_be, "no service TD", found);

    let measurements = &expected.requirements.measurements;
    let measurement = Measurement(quote.array(MR_TD));
    if measurements.is_empty() && expected.requirements.id_keys.is_empty() {
        checks.skip(CheckName::Measurement, "reference values are left to the release policy");
    } else {
        let wanted = format!("one of {} reference values", measurements.len());
        checks.note(CheckName::Measurement, measurements.contains(&measurement), wanted, measurement.to_string());
    }
    check_signature(quote, checks);
}

fn check_attributes(quote: &Quote<'_>, expected: &Expected, checks: &mut Checks) {
    let attributes = TdAttributes::new(quote);
    let bits = attributes.bits;
    let holds = bits & UNDER_DEBUG == 0 || expected.requirements.allow_debug;
    checks.note(CheckName::Debug, holds, "a TD that is not under debug", format!("attributes {bits:#018x}"));
    checks.note(
        CheckName::SeptVeDisable,
        attributes.sept_ve_disable,
        "SEPT_VE_DISABLE set",
        if attributes.sept_ve_disable { "set" } else { "not set" },
    );
    checks.note(
        CheckName::MigrationAgent,
        !attributes.migratable,
        "a TD that cannot be migrated",
        if attributes.migratable { "one that can" } else { "one that cannot" },
    );
    let unknown = bits & !KNOWN;
    checks.note(CheckName::ReservedBytes, unknown == 0, "no reserved attributes", format!("{unknown:#x}"));
}

/// The attestation key's signature over header and body as received. Whose key it is, Intel's chain says.
fn check_signature(quote: &Quote<'_>, checks: &mut Checks) {
    const EXPECTED: &str = "a signature of the attestation key over header and body";
    let mut point = [4; 65];
    for (to, from) in point.iter_mut().skip(1).zip(quote.key) {
        *to = from;
    }
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let holds = key.verify(quote.signed, &quote.signature).is_ok();
    let found = if holds { EXPECTED } else { "a signature that does not verify" };
    checks.note(CheckName::ReportSignature, holds, EXPECTED, found);
}
