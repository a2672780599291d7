//! What a device signs: the request for its measurements and its answer (DMTF DSP0274 1.1, sections 10.11.1 and 10.11.2), one
//! behind the other.
//!
//! | offset | field | size |
//! |---|---|---|
//! | 0 | version, `0x11` | 1 |
//! | 1 | code of GET_MEASUREMENTS, `0xE0` | 1 |
//! | 2 | parameters | 2 |
//! | 4 | nonce of the requester | 32 |
//! | 36 | slot of the certificate | 1 |
//! | 37 | version, `0x11` | 1 |
//! | 38 | code of MEASUREMENTS, `0x60` | 1 |
//! | 39 | parameters | 2 |
//! | 41 | number of measurement blocks | 1 |
//! | 42 | their length L, little-endian | 3 |
//! | 45 | blocks: index, specification (1: DMTF), size; type, size, value | L |
//! | 45 + L | nonce of the device | 32 |
//! | 77 + L | length O of the opaque data, little-endian | 2 |
//! | 79 + L | opaque data | O |
//! | 79 + L + O | ECDSA P-384 signature, r and s | 96 |

use std::collections::BTreeMap;

use crate::form::Reader;

/// The length of a nonce, in bytes.
pub(super) const NONCE_LEN: usize = 32;

const VERSION: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xE0;
const MEASUREMENTS: u8 = 0x60;
/// A block's form as DMTF has it.
const DMTF: u8 = 1;
const SIGNATURE_LEN: usize = 96;

/// A transcript, read.
pub(super) struct Measurements<'a> {
    /// The challenge that was answered.
    pub(super) nonce: [u8; NONCE_LEN],
    /// By index.
    pub(super) values: BTreeMap<u8, &'a [u8]>,
    /// In the vendor's own form.
    pub(super) opaque: &'a [u8],
}

impl<'a> Measurements<'a> {
    /// `None` where the bytes are not of this form, or more than it.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let [VERSION, GET_MEASUREMENTS, _, _] = reader.array()? else { return None };
        let nonce = reader.array()?;
        reader.take(1)?;
        let [VERSION, MEASUREMENTS, _, _, blocks, low, middle, high] = reader.array()? else { return None };
        let length = usize::try_from(u32::from_le_bytes([low, middle, high, 0])).ok()?;
        let values = blocks_of(reader.take(length)?, blocks)?;
        reader.take(NONCE_LEN)?;
        let opaque_len = reader.u16_le()?;
        let opaque = reader.take(opaque_len.into())?;
        reader.take(SIGNATURE_LEN)?;
        reader.rest().is_empty().then_some(Self { nonce, values, opaque })
    }
}

fn blocks_of(bytes: &[u8], number: u8) -> Option<BTreeMap<u8, &[u8]>> {
    let mut reader = Reader::new(bytes);
    let mut values = BTreeMap::new();
    for _ in 0..number {
        let [index, DMTF] = reader.array()? else { return None };
        let size = reader.u16_le()?;
        let mut block = Reader::new(reader.take(size.into())?);
        block.take(1)?;
        let value_len = block.u16_le()?;
        let value = block.take(value_len.into())?;
        if !block.rest().is_empty() || values.insert(index, value).is_some() {
            return None;
        }
    }
    reader.rest().is_empty().then_some(values)
}
