//! `key`: image keys by name, and the master key that they are sealed under.

use std::time::Duration;

use attestation_service::api::{CustodyStatus, ImageKey, MasterKeyChange, MasterKeyStatus};
use command_line::{Console, Failure};

use super::table;
use crate::cli::KeyCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;

/// How often the service is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(home: &VendorHome, command: KeyCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        KeyCommand::List { product } => {
            let keys: Vec<ImageKey> = client.get(&format!("/products/{product}/keys")).await?;
            let headings = ["KEY", "IMAGE", "MANIFESTS", "SINCE", "MASTER KEY"];
            console.result(&keys, || table::render(&headings, keys.iter().map(key_row).collect()));
        }
        KeyCommand::Status => show(&client.get("/custody").await?, console),
        KeyCommand::Rotate { to, wait } => {
            let mut status: CustodyStatus = client.post("/custody/rotate", &MasterKeyChange { to }).await?;
            while wait && status.rotation.is_some() {
                tokio::time::sleep(ASK_EVERY).await;
                status = client.get("/custody").await?;
            }
            show(&status, console);
        }
    }
    Ok(())
}

fn show(status: &CustodyStatus, console: &Console) {
    let headings = ["MASTER KEY", "STATE", "SEALED", "SINCE"];
    console.result(status, || {
        let rows = status.master_keys.iter().enumerate().map(|(place, key)| row(place, key)).collect();
        table::render(&headings, rows)
    });
    if let Some(rotation) = &status.rotation {
        let of = rotation.done + rotation.left;
        console.say(format!("{} of {of} are under the new master key, since {}", rotation.done, rotation.started_at));
        match &rotation.trouble {
            Some(trouble) => console.say(format!("it does not go on now: {trouble}")),
            None => console.say("keep the former master key until `sealift key status` says that it is retired"),
        }
        return;
    }
    for key in status.master_keys.iter().filter(|key| key.retired_at.is_some()) {
        let place = key.set_aside.as_deref().map(|file| format!(" (`{file}`)")).unwrap_or_default();
        // A Transit key that was sealed by anew is the same one.
        if status.master_keys.first().is_some_and(|newest| newest.name != key.name) {
            console.say(format!(
                "nothing is under `{}`{place} any more: destroy it once no copy of the database from before is to be restored",
                key.name
            ));
        }
    }
}

fn row(place: usize, key: &MasterKeyStatus) -> Vec<String> {
    let (state, since) = match (place, key.retired_at) {
        (0, _) => ("in use", key.added_at),
        (_, None) => ("being replaced", key.added_at),
        (_, Some(at)) => ("retired", at),
    };
    vec![key.name.clone(), state.to_owned(), key.sealed.to_string(), since.to_string()]
}

fn key_row(key: &ImageKey) -> Vec<String> {
    let manifests = match key.manifests.len() {
        0 => "pending".to_owned(),
        count => count.to_string(),
    };
    vec![key.id.clone(), key.image.clone(), manifests, key.created_at.to_string(), key.master_key.clone()]
}
