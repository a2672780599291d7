//! The attester against directories that imitate the kernel's: `outblob` is a pipe, so the report is made
//! when it is read.

use std::thread;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::snp::evidence::Evidence;

/// Lays out an entry as the kernel does; a thread answers the one read of `outblob`, and counts `generation`
/// up by `step` then.
fn lay_out(path: &Path, provider: &str, answer_len: usize, step: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::write(path.join("provider"), format!("{provider}\n"))?;
    fs::write(path.join("generation"), "1\n")?;
    fs::write(path.join("inblob"), "")?;
    fs::write(path.join("auxblob"), table(&[(CERTIFICATES[1], b"a certificate")]))?;
    let outblob = path.join("outblob");
    mknodat(CWD, &outblob, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let path = path.to_owned();
    thread::spawn(move || {
        // Blocks until the attester reads.
        let mut pipe = OpenOptions::new().write(true).open(&outblob).unwrap();
        let mut report = vec![0; 0x50];
        report.extend(fs::read(path.join("inblob")).unwrap());
        report.resize(answer_len, 0);
        fs::write(path.join("generation"), format!("{}\n", 1 + step)).unwrap();
        pipe.write_all(&report).unwrap();
    });
    Ok(())
}

fn attester(make_entry: MakeEntry) -> (tempfile::TempDir, ConfigfsAttester) {
    let base = tempfile::tempdir().unwrap();
    let attester = ConfigfsAttester::with(base.path().to_owned(), make_entry).unwrap();
    (base, attester)
}

/// A certificate table with these entries.
fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let mut start = (entries.len() + 1) * TABLE_ENTRY;
    let mut table = Vec::new();
    for (guid, data) in entries {
        table.extend_from_slice(guid);
        table.extend_from_slice(&u32::try_from(start).unwrap().to_le_bytes());
        table.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        start += data.len();
    }
    table.extend_from_slice(&[0; TABLE_ENTRY]);
    table.extend(entries.iter().flat_map(|(_, data)| data.to_vec()));
    table
}

#[test]
fn evidence_carries_report_and_certificates() {
    let (_base, attester) = attester(|path| lay_out(path, "sev_guest", REPORT_LEN, 0));
    assert_eq!((attester.tee(), attester.is_simulated()), ("snp", false));
    let evidence = Evidence::parse(&attester.evidence(&[7; 64]).unwrap()).unwrap();
    assert_eq!(evidence.report.report_data(), [7; 64]);
    assert_eq!(evidence.certificates, [b"a certificate".to_vec()]);
}

#[test]
fn another_provider_is_named() {
    let (_base, attester) = attester(|path| lay_out(path, "tdx_guest", REPORT_LEN, 0));
    let error = attester.evidence(&[7; 64]).unwrap_err();
    assert!(matches!(error, AttesterError::Provider { found, .. } if found == "tdx_guest"));
}

#[test]
fn a_report_of_another_length_is_refused() {
    for make_entry in [(|path| lay_out(path, "sev_guest", REPORT_LEN - 1, 0)) as MakeEntry, |path| {
        lay_out(path, "sev_guest", REPORT_LEN + 1, 0)
    }] {
        let (_base, attester) = attester(make_entry);
        assert!(matches!(attester.evidence(&[7; 64]), Err(AttesterError::Malformed(_))));
    }
}

#[test]
fn a_request_that_others_disturb_is_given_up_after_three_times() {
    let (base, attester) = attester(|path| lay_out(path, "sev_guest", REPORT_LEN, 1));
    assert!(matches!(attester.evidence(&[7; 64]), Err(AttesterError::Contended { attempts: 3 })));
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 3);
}

#[test]
fn what_is_missing_is_named() {
    let base = tempfile::tempdir().unwrap();
    let absent = base.path().join("absent");
    let error = ConfigfsAttester::new(&absent).unwrap_err();
    assert!(matches!(error, AttesterError::Missing { path, .. } if path == absent));

    // A directory that no kernel fills.
    let attester = ConfigfsAttester::new(base.path()).unwrap();
    let error = attester.evidence(&[7; 64]).unwrap_err();
    assert!(matches!(error, AttesterError::Missing { path, .. } if path.ends_with("provider")));
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0, "the entry is removed");

    let (_base, attester) = self::attester(|_| Err(io::Error::from_raw_os_error(6)));
    let error = attester.evidence(&[7; 64]).unwrap_err();
    assert!(error.to_string().contains("sev-guest"), "{error}");
}

#[test]
fn tables_give_their_useful_certificates() {
    let [intermediate, chip, provider] = CERTIFICATES;
    let root = [0xC0; 16];
    let found =
        certificates(&table(&[(root, b"root"), (intermediate, b"ask"), (chip, b"vcek"), (provider, b"vlek")])).unwrap();
    assert_eq!(found, [b"ask".to_vec(), b"vcek".to_vec(), b"vlek".to_vec()]);
    assert!(certificates(&[]).unwrap().is_empty());
    assert!(certificates(&[0; TABLE_ENTRY]).unwrap().is_empty());
}

#[test]
fn tables_that_do_not_hold_together_are_refused() {
    let whole = table(&[(CERTIFICATES[0], b"certificate")]);
    assert!(certificates(&whole[..whole.len() - 1]).is_err(), "data cut short");
    assert!(certificates(&whole[..TABLE_ENTRY]).is_err(), "no closing entry");
    assert!(certificates(&whole[..TABLE_ENTRY - 1]).is_err(), "half an entry");
    let mut wrapping = whole;
    wrapping[16..24].fill(0xFF);
    assert!(certificates(&wrapping).is_err(), "offset and length beyond the table");
}

#[test]
fn pem_in_a_table_becomes_der() {
    let text = b"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
    assert_eq!(certificates(&table(&[(CERTIFICATES[0], text)])).unwrap(), [vec![1, 2, 3]]);
    assert!(certificates(&table(&[(CERTIFICATES[0], b"-----BEGIN nothing")])).is_err());
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
        let _ = certificates(&table);
    }
}
