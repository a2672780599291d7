//! The attester against directories that imitate the kernel's: `outblob` is a pipe, so the report is made
//! when it is read.

use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::snp::evidence::Evidence;
use crate::snp::table::tests::{VCEK, table};

/// Lays out an entry as the kernel does; a thread answers the one read of `outblob`, and counts `generation`
/// up by `step` then.
fn lay_out(path: &Path, provider: &str, answer_len: usize, step: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::write(path.join("provider"), format!("{provider}\n"))?;
    fs::write(path.join("generation"), "1\n")?;
    fs::write(path.join("inblob"), "")?;
    fs::write(path.join("auxblob"), table(&[(VCEK, b"a certificate")]))?;
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
