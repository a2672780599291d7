//! `lease`: what runs now.

use attestation_service::api::LeaseStatus;
use command_line::{Console, Failure};
use serde_json::json;

use super::table;
use crate::cli::LeaseCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: &VendorHome, command: LeaseCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        LeaseCommand::List => {
            let leases: Vec<LeaseStatus> = client.get("/leases").await?;
            console.result(&leases, || {
                table::render(
                    &["LEASE", "LICENSE", "PRODUCT", "STATE", "PLATFORM", "EXPIRES", "REVOCABLE"],
                    leases.iter().map(row).collect(),
                )
            });
        }
        LeaseCommand::End { id } => {
            client.submit(&format!("/leases/{id}/end"), &json!({})).await?;
            console.result(&json!({"ended": id}), || format!("ended {id}"));
        }
    }
    Ok(())
}

fn row(lease: &LeaseStatus) -> Vec<String> {
    let platform = if lease.simulated { "SIMULATED" } else { "hardware" };
    vec![
        lease.id.clone(),
        lease.license.clone(),
        lease.product.to_string(),
        lease.state.clone(),
        platform.to_owned(),
        lease.expires_at.to_string(),
        if lease.revocable { "yes" } else { "not while running" }.to_owned(),
    ]
}
