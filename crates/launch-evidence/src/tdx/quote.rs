//! The frame of a TDX quote, read at its offsets from the bytes as received. All numbers are little-endian.
//!
//! Layout: Intel TDX DCAP Quoting Library API, appendix A (quote formats 4 and 5).
//!
//! | part | size | content |
//! |---|---|---|
//! | header | 48 | version 2, key type 2, TEE type 4, reserved 4, vendor 16, user data 20 |
//! | body descriptor | 6 | version 5 only: type 2, size 4 |
//! | body | 584, 648 or 885 | TD report of 1.0, 1.5 or 1.5 extended |
//! | signature data | 4 + its size | signature 64, attestation key 64, certification data of type 6 |
//!
//! Type 6 holds the quoting enclave's report 384, its signature 64, authentication data 2 + its size, and
//! certification data again: type 2, size 4, content.

use crate::check::CheckName;
use crate::form::{Offence, Reader};

/// The longest quote that is looked at, in bytes; real ones have about 5 KiB, some agents pad them to 8000.
pub(crate) const QUOTE_LEN: usize = 16 * 1024;

const HEADER_LEN: usize = 48;
const SGX: u32 = 0;
const TDX: u32 = 0x81;
/// ECDSA-256 with P-256.
const KEY_TYPE: u16 = 2;
/// Intel's quoting enclave.
const VENDOR: [u8; 16] =
    [0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07];
/// Certification data: the quoting enclave's report with what certifies it.
const QE_REPORT: u16 = 6;
/// Certification data: the chain of the PCK certificate in PEM.
const PCK_CHAIN: u16 = 5;
/// The lengths of the bodies, by their type in version 5.
const BODIES: [(u16, usize); 3] = [(2, 584), (3, 648), (4, 885)];

/// A quote as received. Nothing in it may be believed before its checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quote<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) version: u16,
    /// The bytes that the attestation key signs.
    pub(crate) signed: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) signature: [u8; 64],
    /// The attestation key: both coordinates of a point of P-256, big-endian.
    pub(crate) key: [u8; 64],
    /// The PCK certificate's chain, in PEM.
    pub(crate) chain: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Parses the frame; every length must be used up, and only zeros may follow.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Offence> {
        if bytes.len() > QUOTE_LEN {
            return Err(Offence::new(
                CheckName::Length,
                format!("at most {QUOTE_LEN} bytes"),
                format!("{} bytes", bytes.len()),
            ));
        }
        let version = check_header(bytes)?;
        let mut reader = Reader::new(bytes);
        reader.take(HEADER_LEN).ok_or_else(short)?;
        let body_len = if version == 5 {
            let kind = reader.u16_le().ok_or_else(short)?;
            let size = reader.u32_le().ok_or_else(short)?;
            let known = BODIES.iter().find(|(known, _)| *known == kind);
            let (_, len) = known.ok_or_else(|| form("a TD report as the body", format!("a body of type {kind}")))?;
            if usize::try_from(size) != Ok(*len) {
                return Err(form(&format!("a body of {len} bytes"), format!("{size} bytes")));
            }
            *len
        } else {
            BODIES[0].1
        };
        let body = reader.take(body_len).ok_or_else(short)?;
        let signed_len = bytes.len() - reader.rest().len();
        let signed = bytes.get(..signed_len).ok_or_else(short)?;
        let mut signature_data = Reader::new(reader.sized_u32_le().ok_or_else(short)?);
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(form("nothing but zeros behind the quote", "other bytes"));
        }
        let signature = signature_data.array().ok_or_else(short)?;
        let key = signature_data.array().ok_or_else(short)?;
        let mut certification = Reader::new(certification_data(&mut signature_data, QE_REPORT)?);
        certification.take(384 + 64).ok_or_else(short)?;
        let len = certification.u16_le().ok_or_else(short)?;
        certification.take(usize::from(len)).ok_or_else(short)?;
        let chain = certification_data(&mut certification, PCK_CHAIN)?;
        Ok(Self { bytes, version, signed, body, signature, key, chain })
    }

    /// The array of `N` bytes at `offset` of the body; zeros behind its end.
    pub(crate) fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut array = [0; N];
        for (to, from) in array.iter_mut().zip(self.body.iter().skip(offset)) {
            *to = *from;
        }
        array
    }

    /// `TEE_TCB_SVN2` of a body of 1.5.
    pub(crate) fn tee_tcb_svn2(&self) -> Option<[u8; 16]> {
        (self.body.len() > TEE_TCB_SVN2).then(|| self.array(TEE_TCB_SVN2))
    }

    /// `MR_SERVICETD` of a body of 1.5.
    pub(crate) fn mr_service_td(&self) -> Option<[u8; 48]> {
        (self.body.len() > MR_SERVICE_TD).then(|| self.array(MR_SERVICE_TD))
    }
}

/// Offsets in the body.
pub(crate) const TEE_TCB_SVN: usize = 0;
pub(crate) const MR_SEAM: usize = 16;
pub(crate) const MR_SIGNER_SEAM: usize = 64;
pub(crate) const SEAM_ATTRIBUTES: usize = 112;
pub(crate) const TD_ATTRIBUTES: usize = 120;
pub(crate) const XFAM: usize = 128;
pub(crate) const MR_TD: usize = 136;
pub(crate) const MR_CONFIG_ID: usize = 184;
pub(crate) const MR_OWNER: usize = 232;
pub(crate) const MR_OWNER_CONFIG: usize = 280;
pub(crate) const RTMR: usize = 328;
pub(crate) const REPORT_DATA: usize = 520;
const TEE_TCB_SVN2: usize = 584;
const MR_SERVICE_TD: usize = 600;

/// Checks the header; the version.
fn check_header(bytes: &[u8]) -> Result<u16, Offence> {
    let mut reader = Reader::new(bytes);
    let version = reader.u16_le().ok_or_else(short)?;
    let key_type = reader.u16_le().ok_or_else(short)?;
    let tee_type = reader.u32_le().ok_or_else(short)?;
    if tee_type != TDX {
        let found = match tee_type {
            SGX => "an SGX enclave".to_owned(),
            other => format!("TEE type {other:#x}"),
        };
        return Err(Offence::new(CheckName::TeeType, "a TD, TEE type 0x81", found));
    }
    if version != 4 && version != 5 {
        return Err(Offence::new(CheckName::Version, "4 or 5", version.to_string()));
    }
    if key_type != KEY_TYPE {
        return Err(form("an attestation key of ECDSA P-256, type 2", format!("type {key_type}")));
    }
    let _reserved = reader.u32_le().ok_or_else(short)?;
    let vendor: [u8; 16] = reader.array().ok_or_else(short)?;
    if vendor != VENDOR {
        return Err(form("Intel's quoting enclave", format!("vendor {}", hex::encode(vendor))));
    }
    Ok(version)
}

/// The content of certification data of type `wanted`, which must be the last part.
fn certification_data<'a>(reader: &mut Reader<'a>, wanted: u16) -> Result<&'a [u8], Offence> {
    let kind = reader.u16_le().ok_or_else(short)?;
    if kind != wanted {
        return Err(form(&format!("certification data of type {wanted}"), format!("type {kind}")));
    }
    let content = reader.sized_u32_le().ok_or_else(short)?;
    if !reader.rest().is_empty() {
        return Err(form("nothing behind the certification data", format!("{} bytes", reader.rest().len())));
    }
    Ok(content)
}

fn form(expected: &str, found: impl Into<String>) -> Offence {
    Offence::new(CheckName::QuoteForm, expected, found)
}

fn short() -> Offence {
    form("a whole quote", "one that ends too early")
}
