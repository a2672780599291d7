//! `platform`: platforms that get nothing, by product, chip or firmware level.

use attestation_service::api::{LeaseStatus, NewPlatformDenial, PlatformAllowance, PlatformDenial, PlatformDenied};
use command_line::{Console, Failure};

use super::table;
use crate::cli::PlatformCommand;
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: &VendorHome, command: PlatformCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        PlatformCommand::Deny { rule, reason, dry_run } => {
            let new = NewPlatformDenial { rule, reason, dry_run };
            let denied: PlatformDenied = client.post("/platforms/deny", &new).await?;
            console.result(&denied, || show(&denied));
        }
        PlatformCommand::Allow { rule, reason } => {
            let lifted: PlatformDenial = client.post("/platforms/allow", &PlatformAllowance { rule, reason }).await?;
            console.result(&lifted, || format!("lifted the denial of {}: {}", lifted.rule, lifted.reason));
        }
        PlatformCommand::List => {
            let denials: Vec<PlatformDenial> = client.get("/platforms").await?;
            let row = |denial: &PlatformDenial| {
                vec![denial.rule.to_string(), denial.denied_at.to_string(), denial.reason.clone()]
            };
            console
                .result(&denials, || table::render(&["DENIED", "SINCE", "REASON"], denials.iter().map(row).collect()));
        }
    }
    Ok(())
}

fn show(denied: &PlatformDenied) -> String {
    let PlatformDenied { rule, dry_run, leases } = denied;
    let (what, end) = if *dry_run { ("a denial of", "would end") } else { ("denied", "end") };
    let what = format!("{what} {rule}; live leases that {end} at their next renewal: {}", leases.len());
    if leases.is_empty() {
        return what;
    }
    let headings = ["LEASE", "LICENSE", "PRODUCT", "PLATFORM", "CHIP", "EXPIRES"];
    format!("{what}\n\n{}", table::render(&headings, leases.iter().map(row).collect()))
}

fn row(lease: &LeaseStatus) -> Vec<String> {
    let levels = lease.platform.as_ref().and_then(|platform| platform.reported_tcb.as_ref());
    let levels = levels.into_iter().flatten().map(|(component, level)| format!("{component} {level}"));
    let product = lease.platform.as_ref().map_or_else(|| "unknown".to_owned(), |platform| platform.product.to_string());
    vec![
        lease.id.clone(),
        lease.license.clone(),
        lease.product.to_string(),
        std::iter::once(product).chain(levels).collect::<Vec<_>>().join("\n"),
        lease.chip_id.clone(),
        lease.expires_at.to_string(),
    ]
}
