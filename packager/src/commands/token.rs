//! `token`: who may ask the service for what.

use std::fs;
use std::path::Path;

use attestation_service::api::{CreatedToken, NewToken, TokenRevocation, TokenStatus};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use serde_json::json;

use super::table;
use crate::cli::TokenCommand;
use crate::client::AdminClient;
use crate::home::{VendorHome, write_new};

pub(crate) async fn run(home: &VendorHome, command: TokenCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        TokenCommand::Create { name, role, expires, file } => {
            let expires_at = expires.map(|text| super::license::until(&text, Timestamp::now())).transpose()?;
            create(&client, &NewToken { name, role, expires_at }, file.as_deref(), console).await?;
        }
        TokenCommand::List => {
            let tokens: Vec<TokenStatus> = client.get("/tokens").await?;
            let headings = ["NAME", "ROLE", "STATE", "MADE", "EXPIRES", "REASON"];
            console.result(&tokens, || table::render(&headings, tokens.iter().map(row).collect()));
        }
        TokenCommand::Revoke { name, reason } => {
            let revoked: TokenStatus = client.post("/tokens/revoke", &TokenRevocation { name, reason }).await?;
            console.result(&revoked, || format!("revoked {}", revoked.name));
        }
    }
    Ok(())
}

async fn create(client: &AdminClient, new: &NewToken, file: Option<&Path>, console: &Console) -> Result<(), Failure> {
    let Some(file) = file else {
        let created: CreatedToken = client.post("/tokens", new).await?;
        console.result(&created, || created.token.to_string());
        return Ok(());
    };
    // The file first: a token that cannot be written would be seen by nobody.
    write_new(file, b"", 0o600)?;
    let created: CreatedToken = match client.post("/tokens", new).await {
        Ok(created) => created,
        Err(failure) => {
            // Empty, and nobody's who would miss it.
            let _ = fs::remove_file(file);
            return Err(failure);
        }
    };
    fs::write(file, created.token.as_bytes())
        .or_fail(ExitCode::Other, || format!("cannot write `{}`; revoke `{}`", file.display(), created.name))?;
    let CreatedToken { name, role, expires_at, .. } = created;
    let made = json!({"name": name, "role": role, "expires_at": expires_at, "file": file});
    console.result(&made, || file.display().to_string());
    Ok(())
}

fn row(token: &TokenStatus) -> Vec<String> {
    vec![
        token.name.clone(),
        token.role.to_string(),
        token.state.clone(),
        token.created_at.to_string(),
        token.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
        token.revoke_reason.clone().unwrap_or_default(),
    ]
}
