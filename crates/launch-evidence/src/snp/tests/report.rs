//! One thing wrong in the report, all of it validly signed.

use super::*;
use crate::identity::KeyDigest;
use crate::snp::report::{SIGNATURE_R, SIGNATURE_S};
use crate::verifier::{IdKey, MinimumTcb};

#[test]
fn versions_that_are_not_known_are_refused() {
    for version in [0_u32, 1, 4, 6, 0x103] {
        let case_version = if version < 2 { 2 } else { 5 };
        let mut case = Case::of(Product::Genoa, case_version, KeyKind::Vcek);
        case.put(0, version.to_le_bytes());
        assert_eq!(case.verify().unwrap_err(), [CheckName::Version], "version {version}");
    }
    let mut case = Case::of(Product::Genoa, 2, KeyKind::Vcek);
    case.expected.requirements.minimum_version = 3;
    assert_eq!(case.verify().unwrap_err(), [CheckName::Version]);
}

#[test]
fn reserved_bytes_have_to_be_zero() {
    // First and last byte of each range of version 5, and one of the reserved bits of the key information.
    for offset in
        [0x049, 0x04B, 0x04C, 0x04F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F, 0x03A, 0x03D, 0x1E2, 0x1E5, 0x1F2, 0x1F5]
    {
        fails_only(CheckName::ReservedBytes, |case| case.report[offset] = 1);
    }
    fails_only(CheckName::ReservedBytes, |case| case.report[0x48] = 1 << 5);
    // Behind the signature, which does not cover it.
    for offset in [0x330, 0x49F] {
        fails_only(CheckName::ReservedBytes, |case| {
            case.after_signing = Some(Box::new(move |report| report[offset] = 1));
        });
    }
    // The mitigation vectors of version 5 are reserved in version 3, CPUID in version 2.
    for (version, offset) in [(3, 0x1F8), (3, 0x207), (2, 0x188), (2, 0x18A)] {
        let mut case = Case::of(Product::Milan, version, KeyKind::Vcek);
        case.report[offset] = 1;
        assert_eq!(case.verify().unwrap_err(), [CheckName::ReservedBytes], "version {version}, {offset:#x}");
    }
    // Turin's TCB has other reserved bytes.
    for offset in [0x03C, 0x03E, 0x1E4, 0x1F6] {
        let mut case = Case::of(Product::Turin, 5, KeyKind::Vcek);
        case.report[offset] = 1;
        assert_eq!(case.verify().unwrap_err(), [CheckName::ReservedBytes], "{offset:#x}");
    }
}

#[test]
fn unknown_platform_bits_are_claims_and_no_failure() {
    let mut case = Case::new();
    case.put(0x40, 0x8000_0000_0000_0040_u64.to_le_bytes());
    assert_eq!(case.verify().unwrap().claims().snp().unwrap().platform_info.bits, 0x8000_0000_0000_0040);
}

#[test]
fn the_guest_policy_is_judged_bit_by_bit() {
    let policy = |bits: u64| move |case: &mut Case| case.put(0x08, bits.to_le_bytes());
    for bits in [0x3_0000 | 1 << 26, 0x3_0000 | 1 << 63, 0x1_0000] {
        fails_only(CheckName::PolicyReserved, policy(bits));
    }
    fails_only(CheckName::Debug, policy(0x3_0000 | 1 << 19));
    fails_only(CheckName::MigrationAgent, policy(0x3_0000 | 1 << 18));

    let mut case = Case::new();
    policy(0x3_0000 | 1 << 19 | 1 << 18)(&mut case);
    case.expected.requirements.allow_debug = true;
    case.expected.requirements.allow_migration_agent = true;
    let evidence = case.verify().unwrap();
    let policy = evidence.claims().snp().unwrap().policy;
    assert!(policy.debug && policy.migrate_ma);
}

#[test]
fn smt_sockets_and_abi_are_judged_where_required() {
    fails_only(CheckName::GuestPolicy, |case| case.expected.requirements.forbid_smt = true);
    fails_only(CheckName::GuestPolicy, |case| case.expected.requirements.require_single_socket = true);
    for abi in [(0, 1), (1, 0)] {
        fails_only(CheckName::GuestPolicy, |case| case.expected.requirements.minimum_abi = abi);
    }
    // ABI 1.31, one socket, no SMT.
    let mut case = Case::new();
    case.put(0x08, (0x2_0000_u64 | 1 << 20 | 0x011F).to_le_bytes());
    case.expected.requirements =
        Requirements { forbid_smt: true, require_single_socket: true, minimum_abi: (1, 31), ..Requirements::default() };
    let claims = case.verify().unwrap().claims().snp().unwrap().clone();
    assert_eq!((claims.policy.abi_major, claims.policy.abi_minor), (1, 31));
}

#[test]
fn the_privilege_level_has_to_be_the_required_one() {
    for vmpl in [1_u32, 3, 0xFFFF_FFFF] {
        fails_only(CheckName::Vmpl, |case| case.put(0x30, vmpl.to_le_bytes()));
    }
    fails_only(CheckName::Vmpl, |case| case.expected.requirements.vmpl = 1);
}

#[test]
fn report_data_counts_whole() {
    for offset in [0x50, 0x80, 0x8F] {
        fails_only(CheckName::ReportData, |case| case.report[offset] ^= 1);
    }
}

#[test]
fn host_data_is_zero_or_the_digest() {
    fails_only(CheckName::HostData, |case| case.report[0xDF] = 1);
    fails_only(CheckName::HostData, |case| case.expected.host_data = HostData::Sha256([3; 32]));
    let mut case = Case::new();
    case.put(0xC0, [3; 32]);
    case.expected.host_data = HostData::Sha256([3; 32]);
    case.verify().unwrap();
}

#[test]
fn no_part_of_the_tcb_is_above_the_current_one() {
    // Each component of the current TCB one lower: bootloader, TEE, SNP, microcode.
    for offset in [0, 1, 6, 7] {
        fails_only(CheckName::TcbOrder, |case| case.report[0x38 + offset] -= 1);
        fails_only(CheckName::TcbOrder, |case| case.report[0x1E0 + offset] += 1);
        // The reported one alone above it.
        fails_only(CheckName::TcbOrder, |case| {
            case.report[0x38 + offset] -= 1;
            case.report[0x1E0 + offset] -= 1;
        });
    }
    let mut case = Case::of(Product::Turin, 5, KeyKind::Vcek);
    case.report[0x38] -= 1;
    assert_eq!(case.verify().unwrap_err(), [CheckName::TcbOrder], "FMC");
    // A reported TCB that is lower is what a host may choose; the launch TCB has no order.
    let mut case = Case::new();
    case.report[0x38 + 7] += 1;
    case.report[0x1F0 + 7] += 1;
    case.verify().unwrap();
}

#[test]
fn each_component_has_its_minimum() {
    let reported = MinimumTcb { bootloader: 9, tee: 2, snp: 21, microcode: 200, ..MinimumTcb::default() };
    let with = |minimum: MinimumTcb| {
        move |case: &mut Case| {
            case.expected.requirements.minimum_tcb.insert(case.product, minimum);
        }
    };
    assert_eq!(failures(with(reported.clone())), []);
    fails_only(CheckName::TcbMinimum, with(MinimumTcb { bootloader: 10, ..reported.clone() }));
    fails_only(CheckName::TcbMinimum, with(MinimumTcb { tee: 3, ..reported.clone() }));
    fails_only(CheckName::TcbMinimum, with(MinimumTcb { snp: 22, ..reported.clone() }));
    fails_only(CheckName::TcbMinimum, with(MinimumTcb { microcode: 201, ..reported.clone() }));
    // Genoa's model 0x11 by itself, whatever the others need; FMC is no part of Genoa's.
    let by_model = |model, level| [(model, level)].into_iter().collect();
    fails_only(CheckName::TcbMinimum, with(MinimumTcb { microcode_by_model: by_model(0x11, 201), ..reported.clone() }));
    let lower = MinimumTcb { microcode: 255, fmc: 255, microcode_by_model: by_model(0x11, 200), ..reported.clone() };
    assert_eq!(failures(with(lower)), []);

    let mut case = Case::of(Product::Turin, 5, KeyKind::Vcek);
    with(MinimumTcb { fmc: 4, ..reported })(&mut case);
    assert_eq!(case.verify().unwrap_err(), [CheckName::TcbMinimum], "FMC");
}

#[test]
fn measurements_are_compared_where_reference_values_are_given() {
    let measurements = |values: Vec<[u8; 48]>| {
        move |case: &mut Case| {
            case.expected.requirements.measurements = values.into_iter().map(Measurement).collect();
        }
    };
    assert_eq!(failures(measurements(vec![[0; 48], [0xA1; 48]])), []);
    fails_only(CheckName::Measurement, measurements(vec![[0; 48]]));

    let id_key = |case: &mut Case, minimum_guest_svn| {
        case.put(0xE0, [0x1D; 48]);
        case.put(0x04, 7_u32.to_le_bytes());
        let key = IdKey { digest: KeyDigest([0x1D; 48]), minimum_guest_svn };
        case.expected.requirements.id_keys = vec![key];
    };
    assert_eq!(failures(|case| id_key(case, 7)), []);
    fails_only(CheckName::Measurement, |case| id_key(case, 8));
    // No ID block at all is no key of zeros.
    fails_only(CheckName::Measurement, |case| {
        case.expected.requirements.id_keys = vec![IdKey { digest: KeyDigest([0; 48]), minimum_guest_svn: 0 }];
    });
}

#[test]
fn the_signature_has_one_form() {
    fails_only(CheckName::SignatureForm, |case| case.put(0x34, 2_u32.to_le_bytes()));
    let after = |edit: fn(&mut [u8; REPORT_LEN])| move |case: &mut Case| case.after_signing = Some(Box::new(edit));
    // Above 384 bits.
    fails_only(CheckName::SignatureForm, after(|report| report[SIGNATURE_R.start + 48] = 1));
    fails_only(CheckName::SignatureForm, after(|report| report[SIGNATURE_S.end - 1] = 1));
    // Zero, and all ones, which is above the order of the group.
    fails_only(CheckName::SignatureForm, after(|report| report[SIGNATURE_R].fill(0)));
    fails_only(CheckName::SignatureForm, after(|report| report[SIGNATURE_S].fill(0)));
    fails_only(CheckName::SignatureForm, after(|report| report[SIGNATURE_R][..48].fill(0xFF)));
    fails_only(CheckName::SignatureForm, after(|report| report[SIGNATURE_S][..48].fill(0xFF)));
}

#[test]
fn the_signature_covers_every_byte_of_the_body() {
    // Fields that no other check looks at: guest SVN, family id, report id, launch TCB, mitigation vector.
    for offset in [0x04, 0x10, 0x2F, 0x90, 0x110, 0x140, 0x17F, 0x18A, 0x1F7, 0x1FF] {
        fails_only(CheckName::ReportSignature, |case| {
            case.after_signing = Some(Box::new(move |report| report[offset] ^= 1));
        });
    }
    fails_only(CheckName::ReportSignature, |case| {
        case.after_signing = Some(Box::new(|report| report[SIGNATURE_S.start] ^= 1));
    });
    // The right numbers in the wrong order of bytes.
    fails_only(CheckName::ReportSignature, |case| {
        case.after_signing = Some(Box::new(|report| report[SIGNATURE_R][..48].reverse()));
    });
}
