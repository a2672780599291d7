//! The vTPM's quote: what it attests, and the checks on it. All numbers are big-endian.
//!
//! Layout: TCG, TPM 2.0 Library, Part 2: `TPMS_ATTEST` (10.12.12), `TPMS_QUOTE_INFO` (10.12.4),
//! `TPML_PCR_SELECTION` (10.9.7). The signature is RSASSA-PKCS1-v1_5 with SHA-256.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use subtle::ConstantTimeEq as _;

use super::hcl::RsaKey;
use crate::check::{CheckName, Checks};
use crate::form::{Offence, Reader};
use crate::verifier::{Expected, HostData};

/// The number of a PC client TPM's registers.
pub(crate) const PCRS: usize = 24;
/// The largest `TPMS_ATTEST`, in bytes; real ones have under 150.
pub(crate) const MESSAGE_LEN: usize = 1024;
/// The length of a signature, in bytes.
pub(crate) const SIGNATURE_LEN: usize = 256;

/// `TPM_GENERATED_VALUE`: nothing that comes from outside the TPM begins so and is signed.
const MAGIC: u32 = 0xFF54_4347;
/// `TPM_ST_ATTEST_QUOTE`.
const QUOTE: u16 = 0x8018;
/// `TPM_ALG_SHA256`.
const SHA256_BANK: u16 = 0x000B;
/// The register that agents extend with the digest of the initialisation data.
const INIT_DATA_PCR: usize = 8;

/// A quote and the values of its registers, as received.
pub(crate) struct Quote {
    pub(crate) message: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) pcrs: [[u8; 32]; PCRS],
}

/// What the message says.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Attested {
    /// The qualifying data.
    pub(crate) nonce: Vec<u8>,
    /// How often the vTPM was reset.
    pub(crate) reset_count: u32,
    pub(crate) firmware_version: u64,
    /// Whether all registers of the SHA-256 bank were quoted, and nothing else.
    pub(crate) all_of_sha256: bool,
    pub(crate) pcr_digest: Vec<u8>,
}

impl Attested {
    /// Parses `TPMS_ATTEST`; nothing may follow it.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Offence> {
        if message.len() > MESSAGE_LEN {
            return Err(form(format!("{} bytes", message.len())));
        }
        let mut reader = Reader::new(message);
        let attested = Self::read(&mut reader).ok_or_else(|| form("another structure".to_owned()))?;
        if reader.rest().is_empty() { Ok(attested) } else { Err(form("bytes behind it".to_owned())) }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if (reader.u32_be()?, reader.u16_be()?) != (MAGIC, QUOTE) {
            return None;
        }
        let _signer = sized(reader)?;
        let nonce = sized(reader)?.to_vec();
        // The clock.
        reader.take(8)?;
        let reset_count = reader.u32_be()?;
        // Restarts, and whether the clock is safe.
        reader.take(5)?;
        let firmware_version = u64::from_be_bytes(reader.array()?);
        let selections = reader.u32_be()?;
        let mut all_of_sha256 = selections == 1;
        // A TPM has a handful of banks.
        if selections > 16 {
            return None;
        }
        for _ in 0..selections {
            let bank = reader.u16_be()?;
            let [len] = reader.array()?;
            let selected = reader.take(usize::from(len))?;
            all_of_sha256 &= bank == SHA256_BANK && selected == [0xFF; PCRS / 8];
        }
        let pcr_digest = sized(reader)?.to_vec();
        Some(Self { nonce, reset_count, firmware_version, all_of_sha256, pcr_digest })
    }
}

/// Bytes behind their number, a `u16`.
fn sized<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = reader.u16_be()?;
    reader.take(usize::from(len))
}

/// Checks the quote against the key that the paravisor vouches for.
pub(crate) fn check(quote: &Quote, key: &RsaKey, expected: &Expected, checks: &mut Checks) -> Option<Attested> {
    check_signature(quote, key, checks);
    let attested = match Attested::parse(&quote.message) {
        Ok(attested) => attested,
        Err(offence) => {
            checks.note(offence.check, false, offence.expected, offence.found);
            for name in [CheckName::Nonce, CheckName::PcrDigest, CheckName::InitData] {
                checks.skip(name, "there is no quote");
            }
            return None;
        }
    };
    checks.note(CheckName::QuoteForm, true, FORM, FORM);
    check_nonce(&attested, expected, checks);

    let found = if !attested.all_of_sha256 {
        Err("a quote of other registers".to_owned())
    } else if attested.pcr_digest != digest(&SHA256, quote.pcrs.as_flattened()).as_ref() {
        Err("a digest of other values".to_owned())
    } else {
        Ok(REGISTERS.to_owned())
    };
    checks.judge(CheckName::PcrDigest, REGISTERS, found);
    check_init_data(quote, expected, checks);
    Some(attested)
}

const FORM: &str = "a TPM's quote";
const REGISTERS: &str = "the digest of all 24 registers of SHA-256 as given";

fn form(found: String) -> Offence {
    Offence::new(CheckName::QuoteForm, FORM, found)
}

fn check_signature(quote: &Quote, key: &RsaKey, checks: &mut Checks) {
    const EXPECTED: &str = "a signature of the vTPM's attestation key";
    let key = RsaPublicKeyComponents { n: &key.modulus, e: &key.exponent };
    let holds = key.verify(&RSA_PKCS1_2048_8192_SHA256, &quote.message, &quote.signature).is_ok();
    let found = if holds { EXPECTED } else { "a signature that does not verify" };
    checks.note(CheckName::AkSignature, holds, EXPECTED, found);
}

/// The qualifying data must be the expected report data. A TPM limits its length: it may be shorter than 64
/// bytes, and is then zero-padded as the expected data are.
fn check_nonce(attested: &Attested, expected: &Expected, checks: &mut Checks) {
    let mut found = [0; 64];
    let fits = attested.nonce.len() <= found.len();
    for (to, from) in found.iter_mut().zip(&attested.nonce) {
        *to = *from;
    }
    let equal: bool = found[..].ct_eq(&expected.report_data[..]).into();
    let shown: String = hex::encode(&attested.nonce).chars().take(192).collect();
    checks.note(CheckName::Nonce, fits && equal, hex::encode(expected.report_data), shown);
}

/// Azure passes nothing at launch: agents extend a register with the digest instead.
fn check_init_data(quote: &Quote, expected: &Expected, checks: &mut Checks) {
    let HostData::Sha256(init_data) = expected.host_data else {
        return checks.skip(CheckName::InitData, "no initialisation data were presented");
    };
    let wanted = digest(&SHA256, &[[0; 32], init_data].concat());
    let found = quote.pcrs.get(INIT_DATA_PCR).copied().unwrap_or_default();
    let holds = wanted.as_ref() == found;
    checks.note(
        CheckName::InitData,
        holds,
        format!("PCR {INIT_DATA_PCR} extended once, {}", hex::encode(wanted)),
        hex::encode(found),
    );
}
