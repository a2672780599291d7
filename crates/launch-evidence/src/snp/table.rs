//! The certificate table that hosts pass to guests (AMD 56421, GHCB, SNP extended guest request): entries of
//! 24 bytes up to one of zeros, each naming bytes behind them. The kernel hands it out as `auxblob`.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | GUID, as bytes |
//! | 16 | 4 | offset from the table's start, little-endian |
//! | 20 | 4 | length, little-endian |

use super::evidence::{CERTIFICATE_LEN, CERTIFICATES};
use crate::form::{Reader, certificates_der};

/// The largest table, in bytes; the kernel's own limit is 32 KiB, four pages are usual.
pub const TABLE_LEN: usize = 64 * 1024;

const ENTRY_LEN: usize = 24;

/// The GUIDs of entries that are of use.
const KNOWN: [[u8; 16]; 3] = [
    // 4ab7b379-bbac-4fe4-a02f-05aef327c782: ASK
    [0x4A, 0xB7, 0xB3, 0x79, 0xBB, 0xAC, 0x4F, 0xE4, 0xA0, 0x2F, 0x05, 0xAE, 0xF3, 0x27, 0xC7, 0x82],
    // 63da758d-e664-4564-adc5-f4b93be8accd: VCEK
    [0x63, 0xDA, 0x75, 0x8D, 0xE6, 0x64, 0x45, 0x64, 0xAD, 0xC5, 0xF4, 0xB9, 0x3B, 0xE8, 0xAC, 0xCD],
    // a8074bc2-a25a-483e-aae6-39c045a0b8a1: VLEK
    [0xA8, 0x07, 0x4B, 0xC2, 0xA2, 0x5A, 0x48, 0x3E, 0xAA, 0xE6, 0x39, 0xC0, 0x45, 0xA0, 0xB8, 0xA1],
];

/// Why bytes are no certificate table.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Larger than any host passes.
    #[error("the certificate table has {0} bytes, the limit is {TABLE_LEN}")]
    TooLarge(usize),
    /// No entry of zeros ends it.
    #[error("the certificate table has no end")]
    Endless,
    /// An entry names bytes that are not there.
    #[error("the certificate table points outside itself")]
    Outside,
    /// More certificates, or larger ones, than there are in any chain.
    #[error("the certificate table holds more than {CERTIFICATES} certificates of {CERTIFICATE_LEN} bytes")]
    TooMany,
    /// An entry in PEM that is none.
    #[error("a certificate of the host is no PEM")]
    Pem,
}

/// The certificates of a table, in DER. Revocation lists, the root and unknown entries are left out. No bytes
/// at all are a table without entries: what a host passes that has no certificates.
///
/// # Errors
/// [`TableError`] when it is none. Whether the certificates are any is not asked here.
pub fn certificates(table: &[u8]) -> Result<Vec<Vec<u8>>, TableError> {
    if table.len() > TABLE_LEN {
        return Err(TableError::TooLarge(table.len()));
    }
    let mut found = Vec::new();
    for entry in table.chunks_exact(ENTRY_LEN) {
        if entry.iter().all(|byte| *byte == 0) {
            return Ok(found);
        }
        let mut reader = Reader::new(entry);
        let (Some(guid), Some(offset), Some(len)) = (reader.array::<16>(), reader.u32_le(), reader.u32_le()) else {
            return Err(TableError::Endless);
        };
        let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        let data = range.and_then(|(start, len)| table.get(start..start.checked_add(len)?));
        let data = data.ok_or(TableError::Outside)?;
        if !KNOWN.contains(&guid) {
            continue;
        }
        if data.len() > CERTIFICATE_LEN {
            return Err(TableError::TooMany);
        }
        // The table is meant to hold DER, but some hosts load PEM into it.
        found.extend(certificates_der(data).ok_or(TableError::Pem)?);
        if found.len() > CERTIFICATES {
            return Err(TableError::TooMany);
        }
    }
    if table.is_empty() { Ok(found) } else { Err(TableError::Endless) }
}

#[cfg(test)]
pub(crate) mod tests;
