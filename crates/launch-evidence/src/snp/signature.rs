//! The report's ECDSA signature, over the bytes as received.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use super::report::{Report, SCALAR_LEN, SIGNATURE_R, SIGNATURE_S, SIGNED};
use crate::check::{CheckName, Checks};

/// `SIGNATURE_ALGO` of ECDSA P-384 with SHA-384 (AMD 56860, signature algorithm encodings).
pub(crate) const ECDSA_P384_SHA384: u32 = 1;

/// The order of P-384's group, big-endian (SEC 2, 2.5.1).
pub(crate) const ORDER: [u8; SCALAR_LEN] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xC7, 0x63, 0x4D, 0x81, 0xF4, 0x37, 0x2D, 0xDF, 0x58, 0x1A, 0x0D, 0xB2, 0x48, 0xB0,
    0xA7, 0x7A, 0xEC, 0xEC, 0x19, 0x6A, 0xCC, 0xC5, 0x29, 0x73,
];

/// Checks form and signature; `key` is the uncompressed point of the endorsement key, where there is one.
pub(crate) fn check(report: &Report, key: Option<&[u8]>, checks: &mut Checks) {
    let signature = scalars(report);
    let expected = "an ECDSA P-384 SHA-384 signature with numbers in range";
    checks.judge(
        CheckName::SignatureForm,
        expected,
        signature.as_ref().map(|_| expected.to_owned()).map_err(Clone::clone),
    );
    let expected = "a signature of the endorsement key over bytes 0x000 to 0x29F";
    match (signature, key) {
        (Ok(signature), Some(key)) => {
            let signed = report.bytes().get(SIGNED).unwrap_or_default();
            let holds = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(signed, &signature).is_ok();
            checks.note(
                CheckName::ReportSignature,
                holds,
                expected,
                if holds { expected } else { "a signature that does not verify" },
            );
        }
        (Err(_), _) => checks.skip(CheckName::ReportSignature, "the signature is malformed"),
        (_, None) => checks.skip(CheckName::ReportSignature, "there is no endorsement key to check it with"),
    }
}

/// R and S in the fixed big-endian form, or what is wrong with them.
fn scalars(report: &Report) -> Result<[u8; 2 * SCALAR_LEN], String> {
    let algorithm = report.signature_algorithm();
    if algorithm != ECDSA_P384_SHA384 {
        return Err(format!("signature algorithm {algorithm}"));
    }
    let mut fixed = [0; 2 * SCALAR_LEN];
    let (r, s) = fixed.split_at_mut(SCALAR_LEN);
    for (name, range, to) in [("R", SIGNATURE_R, r), ("S", SIGNATURE_S, s)] {
        let (low, high) =
            report.bytes().get(range).unwrap_or_default().split_at_checked(SCALAR_LEN).unwrap_or_default();
        if high.iter().any(|byte| *byte != 0) {
            return Err(format!("{name} with bytes above 384 bits"));
        }
        for (to, from) in to.iter_mut().zip(low.iter().rev()) {
            *to = *from;
        }
        if to.iter().all(|byte| *byte == 0) {
            return Err(format!("{name} of zero"));
        }
        if to[..] >= ORDER[..] {
            return Err(format!("{name} not below the order of the group"));
        }
    }
    Ok(fixed)
}
