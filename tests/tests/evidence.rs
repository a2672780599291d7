//! Saved evidence at the command line: shown, judged by given roots, in batches, by a policy. Offline, without a home.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../../crates/launch-evidence/tests/data/mod.rs"]
mod data;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use end_to_end::device::launch;
use end_to_end::peer::{Said, program, run};
use end_to_end::vendor::Vendor;
use launch_evidence::simulated::{LaunchOptions, SimulatedGuest, SimulatedPlatform};
use serde_json::{Value, json};

/// A simulated guest's evidence in files, and the root that it ends in.
struct Saved {
    scratch: tempfile::TempDir,
    report: PathBuf,
    certificates: Vec<PathBuf>,
    root: PathBuf,
}

const REPORT_DATA: [u8; 64] = [0x5A; 64];

impl Saved {
    fn make(options: LaunchOptions) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let vendor = Vendor::start(scratch.path(), &[]);
        let guest: SimulatedGuest = launch(&vendor, scratch.path(), options);
        let platform = SimulatedPlatform::open(&vendor.home().join("simulated-platform")).unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = scratch.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let evidence = guest.evidence(&REPORT_DATA).unwrap();
        let certificates = evidence["cert_chain"].as_array().unwrap().iter().enumerate();
        let certificates = certificates.map(|(number, text)| {
            let der = end_to_end::forge::unbase64(text.as_str().unwrap());
            file(&format!("certificate-{number}.der"), &der)
        });
        let certificates: Vec<PathBuf> = certificates.collect();
        let report = file("report.bin", &guest.report(&REPORT_DATA).unwrap());
        let root = file("root.der", platform.ark_der());
        Self { scratch, report, certificates, root }
    }

    fn verify(&self, more: &[&str]) -> Said {
        let mut command = sealift(&["evidence", "verify"]);
        command.arg(&self.report);
        for certificate in &self.certificates {
            command.arg("--certs").arg(certificate);
        }
        run(command.arg("--roots").arg(&self.root).args(more))
    }

    fn request(&self, name: &str, expect: &Value) -> Value {
        json!({"name": name, "report": self.report, "certs": self.certificates, "roots": [self.root], "expect": expect})
    }
}

fn sealift(args: &[&str]) -> Command {
    let mut command = Command::new(program("sealift"));
    // No home: none of this may need one.
    command.args(args).env("SEALIFT_HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn answers(lines: &str) -> (i32, Vec<Value>) {
    let mut child = sealift(&["evidence", "verify", "--batch", "-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let said = Said::from(child.wait_with_output().unwrap());
    (said.code, said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn genuine_evidence_passes_and_the_output_says_whose_roots_were_asked() {
    let saved = Saved::make(LaunchOptions::default());
    let said = saved.verify(&["--report-data", &"5a".repeat(64)]).succeeded();
    assert!(said.stdout.contains("genuine, by UNTRUSTED roots"), "{}", said.stdout);
    let checked = said.stdout.lines().any(|line| line.trim().starts_with("report-signature") && line.contains(" ok "));
    assert!(checked, "{}", said.stdout);
    let document: Value = serde_json::from_str(&saved.verify(&["--output", "json"]).succeeded().stdout).unwrap();
    assert_eq!(document[0]["roots"], "untrusted");
    assert_eq!(document[0]["simulated"], true);
}

#[test]
fn what_it_must_say_is_compared_whole_and_a_difference_is_exit_code_4() {
    let saved = Saved::make(LaunchOptions::default());
    saved.verify(&["--report-data", &"00".repeat(64)]).failed(4, "report-data: expected 0000");
    saved.verify(&["--report-data", &"5a".repeat(32)]).failed(2, "128 hexadecimal digits");
    saved.verify(&["--host-data", &"11".repeat(32)]).failed(4, "host-data");
    saved.verify(&["--measurement", &"22".repeat(48)]).failed(4, "measurement");
    saved.verify(&["--min-tcb", "Genoa:snp=255,Milan:snp=1"]).failed(2, "is no");
    saved.verify(&["--vmpl", "1"]).failed(4, "vmpl: expected 1, found 0");
    saved.verify(&["--require-crl"]).failed(4, "revocation");
}

#[test]
fn amds_roots_alone_refuse_a_simulated_platform() {
    let saved = Saved::make(LaunchOptions::default());
    let mut command = sealift(&["evidence", "verify"]);
    command.arg(&saved.report);
    for certificate in &saved.certificates {
        command.arg("--certs").arg(certificate);
    }
    run(&mut command).failed(4, "trust-root");
}

#[test]
fn a_directory_of_certificates_serves_as_well() {
    let saved = Saved::make(LaunchOptions::default());
    let mut command = sealift(&["evidence", "verify"]);
    command.arg(&saved.report).arg("--certs").arg(saved.scratch.path()).arg("--roots").arg(&saved.root);
    // The root itself lies there too: it is looked at for the chain and not trusted from there.
    run(&mut command).succeeded();
}

#[test]
fn what_is_shown_is_called_unverified() {
    let saved = Saved::make(LaunchOptions::default());
    let said = run(sealift(&["evidence", "show"]).arg(&saved.report)).succeeded();
    assert!(said.stdout.contains("UNVERIFIED"), "{}", said.stdout);
    assert!(said.stdout.contains(&"5a".repeat(64)), "{}", said.stdout);
    run(sealift(&["evidence", "show"]).arg(&saved.root)).failed(3, "no evidence of a known form");
}

#[test]
fn a_batch_is_answered_line_by_line_whatever_stands_in_it() {
    let saved = Saved::make(LaunchOptions::default());
    let debug = Saved::make(LaunchOptions { policy: 0xB_0000, ..LaunchOptions::default() });
    let requests = [
        saved.request("good", &json!({"report_data": "5a".repeat(64), "vmpl": 0})).to_string(),
        saved.request("other data", &json!({"report_data": "5b".repeat(64)})).to_string(),
        "this is no request".to_owned(),
        json!({"name": "absent", "report": "/nonexistent"}).to_string(),
        json!({"name": "misspelt", "report": saved.report, "expect": {"vmlp": 1}}).to_string(),
        debug.request("debug", &json!({})).to_string(),
        debug.request("debug allowed", &json!({"allow_debug": true})).to_string(),
        json!({"name": "no chain", "report": saved.report}).to_string(),
        "x".repeat(100_000),
        saved.request("after all that", &json!({})).to_string(),
    ];
    let (code, answers) = answers(&requests.join("\n"));
    assert_eq!(code, 4);
    let said: Vec<(Option<&str>, &str, Vec<&str>)> = answers
        .iter()
        .map(|answer| {
            let failed = answer["failed"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            (answer["name"].as_str(), answer["verdict"].as_str().unwrap(), failed)
        })
        .collect();
    let wanted: [(Option<&str>, &str, &[&str]); 10] = [
        (Some("good"), "pass", &[]),
        (Some("other data"), "fail", &["report-data"]),
        (None, "fail", &["request"]),
        (Some("absent"), "fail", &["request"]),
        (Some("misspelt"), "fail", &["request"]),
        (Some("debug"), "fail", &["debug"]),
        (Some("debug allowed"), "pass", &[]),
        (Some("no chain"), "fail", &["certificate-form"]),
        (None, "fail", &["request"]),
        (Some("after all that"), "pass", &[]),
    ];
    for (said, wanted) in said.iter().zip(wanted) {
        assert_eq!((said.0, said.1, said.2.as_slice()), wanted);
    }
    assert_eq!(answers.len(), wanted.len());
    assert_eq!(answers[0]["claims"]["vmpl"], 0);
    assert!(answers[1].get("claims").is_none());
}

#[test]
fn a_policy_is_asked_as_well() {
    let saved = Saved::make(LaunchOptions::default());
    let policy = |name: &str, rule: &str| {
        let path = saved.scratch.path().join(name);
        std::fs::write(&path, format!("package sealift.release\nimport rego.v1\ndefault allow := false\n{rule}\n"))
            .unwrap();
        path.display().to_string()
    };
    let allows = policy("allows.rego", "allow if input.tee.vmpl == 0");
    let denies = policy("denies.rego", "allow if input.platform.product == \"Rome\"");
    let said = saved.verify(&["--policy", &allows]).succeeded();
    assert!(said.stdout.contains("policy: allows"), "{}", said.stdout);
    saved.verify(&["--policy", &denies]).failed(5, "denies");
    saved.verify(&["--policy", "/nonexistent"]).failed(3, "cannot read the policy");
}

/// Requests about real evidence, each with the verdict it must get.
#[derive(Default)]
struct Known {
    requests: Vec<String>,
    verdicts: Vec<&'static str>,
}

impl Known {
    fn add(&mut self, request: &Value, good: bool) {
        self.requests.push(request.to_string());
        self.verdicts.push(if good { "pass" } else { "fail" });
    }

    fn judge(&self) {
        let (code, answers) = answers(&self.requests.join("\n"));
        let verdicts: Vec<&str> = answers.iter().map(|answer| answer["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, self.verdicts, "{answers:#?}");
        assert!(self.verdicts.contains(&"pass") && self.verdicts.contains(&"fail"));
        assert_eq!(code, 4);
    }
}

#[test]
fn real_reports_get_their_known_verdicts_in_one_batch() {
    let mut known = Known::default();
    // The package's own report is at hand everywhere.
    let scratch = tempfile::tempdir().unwrap();
    let samples = data::package("sev").join("tests/certs_data");
    let text = data::read(&samples.join("report_milan.hex"));
    let report = scratch.path().join("report.bin");
    let is_raw = text.len() == 1184;
    std::fs::write(&report, if is_raw { text } else { hex::decode(text.trim_ascii()).unwrap() }).unwrap();
    let at = "2026-06-01T00:00:00Z";
    let request = |at: &str| json!({"name": at, "report": report, "certs": [samples.join("vcek_milan.der")], "at": at});
    known.add(&request(at), true);
    known.add(&request("2019-01-01T00:00:00Z"), false);
    if let Some(folder) = data::vectors() {
        for case in data::manifest(&folder)["snp"].as_array().unwrap() {
            let files = folder.join("snp").join(case["name"].as_str().unwrap());
            let (report, vek) = (files.join("report.bin"), files.join("vek.der"));
            let good = case["expect"]["strict_verdict_2026_06_01"] == "accept";
            known.add(&json!({"name": case["name"], "report": report, "certs": [vek], "at": at}), good);
        }
    }
    known.judge();
}

#[test]
fn real_quotes_get_their_known_verdicts_in_one_batch() {
    let mut known = Known::default();
    let samples = data::package("dcap-qvl").join("sample");
    for (name, at, good) in [("tdx_quote", 1_750_332_747, true), ("sgx_quote", 1_750_334_171, false)] {
        let at = jiff::Timestamp::from_second(at).unwrap();
        let collateral = samples.join(format!("{name}_collateral.json"));
        known.add(&json!({"name": name, "quote": samples.join(name), "collateral": collateral, "at": at}), good);
    }
    if let Some(folder) = data::vectors() {
        for case in data::manifest(&folder)["tdx"].as_array().unwrap() {
            let Some(collateral) = case["collateral"].as_str() else { continue };
            for (at, said) in case["dcap_qvl_0_7_1"].as_object().unwrap() {
                let at = jiff::Timestamp::from_second(at.parse().unwrap()).unwrap();
                let quote = folder.join(case["file"].as_str().unwrap());
                let request = json!({"name": at, "quote": quote, "collateral": folder.join(collateral), "at": at});
                // A TD, and nothing but up to date.
                known.add(&request, case["header"]["tee_type"] == 129 && said["verify"]["status"] == "UpToDate");
            }
        }
    }
    known.judge();
}
