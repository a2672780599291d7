//! `policy explain`: what an audit entry denied, and what to do about it.

use attestation_service::{AuditEntry, Finding, Stage};
use command_line::{Console, Failure};
use serde_json::{Value, json};

use crate::client::AdminClient;
use crate::commands::findings;

pub(super) async fn run(client: &AdminClient, number: u64, console: &Console) -> Result<(), Failure> {
    let entry: AuditEntry = client.get(&format!("/audit/{number}")).await?;
    if entry.kind != "denied" {
        return Err(Failure::bad_input(format!("audit entry {number} records `{}`, no denial", entry.kind))
            .hint("`sealift audit list` shows which entries are denials"));
    }
    let stage = Stage::of_entry(&entry.body);
    let findings = findings_of(&entry.body);
    let document = json!({
        "entry": entry.sequence, "at": entry.at, "stage": stage.map(Stage::name),
        "findings": findings, "fix": stage.map(Stage::fix), "body": entry.body,
    });
    console.result(&document, || {
        let mut lines = vec![format!("entry        {} of {}", entry.sequence, entry.at)];
        lines.extend(stage.map(|stage| format!("denied by    {}", stage.name())));
        for (label, name) in [
            ("license", "license"),
            ("manifest", "manifest_digest"),
            ("measurement", "measurement"),
            ("chip", "chip_id"),
        ] {
            lines.extend(entry.body.get(name).and_then(Value::as_str).map(|text| format!("{label:<13}{text}")));
        }
        format!("{}\n\n{}", lines.join("\n"), findings::render(&findings, stage.map(Stage::fix)))
    });
    Ok(())
}

/// The findings in full, or the reasons of denials that have none.
fn findings_of(body: &Value) -> Vec<Finding> {
    let of = |name: &str| body.get(name).and_then(|list| serde_json::from_value::<Vec<Finding>>(list.clone()).ok());
    of("findings").or_else(|| of("reasons")).unwrap_or_default()
}
