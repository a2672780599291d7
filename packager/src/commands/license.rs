//! `license`: who may run what.

use attestation_service::api::{IssuedLicense, LicenseStatus, NewLicense, Revocation, Revoked};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;

use super::table;
use crate::cli::{LicenseCommand, LicenseIssueArgs};
use crate::client::AdminClient;
use crate::home::{VendorHome, write_new};

pub(crate) async fn run(home: &VendorHome, command: LicenseCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        LicenseCommand::Issue(args) => issue(&client, args, console).await,
        LicenseCommand::List => {
            let licenses: Vec<LicenseStatus> = client.get("/licenses").await?;
            console.result(&licenses, || {
                table::render(
                    &["LICENSE", "CUSTOMER", "PRODUCTS", "STATE", "SEATS", "UNTIL"],
                    licenses.iter().map(row).collect(),
                )
            });
            Ok(())
        }
        LicenseCommand::Show { id } => {
            let license: LicenseStatus = client.get(&format!("/licenses/{id}")).await?;
            console.result(&license, || show(&license));
            Ok(())
        }
        LicenseCommand::Revoke { id, reason } => {
            let revoked: Revoked = client.post(&format!("/licenses/{id}/revoke"), &Revocation { reason }).await?;
            console.result(&revoked, || match revoked.stopped_by {
                Some(by) => format!("revoked {id}: {} running, stopped by {by} at the latest", revoked.running),
                None => format!("revoked {id}: nothing is running under it"),
            });
            Ok(())
        }
    }
}

async fn issue(client: &AdminClient, args: LicenseIssueArgs, console: &Console) -> Result<(), Failure> {
    if let Some(file) = args.file.as_ref().filter(|file| file.exists()) {
        return Err(Failure::bad_input(format!("`{}` exists already", file.display()))
            .hint("name another file; a licence is not overwritten"));
    }
    let from = args.from.unwrap_or_else(Timestamp::now);
    let new = NewLicense {
        products: args.product,
        customer: args.customer,
        seats: args.seats,
        valid_from: args.from,
        valid_until: until(&args.until, from)?,
        lease_seconds: args.lease.as_secs(),
        grace_seconds: args.grace.as_secs(),
        platforms: args.platform,
        features: args.feature.into_iter().collect(),
    };
    let issued: IssuedLicense = client.post("/licenses", &new).await?;
    console.say(format!("issued {} to {}", issued.id, new.customer));
    match &args.file {
        None => console.result(&issued, || issued.token.clone()),
        Some(file) => {
            write_new(file, issued.token.as_bytes(), 0o600)?;
            let document = serde_json::json!({"id": issued.id, "file": file});
            console.result(&document, || issued.id.clone());
        }
    }
    Ok(())
}

fn until(text: &str, from: Timestamp) -> Result<Timestamp, Failure> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let failed = || format!("`{text}` is neither a time (RFC 3339) nor a duration (`90d`)");
    let duration = humantime::parse_duration(text).or_fail(ExitCode::Usage, failed)?;
    from.checked_add(duration).or_fail(ExitCode::Usage, failed)
}

fn row(license: &LicenseStatus) -> Vec<String> {
    vec![
        license.id.clone(),
        license.customer.clone(),
        products(license),
        license.state.clone(),
        format!("{}/{}", license.seats_in_use, license.seats),
        license.valid_until.to_string(),
    ]
}

fn products(license: &LicenseStatus) -> String {
    license.products.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn show(license: &LicenseStatus) -> String {
    let mut lines = vec![
        format!("license   {}", license.id),
        format!("customer  {}", license.customer),
        format!("products  {}", products(license)),
        format!("state     {}", license.state),
        format!("seats     {} of {} in use", license.seats_in_use, license.seats),
        format!("valid     {} to {}", license.valid_from, license.valid_until),
        format!("lease     {} s, grace {} s", license.lease_seconds, license.grace_seconds),
    ];
    if let Some(reason) = &license.reason {
        lines.push(format!("reason    {reason}"));
    }
    lines.join("\n")
}
