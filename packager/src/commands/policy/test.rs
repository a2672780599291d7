//! `policy test`: evaluates a policy on this machine, on one input or on a folder of cases.

use std::path::{Path, PathBuf};

use attestation_service::{PolicyCase, PolicyDecision, ReleasePolicy};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use serde_json::json;

use super::input::{compose, read};
use crate::cli::PolicyTestArgs;
use crate::commands::findings;

/// Gives the exit code: denied, or a case differs.
pub(super) fn run(args: &PolicyTestArgs, console: &Console) -> Result<u8, Failure> {
    let name = args.policy.display();
    let policy = ReleasePolicy::compile(&super::read(&args.policy)?)
        .or_fail(ExitCode::BadInput, || format!("the policy `{name}` cannot be used"))?;
    if let Some(cases) = &args.cases {
        return of_cases(&policy, cases, console);
    }
    let Some(evidence) = &args.evidence else { return Err(Failure::usage("neither evidence nor cases are given")) };
    let input = compose(args, evidence, Timestamp::now())?;
    let decision = policy
        .evaluate(&input)
        .or_fail(ExitCode::BadInput, || format!("the policy `{name}` gives no decision on this input"))?;
    console.say("unverified: evidence, licence and workload are taken as the files say");
    let document = json!({
        "verified": false, "allow": decision.allow, "deny": decision.deny, "obligations": decision.obligations, "input": input,
    });
    console.result(&document, || show(&decision));
    Ok(if decision.allow { ExitCode::Done as u8 } else { ExitCode::Denied as u8 })
}

fn show(decision: &PolicyDecision) -> String {
    if decision.allow {
        return format!("allowed\nobligations  {}", json!(decision.obligations));
    }
    if decision.deny.is_empty() {
        return "denied: the policy does not allow it and gives no reason".to_owned();
    }
    format!("denied\n{}", findings::render(&decision.deny, None))
}

fn of_cases(policy: &ReleasePolicy, folder: &Path, console: &Console) -> Result<u8, Failure> {
    let paths = case_files(folder)?;
    let mut differing = Vec::new();
    for path in &paths {
        let case: PolicyCase = serde_json::from_slice(&read(path, "case")?)
            .or_fail(ExitCode::BadInput, || format!("`{}` is no case", path.display()))?;
        // An input on which the policy fails is one on which it denies without a word: a difference as well.
        let differences = case.differences(policy).unwrap_or_else(|error| vec![error.to_string()]);
        if !differences.is_empty() {
            differing.push((path, differences));
        }
    }
    let document = json!({
        "cases": paths.len(),
        "differing": differing.iter().map(|(case, differences)| json!({"case": case, "differences": differences})).collect::<Vec<_>>(),
    });
    console.result(&document, || match differing.as_slice() {
        [] => format!("all cases hold: {}", paths.len()),
        differing => {
            let mut lines = vec![format!("cases that differ: {} of {}", differing.len(), paths.len())];
            for (path, differences) in differing {
                lines.push(format!("\n{}", path.display()));
                lines.extend(differences.iter().map(|difference| format!("  {difference}")));
            }
            lines.join("\n")
        }
    });
    Ok(if differing.is_empty() { ExitCode::Done as u8 } else { ExitCode::VerificationFailed as u8 })
}

/// The JSON files of a folder, by name; there must be some.
fn case_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = || format!("cannot read the cases in `{}`", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).or_fail(ExitCode::BadInput, failed)? {
        let path = entry.or_fail(ExitCode::BadInput, failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Failure::bad_input(format!("there is no case (`*.json`) in `{}`", folder.display())));
    }
    paths.sort();
    Ok(paths)
}
