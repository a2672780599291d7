//! `audit`: what was released to whom, and what was denied.

use attestation_service::AuditEntry;
use command_line::{Console, Failure};
use serde_json::Value;

use super::table;
use crate::cli::AuditCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: &VendorHome, command: AuditCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        AuditCommand::List { limit } => {
            let entries: Vec<AuditEntry> = client.get(&format!("/audit?limit={limit}")).await?;
            console.result(&entries, || {
                table::render(&["ENTRY", "AT", "KIND", "PLATFORM", "WHAT"], entries.iter().map(row).collect())
            });
        }
    }
    Ok(())
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let platform = match entry.body.get("simulated") {
        Some(Value::Bool(true)) => "SIMULATED",
        Some(Value::Bool(false)) => "hardware",
        _ => "",
    };
    vec![
        entry.sequence.to_string(),
        entry.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        entry.kind.clone(),
        platform.to_owned(),
        summary(&entry.body),
    ]
}

fn summary(body: &Value) -> String {
    let mut parts = Vec::new();
    for name in ["product", "license", "customer", "resource", "key", "measurement"] {
        if let Some(text) = body.get(name).and_then(Value::as_str) {
            let shown: String = text.chars().take(48).collect();
            parts.push(format!("{name}={shown}"));
        }
    }
    if let Some(reasons) = body.get("reasons").and_then(Value::as_array) {
        parts.extend(reasons.iter().filter_map(Value::as_str).map(|reason| format!("because: {reason}")));
    }
    parts.join(" ")
}
