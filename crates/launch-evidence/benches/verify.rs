//! Verifications of an SNP report on one core with its endorsements at hand, beside the one signature that no
//! verifier can do without, and beside the `sev` crate's own verification of a report.
//!
//! The last lines are ratios, taken in turns so that a busy machine slows all of them alike.
#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench that fails has no result")]

#[path = "../tests/data/mod.rs"]
mod data;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use criterion::Criterion;
use launch_evidence::{Expected, HostData, Requirements, SnpVerifier, TrustRoots, Verifier as _, snp};
use serde_json::Value;
use sev::certs::snp::{Certificate, Verifiable as _};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use x509_cert::der::Decode as _;

use crate::data::{package, read};

/// A real report and what it needs, parsed for each of the three.
struct Setting {
    report: Vec<u8>,
    /// R and S, big-endian.
    signature: Vec<u8>,
    point: Vec<u8>,
    primary: Value,
    expected: Expected,
    verifier: SnpVerifier,
    vcek: Certificate,
    parsed: AttestationReport,
}

impl Setting {
    fn new() -> Self {
        let folder = package("sev").join("tests").join("certs_data");
        let report = read(&folder.join("report_milan.hex"));
        let report = if report.len() == 1184 { report } else { hex::decode(report.trim_ascii()).expect("hexadecimal") };
        let der = read(&folder.join("vcek_milan.der"));
        let number = |offset: usize| report.get(offset..offset + 48).expect("a whole report").iter().rev().copied();
        let certificate = x509_cert::Certificate::from_der(&der).expect("a certificate");
        let key = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec();
        let report_data = report.get(0x50..0x90).and_then(|bytes| bytes.try_into().ok()).expect("report data");
        let now = "2026-06-01T00:00:00Z".parse().expect("a date");
        Self {
            signature: number(0x2A0).chain(number(0x2E8)).collect(),
            point: key,
            primary: snp::evidence_json(&report, &[&der]),
            expected: Expected { report_data, host_data: HostData::Zero, requirements: Requirements::default(), now },
            verifier: SnpVerifier::new(TrustRoots::amd()),
            vcek: Certificate::from_der(&der).expect("a certificate"),
            parsed: AttestationReport::from_bytes(&report).expect("a report"),
            report,
        }
    }

    fn bare(&self) {
        let signed = self.report.get(..0x2A0).expect("a whole report");
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, black_box(&self.point))
            .verify(black_box(signed), &self.signature)
            .expect("a signature");
    }

    fn ours(&self) {
        let outcome = self.verifier.verify(black_box(&self.primary), &self.expected);
        black_box(outcome.unwrap_or_else(|rejected| panic!("{rejected}")));
    }

    fn sev(&self) {
        (&self.vcek, black_box(&self.parsed)).verify().expect("a signature");
    }
}

/// Seconds for one turn of each, from rounds in turns.
fn in_turns(setting: &Setting) -> [f64; 3] {
    const TURNS: u32 = 50;
    let works: [fn(&Setting); 3] = [Setting::bare, Setting::ours, Setting::sev];
    let mut spent = [Duration::ZERO; 3];
    for _ in 0..20 {
        for (work, spent) in works.iter().zip(&mut spent) {
            let start = Instant::now();
            for _ in 0..TURNS {
                work(setting);
            }
            *spent += start.elapsed();
        }
    }
    spent.map(|spent| spent.as_secs_f64() / f64::from(20 * TURNS))
}

fn main() {
    let setting = Setting::new();
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("bare P-384", |bencher| bencher.iter(|| setting.bare()));
    criterion.bench_function("launch-evidence", |bencher| bencher.iter(|| setting.ours()));
    criterion.bench_function("sev", |bencher| bencher.iter(|| setting.sev()));
    criterion.final_summary();

    let [bare, ours, sev] = in_turns(&setting);
    println!("verifications per second on one core: {:.0}", 1.0 / ours);
    println!("of bare P-384 verifications: {:.2}", bare / ours);
    println!("of the sev crate's report verifications: {:.2}", sev / ours);
}
