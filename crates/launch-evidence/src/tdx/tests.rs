//! Quotes that are right in everything but one thing, and the check that must say so. The platform is left
//! out: nobody but Intel can sign for one, so the real quotes in `tests/tdx.rs` stand for it.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::body;
use super::quote::{MR_CONFIG_ID, MR_TD, Quote, REPORT_DATA, TD_ATTRIBUTES};
use super::status::TcbStatus;
use crate::check::{CheckName, Checks, Verdict};
use crate::identity::Measurement;
use crate::verifier::{Expected, HostData, Requirements, Verifier as _};
use crate::{TdxVerifier, tdx};

/// A quote in parts; a test changes one, then the attestation key signs for real.
struct Case {
    version: u16,
    key_type: u16,
    tee_type: u32,
    body: Vec<u8>,
    /// The type of the outer certification data.
    certification: u16,
    trailing: Vec<u8>,
    after_signing: fn(&mut Vec<u8>),
    expected: Expected,
}

impl Case {
    fn new(version: u16) -> Self {
        let mut body = vec![0; if version == 5 { 648 } else { 584 }];
        body[TD_ATTRIBUTES + 3] = 0x10;
        body[REPORT_DATA..REPORT_DATA + 64].fill(0x5A);
        body[MR_TD..MR_TD + 48].fill(0xA1);
        let expected = Expected {
            report_data: [0x5A; 64],
            host_data: HostData::Zero,
            requirements: Requirements::default(),
            now: Timestamp::UNIX_EPOCH,
        };
        Self {
            version,
            key_type: 2,
            tee_type: 0x81,
            body,
            certification: 6,
            trailing: Vec::new(),
            after_signing: |_| (),
            expected,
        }
    }

    fn build(&self) -> Vec<u8> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut quote = [self.version.to_le_bytes(), self.key_type.to_le_bytes()].concat();
        quote.extend(self.tee_type.to_le_bytes());
        quote.extend([0; 4]);
        quote.extend(dcap_qvl::INTEL_QE_VENDOR_ID);
        quote.extend([0; 20]);
        if self.version == 5 {
            quote.extend(3_u16.to_le_bytes());
            quote.extend(u32::try_from(self.body.len()).unwrap().to_le_bytes());
        }
        quote.extend(&self.body);
        let signature = key.sign(&SystemRandom::new(), &quote).unwrap();
        let inner = [&[0; 448][..], &[32, 0], &[0; 32], &[5, 0], &4_u32.to_le_bytes(), b"none"].concat();
        let outer = [
            signature.as_ref(),
            &key.public_key().as_ref()[1..],
            &self.certification.to_le_bytes(),
            &u32::try_from(inner.len()).unwrap().to_le_bytes(),
            &inner,
        ]
        .concat();
        quote.extend(u32::try_from(outer.len()).unwrap().to_le_bytes());
        quote.extend(outer);
        (self.after_signing)(&mut quote);
        quote.extend(&self.trailing);
        quote
    }

    /// The failed checks of frame and body.
    fn failures(&self) -> Vec<CheckName> {
        let bytes = self.build();
        let quote = match Quote::parse(&bytes) {
            Ok(quote) => quote,
            Err(offence) => return vec![offence.check],
        };
        let mut checks = Checks::default();
        body::check(&quote, &self.expected, &mut checks);
        let failed = checks.into_list().into_iter().filter(|check| check.verdict == Verdict::Failed);
        failed.map(|check| check.name).collect()
    }
}

#[track_caller]
fn fails_only(name: CheckName, edit: impl Fn(&mut Case)) {
    for version in [4, 5] {
        let mut case = Case::new(version);
        edit(&mut case);
        assert_eq!(case.failures(), [name], "version {version}");
    }
}

#[test]
fn a_quote_that_is_right_in_everything_passes_the_checks_of_its_own_bytes() {
    for version in [4, 5] {
        assert_eq!(Case::new(version).failures(), []);
    }
    let mut padded = Case::new(4);
    padded.trailing = vec![0; 100];
    assert_eq!(padded.failures(), [], "configfs and agents pad quotes with zeros");
}

#[test]
fn a_td_under_debug_is_refused_unless_allowed() {
    for bit in [0x01, 0x10, 0x20, 0x40] {
        fails_only(CheckName::Debug, |case| case.body[TD_ATTRIBUTES] = bit);
    }
    let mut case = Case::new(4);
    case.body[TD_ATTRIBUTES] = 1;
    case.expected.requirements.allow_debug = true;
    assert_eq!(case.failures(), []);
}

#[test]
fn the_host_must_not_inject_exceptions_for_pending_pages() {
    fails_only(CheckName::SeptVeDisable, |case| case.body[TD_ATTRIBUTES + 3] = 0);
}

#[test]
fn a_td_that_can_be_migrated_is_refused_always() {
    fails_only(CheckName::MigrationAgent, |case| {
        case.body[TD_ATTRIBUTES + 3] |= 0x20;
        case.expected.requirements.allow_migration_agent = true;
    });
}

#[test]
fn reserved_attributes_are_refused() {
    for (byte, bit) in [(1, 0x80), (2, 0x80), (3, 0x01), (4, 0x01), (7, 0x20)] {
        fails_only(CheckName::ReservedBytes, |case| case.body[TD_ATTRIBUTES + byte] |= bit);
    }
}

#[test]
fn service_tds_are_refused() {
    fails_only(CheckName::ServiceTd, |case| case.body[TD_ATTRIBUTES + 2] = 0x02);
    let mut case = Case::new(5);
    case.body[647] = 1;
    assert_eq!(case.failures(), [CheckName::ServiceTd]);
}

#[test]
fn report_data_is_compared_whole() {
    for byte in [0, 63] {
        fails_only(CheckName::ReportData, |case| case.expected.report_data[byte] ^= 1);
    }
}

#[test]
fn the_initialisation_data_is_bound_by_the_configuration_id() {
    fails_only(CheckName::HostData, |case| case.expected.host_data = HostData::Sha256([7; 32]));
    fails_only(CheckName::HostData, |case| case.body[MR_CONFIG_ID + 47] = 1);
    let mut case = Case::new(4);
    case.expected.host_data = HostData::Sha256([7; 32]);
    case.body[MR_CONFIG_ID..MR_CONFIG_ID + 32].fill(7);
    assert_eq!(case.failures(), []);
}

#[test]
fn reference_values_are_those_of_mrtd() {
    fails_only(CheckName::Measurement, |case| case.expected.requirements.measurements = vec![Measurement([1; 48])]);
    let mut case = Case::new(4);
    case.expected.requirements.measurements = vec![Measurement([0xA1; 48])];
    assert_eq!(case.failures(), []);
}

#[test]
fn the_attestation_key_signs_header_and_body() {
    // The header's user data, and a run-time measurement.
    fails_only(CheckName::ReportSignature, |case| case.after_signing = |quote| quote[30] ^= 1);
    fails_only(CheckName::ReportSignature, |case| case.after_signing = |quote| quote[450] ^= 1);
}

#[test]
fn enclaves_and_other_tees_are_no_tds() {
    fails_only(CheckName::TeeType, |case| case.tee_type = 0);
    fails_only(CheckName::TeeType, |case| case.tee_type = 0x82);
}

#[test]
fn other_versions_are_refused() {
    fails_only(CheckName::Version, |case| case.after_signing = |quote| quote[0] = 3);
    fails_only(CheckName::Version, |case| case.after_signing = |quote| quote[0] = 6);
}

#[test]
fn the_frame_is_exact() {
    fails_only(CheckName::QuoteForm, |case| case.trailing = vec![0, 1]);
    fails_only(CheckName::QuoteForm, |case| case.key_type = 3);
    fails_only(CheckName::QuoteForm, |case| case.certification = 5);
    fails_only(CheckName::QuoteForm, |case| case.after_signing = |quote| quote[12] ^= 1);
    fails_only(CheckName::QuoteForm, |case| case.after_signing = |quote| quote.truncate(quote.len() - 1));
    fails_only(CheckName::Length, |case| case.trailing = vec![0; 16 * 1024]);
    let mut case = Case::new(5);
    case.after_signing = |quote| quote[48] = 2;
    assert_eq!(case.failures(), [CheckName::QuoteForm], "a body that is shorter than its type");
}

#[test]
fn json_that_is_no_evidence_is_refused_by_name() {
    let expected = Case::new(4).expected;
    let fails = |primary| {
        let rejected = TdxVerifier::new().verify(&primary, &expected).unwrap_err();
        rejected.failures().map(|check| check.name).collect::<Vec<_>>()
    };
    assert_eq!(fails(json!([])), [CheckName::EvidenceForm]);
    assert_eq!(fails(json!({"report": "AAAA"})), [CheckName::EvidenceForm]);
    assert_eq!(fails(json!({"quote": 1})), [CheckName::EvidenceForm]);
    assert_eq!(fails(json!({"quote": "A".repeat(30_000)})), [CheckName::EvidenceForm]);
    assert_eq!(fails(json!({"quote": "AAAA"})), [CheckName::QuoteForm]);
    assert_eq!(fails(json!({"quote": "AAAA", "collateral": {}})), [CheckName::Collateral]);
    let whole = tdx::evidence_json(&Case::new(4).build(), None);
    assert_eq!(fails(whole), [CheckName::Collateral], "no collateral, no verdict");
}

#[test]
fn statuses_are_spelled_as_intel_spells_them() {
    assert_eq!(TcbStatus::named("SWHardeningNeeded"), Some(TcbStatus::SWHardeningNeeded));
    assert_eq!(TcbStatus::named("Revoked"), None);
    assert_eq!(TcbStatus::TDRelaunchAdvised.to_string(), "TDRelaunchAdvised");
    let requirements: Requirements =
        serde_json::from_value(json!({"tdx": {"tcb_statuses": ["UpToDate", "OutOfDate"]}})).unwrap();
    assert_eq!(requirements.tdx.tcb_statuses, [TcbStatus::UpToDate, TcbStatus::OutOfDate]);
    for wrong in [json!({"tdx": {"statuses": []}}), json!({"tdx": {"tcb_statuses": ["Revoked"]}})] {
        assert!(serde_json::from_value::<Requirements>(wrong).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
        let _ = Quote::parse(&bytes);
    }

    #[test]
    fn no_change_of_a_whole_quote_makes_the_parser_panic(
        offset in 0_usize..1300,
        byte: u8,
        len in 0_usize..1300,
    ) {
        let mut bytes = Case::new(5).build();
        if let Some(at) = bytes.get_mut(offset) {
            *at = byte;
        }
        bytes.truncate(len);
        if let Ok(quote) = Quote::parse(&bytes) {
            prop_assert!(quote.signed.len() + quote.chain.len() < bytes.len());
        }
    }
}
