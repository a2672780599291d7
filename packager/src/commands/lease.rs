//! `lease`: what runs now.

use std::path::Path;

use attestation_service::api::LeaseStatus;
use carried_file::{CarriedOutput, Content};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use release_protocol::{RENEWAL_FILE_MAX, RenewalAnswer, RenewalRequest};
use serde_json::json;

use super::table;
use crate::cli::LeaseCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: &VendorHome, command: LeaseCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        LeaseCommand::List { limit, all } => {
            let wanted = if all { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
            let (leases, are_all) = newest(&client, wanted).await?;
            if !are_all {
                console.say(format!("there are more leases than these {wanted}: `--all` lists them"));
            }
            console.result(&leases, || {
                table::render(
                    &["LEASE", "LICENSE", "PRODUCT", "STATE", "PLATFORM", "EXPIRES", "OFFLINE UNTIL", "REVOCABLE"],
                    leases.iter().map(row).collect(),
                )
            });
        }
        LeaseCommand::End { id } => {
            client.submit(&format!("/leases/{id}/end"), &json!({})).await?;
            console.result(&json!({"ended": id}), || format!("ended {id}"));
        }
        LeaseCommand::Renew { request, answer } => renew(&client, &request, &answer, console).await?,
    }
    Ok(())
}

/// Has a request that was carried here judged, and writes the answer.
async fn renew(client: &AdminClient, request: &Path, output: &CarriedOutput, console: &Console) -> Result<(), Failure> {
    // The answer is given once: what can fail of writing it fails before.
    let output = output.prepare()?;
    let text = carried_file::read(request, Content::RenewalRequest, RENEWAL_FILE_MAX, console)?;
    let request: RenewalRequest = serde_json::from_slice(&text)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no request for a renewal", request.display()))
        .map_err(|failure| failure.hint("the guest makes one by `sealift-shim renewal request`"))?;
    let answer: RenewalAnswer = client.post("/leases/renew", &request).await?;
    let json = serde_json::to_vec(&answer).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    let ready = output.render(Content::RenewalAnswer, &json)?;
    ready.write(0o644)?;
    let entry = answer.receipt.index.get().saturating_add(1);
    let document = json!({"file": ready.file(), "codes": ready.codes(), "entry": entry, "bytes": json.len()});
    console.result(&document, || format!("renewed: {} for the guest, audit entry {entry}", ready.places()));
    Ok(())
}

/// How many leases are asked for at a time.
const PAGE: usize = 1000;

/// The newest leases, and whether these are all that there are.
async fn newest(client: &AdminClient, wanted: usize) -> Result<(Vec<LeaseStatus>, bool), Failure> {
    let mut leases: Vec<LeaseStatus> = Vec::new();
    loop {
        // One more than is wanted shows whether there are more.
        let left = wanted.saturating_sub(leases.len());
        let limit = left.saturating_add(1).min(PAGE);
        let after = leases.last().map(|last| format!("&after={}", last.id)).unwrap_or_default();
        let page: Vec<LeaseStatus> = client.get(&format!("/leases?limit={limit}{after}")).await?;
        let is_last = page.len() < limit;
        leases.extend(page);
        if leases.len() > wanted {
            leases.truncate(wanted);
            return Ok((leases, false));
        }
        if is_last {
            return Ok((leases, true));
        }
    }
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
        lease.offline_until.map_or_else(|| "-".to_owned(), |until| until.to_string()),
        if lease.revocable { "yes" } else { "not while running" }.to_owned(),
    ]
}
