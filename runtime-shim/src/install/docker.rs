//! Docker: a runtime beside its own. It opens no sealed layers itself; skopeo does, for its image store.

use command_line::{ExitCode, Failure, FailureContext as _};
use serde_json::{Map, Value, json};

use super::containers::profile;
use super::plan::{Plan, PlannedFile, PlannedLine, Position};
use super::record::Root;
use super::{Programs, document};

const MAIN: &str = "/etc/docker/daemon.json";

pub(super) fn plan(root: &Root, programs: &Programs) -> Result<Plan, Failure> {
    let mut plan = Plan { files: vec![programs.runtime()?, programs.providers()?, profile()], ..Plan::default() };
    let text = root.read(MAIN)?;
    let content = document(&json!({"runtimes": runtimes()}))?;
    if text.as_ref().is_none_or(|text| *text == content) {
        plan.files.push(PlannedFile { path: MAIN.to_owned(), content, mode: 0o644 });
    } else {
        plan.lines.extend(entry(&text.unwrap_or_default())?);
    }
    plan.notes = vec![
        "systemctl reload docker",
        "skopeo copy --decryption-key provider:sealift docker://REF docker-daemon:NAME, then docker run --runtime sealift NAME",
    ];
    Ok(plan)
}

fn runtimes() -> Value {
    json!({"sealift": {"path": Programs::RUNTIME}})
}

/// What the file lacks; nothing where it names the runtime.
fn entry(text: &str) -> Result<Option<PlannedLine>, Failure> {
    let main: Map<String, Value> = serde_json::from_str(text)
        .or_fail(ExitCode::BadInput, || format!("`{MAIN}` cannot be read as Docker reads it"))?;
    let runtimes = runtimes();
    match main.get("runtimes") {
        Some(named) if named["sealift"] == runtimes["sealift"] => Ok(None),
        Some(_) => Err(Failure::bad_input(format!("`{MAIN}` names other runtimes"))
            .hint(format!("add \"sealift\": {} to its `runtimes`, then run this once more", runtimes["sealift"]))),
        None => {
            let comma = if main.is_empty() { "" } else { "," };
            let line = format!("  \"runtimes\": {runtimes}{comma}");
            Ok(Some(PlannedLine { path: MAIN.to_owned(), line, position: Position::FirstEntry }))
        }
    }
}
