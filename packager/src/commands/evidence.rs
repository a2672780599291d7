//! `evidence`: what saved evidence says, and what a verifier says of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use attestation_service::ReleasePolicy;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use launch_evidence::saved::{self, Answer};
use launch_evidence::snp::claims;
use launch_evidence::{Check, Verdict};
use serde_json::{Value, json};

use super::table::render;
use crate::cli::{EvidenceCommand, EvidenceVerifyArgs};
use crate::evidence::batch;
use crate::evidence::expect::question;
use crate::evidence::input::{Certificates, Form, evidence, inner, read};
use crate::evidence::trust::Trust;

pub(crate) fn run(command: EvidenceCommand, console: &Console) -> Result<(), Failure> {
    match command {
        EvidenceCommand::Show { files } => show(&files, console),
        EvidenceCommand::Verify(args) => match &args.batch {
            Some(file) => verify_batch(file),
            None => verify(&args, console),
        },
    }
}

fn show(files: &[PathBuf], console: &Console) -> Result<(), Failure> {
    let mut shown = Vec::new();
    for file in files {
        let bytes = read(file).map_err(Failure::bad_input)?;
        let claims = unverified(&bytes).ok_or_else(|| {
            Failure::bad_input(format!("`{}` is no evidence of a known form", file.display()))
                .hint("it may be an SNP report of 1184 bytes, a TDX quote, or evidence in JSON")
        })?;
        shown.push(json!({"file": file, "verified": false, "claims": claims}));
    }
    console.result(&shown, || shown.iter().map(claims_text).collect::<Vec<_>>().join("\n\n"));
    Ok(())
}

/// What the evidence says, as far as that can be read without verifying anything.
fn unverified(bytes: &[u8]) -> Option<Value> {
    let nothing = Certificates::default();
    let primary = match Form::of(bytes) {
        Form::Report => return claims::unverified(bytes),
        Form::Quote => evidence(bytes, &nothing, None).ok()?,
        Form::Json(value) => inner(value),
    };
    launch_evidence::unverified_claims(&primary)
}

fn claims_text(shown: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", &shown["claims"], &mut rows);
    format!("{}: UNVERIFIED\n{}", shown["file"].as_str().unwrap_or_default(), render(&["CLAIM", "VALUE"], rows))
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, rows);
            }
        }
        Value::String(text) => rows.push(vec![prefix.to_owned(), text.clone()]),
        other => rows.push(vec![prefix.to_owned(), other.to_string()]),
    }
}

fn verify(args: &EvidenceVerifyArgs, console: &Console) -> Result<(), Failure> {
    let at = args.inputs.at.unwrap_or_else(Timestamp::now);
    let question = question(&args.expect, at).map_err(Failure::usage)?;
    let certificates = Certificates::read(&args.inputs.certs).map_err(Failure::bad_input)?;
    let roots = args.inputs.roots.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>();
    let list = args.inputs.crl.as_deref().map(read).transpose().map_err(Failure::bad_input)?;
    let trust = Trust::new(&roots.map_err(Failure::bad_input)?, list.as_deref()).map_err(Failure::bad_input)?;
    let collateral = args.inputs.collateral.as_deref().map(read).transpose().map_err(Failure::bad_input)?;
    let collateral = collateral
        .map(|text| serde_json::from_slice::<Value>(&text))
        .transpose()
        .or_fail(ExitCode::BadInput, || "the collateral is not JSON".to_owned())?;
    let policy = args.policy.as_deref().map(compile).transpose()?;
    let mut judged = Vec::new();
    for file in &args.files {
        let bytes = read(file).map_err(Failure::bad_input)?;
        let primary = evidence(&bytes, &certificates, collateral.clone()).map_err(Failure::bad_input)?;
        let verifier = trust.verifier(&primary).ok_or_else(|| Failure::other("there is no verifier"))?;
        let answer = saved::judge(verifier, &primary, &question);
        let decision = policy.as_ref().map(|policy| ask(policy, &answer, at)).transpose()?;
        judged.push(Judged { file: file.clone(), answer, decision });
    }
    let documents: Vec<Value> = judged.iter().map(|one| one.document(trust.untrusted)).collect();
    console.result(&documents, || judged.iter().map(|one| one.text(trust.untrusted)).collect::<Vec<_>>().join("\n\n"));
    outcome(&judged)
}

fn compile(file: &Path) -> Result<ReleasePolicy, Failure> {
    let source = std::fs::read_to_string(file);
    let source = source.or_fail(ExitCode::BadInput, || format!("cannot read the policy `{}`", file.display()))?;
    ReleasePolicy::compile(&source).or_fail(ExitCode::BadInput, || format!("`{}` is no policy", file.display()))
}

/// The policy's decision as JSON; none where the evidence did not hold.
fn ask(policy: &ReleasePolicy, answer: &Answer, at: Timestamp) -> Result<Value, Failure> {
    let Some(evidence) = &answer.evidence else { return Ok(Value::Null) };
    let checks: Vec<Value> =
        evidence.checks().iter().map(|check| json!({"name": check.name, "verdict": check.verdict})).collect();
    let input = json!({
        "now": at.as_second(), "tee": evidence.claims(), "platform": evidence.claims().platform(), "checks": checks,
    });
    let decision = policy.evaluate(&input).or_fail(ExitCode::BadInput, || "the policy gave no decision".to_owned())?;
    serde_json::to_value(decision).or_fail(ExitCode::Other, || "cannot write the decision".to_owned())
}

/// One file, judged.
struct Judged {
    file: PathBuf,
    answer: Answer,
    decision: Option<Value>,
}

impl Judged {
    fn document(&self, untrusted: bool) -> Value {
        let claims = self.answer.evidence.as_ref().map(|evidence| json!(evidence.claims()));
        json!({
            "file": self.file, "verdict": if self.answer.holds() { "pass" } else { "fail" },
            "roots": if untrusted { "untrusted" } else { "built-in" },
            "simulated": self.answer.evidence.as_ref().map(launch_evidence::VerifiedEvidence::is_simulated),
            "failed": self.answer.failures().map(|check| check.name.to_string()).collect::<Vec<_>>(),
            "checks": self.answer.checks, "claims": claims, "policy": self.decision,
        })
    }

    fn text(&self, untrusted: bool) -> String {
        let row = |check: &Check| {
            let verdict = match check.verdict {
                Verdict::Passed => "ok",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "-",
            };
            // What was wanted is of interest where something else was found.
            let expected = if check.verdict == Verdict::Failed { short(&check.expected) } else { String::new() };
            vec![check.name.to_string(), verdict.to_owned(), short(&check.found), expected]
        };
        let verdict = if self.answer.holds() { "genuine" } else { "REFUSED" };
        let label = if untrusted { ", by UNTRUSTED roots: nothing is proven about hardware" } else { "" };
        let rows = self.answer.checks.iter().map(row).collect();
        let table = render(&["CHECK", "", "FOUND", "EXPECTED"], rows);
        let policy = self.decision.as_ref().map_or(String::new(), |decision| match decision["allow"].as_bool() {
            Some(true) => "\npolicy: allows".to_owned(),
            Some(false) => format!("\npolicy: denies {}", decision["deny"]),
            None => "\npolicy: not asked".to_owned(),
        });
        format!("{}: {verdict}{label}\n{table}{policy}", self.file.display())
    }
}

/// Long hexadecimal is for JSON; a table shows how it begins and ends.
fn short(text: &str) -> String {
    let is_long = text.len() > 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (text.get(..12), text.get(text.len().saturating_sub(8)..)) {
        (Some(front), Some(back)) if is_long => format!("{front}…{back}"),
        _ => text.to_owned(),
    }
}

fn outcome(judged: &[Judged]) -> Result<(), Failure> {
    let refused = judged.iter().filter(|one| !one.answer.holds()).count();
    if refused > 0 {
        let first = judged.iter().find_map(|one| one.answer.failures().next());
        let failure = Failure::verification(format!("{refused} of {} were refused", judged.len()));
        return Err(first.iter().fold(failure, |failure, check| failure.cause(check.to_string())));
    }
    let denied = judged.iter().filter_map(|one| one.decision.as_ref()).any(|decision| decision["allow"] != true);
    if denied { Err(Failure::denied("the policy denies what is genuine")) } else { Ok(()) }
}

fn verify_batch(file: &Path) -> Result<(), Failure> {
    let cannot = || format!("cannot read the batch `{}`", file.display());
    let mut requests: Box<dyn std::io::BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(std::fs::File::open(file).or_fail(ExitCode::BadInput, cannot)?))
    };
    let now = Timestamp::now();
    let mut out = std::io::stdout().lock();
    let (mut all, mut refused) = (0_usize, 0_usize);
    loop {
        let mut line = Vec::new();
        let limit = batch::LINE_MAX as u64 + 2;
        (&mut requests).take(limit).read_until(b'\n', &mut line).or_fail(ExitCode::BadInput, cannot)?;
        if line.is_empty() {
            break;
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == limit {
            requests.skip_until(b'\n').or_fail(ExitCode::BadInput, cannot)?;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let Some(answer) = batch::answer(line, now) else { continue };
        all += 1;
        refused += usize::from(!answer.passed());
        let text = serde_json::to_string(&answer).or_fail(ExitCode::Other, || "cannot write an answer".to_owned())?;
        writeln!(out, "{text}").or_fail(ExitCode::Other, || "cannot write an answer".to_owned())?;
    }
    if refused > 0 { Err(Failure::verification(format!("{refused} of {all} requests were refused"))) } else { Ok(()) }
}
