//! The certificate table, made up and real.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

pub(crate) const ASK: [u8; 16] = KNOWN[0];
pub(crate) const VCEK: [u8; 16] = KNOWN[1];

/// A certificate table with these entries.
pub(crate) fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let mut start = (entries.len() + 1) * ENTRY_LEN;
    let mut table = Vec::new();
    for (guid, data) in entries {
        table.extend_from_slice(guid);
        table.extend_from_slice(&u32::try_from(start).unwrap().to_le_bytes());
        table.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        start += data.len();
    }
    table.extend_from_slice(&[0; ENTRY_LEN]);
    table.extend(entries.iter().flat_map(|(_, data)| data.to_vec()));
    table
}

#[test]
fn tables_give_their_useful_certificates() {
    let [intermediate, chip, provider] = KNOWN;
    let root = [0xC0; 16];
    let found =
        certificates(&table(&[(root, b"root"), (intermediate, b"ask"), (chip, b"vcek"), (provider, b"vlek")])).unwrap();
    assert_eq!(found, [b"ask".to_vec(), b"vcek".to_vec(), b"vlek".to_vec()]);
    assert!(certificates(&[]).unwrap().is_empty());
    assert!(certificates(&[0; ENTRY_LEN]).unwrap().is_empty());
}

#[test]
fn tables_that_do_not_hold_together_are_refused() {
    let whole = table(&[(ASK, b"certificate")]);
    assert!(certificates(&whole[..whole.len() - 1]).is_err(), "data cut short");
    assert!(certificates(&whole[..ENTRY_LEN]).is_err(), "no closing entry");
    assert!(certificates(&whole[..ENTRY_LEN - 1]).is_err(), "half an entry");
    let mut wrapping = whole;
    wrapping[16..24].fill(0xFF);
    assert!(certificates(&wrapping).is_err(), "offset and length beyond the table");
}

#[test]
fn pem_in_a_table_becomes_der() {
    let text = b"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
    assert_eq!(certificates(&table(&[(ASK, text)])).unwrap(), [vec![1, 2, 3]]);
    assert!(certificates(&table(&[(ASK, b"-----BEGIN nothing")])).is_err());
}

#[test]
fn tables_are_bounded() {
    let large = vec![0; CERTIFICATE_LEN + 1];
    assert_eq!(certificates(&table(&[(VCEK, &large)])), Err(TableError::TooMany));
    // Entries that share their bytes cost nothing to make.
    assert_eq!(certificates(&table(&vec![(VCEK, &b"certificate"[..]); 9])), Err(TableError::TooMany));
    assert!(certificates(&table(&vec![(VCEK, &b"certificate"[..]); 8])).is_ok());
    assert_eq!(certificates(&vec![0; TABLE_LEN + 1]), Err(TableError::TooLarge(TABLE_LEN + 1)));
}

/// The table of a real machine, where the folder of vectors is at hand.
#[test]
fn a_real_table_is_read() {
    let folder = std::env::var_os("SEALIFT_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let Ok(real) = fs::read(folder.join("snp/genoa-v3-veraison/auxblob.bin")) else { return };
    let vek = fs::read(folder.join("snp/genoa-v3-veraison/vek.der")).unwrap();
    let found = certificates(&real).unwrap();
    assert_eq!(found.len(), 2, "intermediate and endorsement key");
    assert!(found.contains(&vek));
}

proptest! {
    #[test]
    fn no_table_makes_it_panic(table in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(found) = certificates(&table) {
            prop_assert!(found.iter().map(Vec::len).sum::<usize>() <= table.len() * table.len());
        }
    }
}
