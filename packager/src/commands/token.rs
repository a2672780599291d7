//! `token`: who may ask the service for what.

use attestation_service::api::{CreatedToken, NewToken, TokenRevocation, TokenStatus};
use command_line::{Console, Failure};
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
            // Before there is a token that nobody would see.
            if let Some(file) = file.as_ref().filter(|file| file.exists()) {
                return Err(Failure::bad_input(format!("`{}` exists already", file.display())));
            }
            let expires_at = expires.map(|text| super::license::until(&text, Timestamp::now())).transpose()?;
            let created: CreatedToken = client.post("/tokens", &NewToken { name, role, expires_at }).await?;
            match file {
                None => console.result(&created, || created.token.to_string()),
                Some(file) => {
                    write_new(&file, created.token.as_bytes(), 0o600)?;
                    let CreatedToken { name, role, expires_at, .. } = created;
                    let made = json!({"name": name, "role": role, "expires_at": expires_at, "file": file});
                    console.result(&made, || file.display().to_string());
                }
            }
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
