//! `license`: who may run what.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use attestation_service::api::{
    End, IssuedLicense, LicenseStatus, NewLicense, Reason, Renewal, Revocation, Revoked, Transfer,
};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use serde_json::json;

use super::table;
use crate::cli::{LicenseChangeArgs, LicenseCommand, LicenseIssueArgs, LicenseRevokeArgs, LicenseTransferArgs};
use crate::client::AdminClient;
use crate::home::{VendorHome, write_new};

pub(crate) async fn run(home: &VendorHome, command: LicenseCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        LicenseCommand::Issue(args) => match args.batch.clone() {
            Some(file) => issue_batch(&client, &file, console).await,
            None => issue(&client, *args, console).await,
        },
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
        LicenseCommand::Renew { change, until: end, seats } => {
            let valid_until = end.map(|text| end_of(&text, Timestamp::now())).transpose()?;
            let renewal = Renewal { valid_until, seats, reason: change.reason };
            let _: IssuedLicense = client.post(&format!("/licenses/{}/renew", change.id), &renewal).await?;
            let license: LicenseStatus = client.get(&format!("/licenses/{}", change.id)).await?;
            console.result(&license, || show(&license));
            Ok(())
        }
        LicenseCommand::Suspend(change) => turn(&client, change, "suspend", console).await,
        LicenseCommand::Resume(change) => turn(&client, change, "resume", console).await,
        LicenseCommand::Transfer(args) => transfer(&client, args, console).await,
        LicenseCommand::Revoke(args) => revoke(&client, args, console).await,
    }
}

async fn turn(client: &AdminClient, change: LicenseChangeArgs, verb: &str, console: &Console) -> Result<(), Failure> {
    let path = format!("/licenses/{}/{verb}", change.id);
    let license: LicenseStatus = client.post(&path, &Reason { reason: change.reason }).await?;
    console.result(&license, || format!("{}: {}", license.id, license.state));
    Ok(())
}

async fn transfer(client: &AdminClient, args: LicenseTransferArgs, console: &Console) -> Result<(), Failure> {
    refuse_existing(args.file.as_deref())?;
    let bound = !args.platform.is_empty() || args.any_platform;
    let transfer =
        Transfer { customer: args.customer, platforms: bound.then_some(args.platform), reason: args.change.reason };
    let issued: IssuedLicense = client.post(&format!("/licenses/{}/transfer", args.change.id), &transfer).await?;
    hand_out(&issued, args.file.as_deref(), console)
}

async fn revoke(client: &AdminClient, args: LicenseRevokeArgs, console: &Console) -> Result<(), Failure> {
    let id = args.change.id;
    let revocation = Revocation { reason: args.change.reason, drain_seconds: args.drain.map(|drain| drain.as_secs()) };
    let revoked: Revoked = client.post(&format!("/licenses/{id}/revoke"), &revocation).await?;
    let told = || revocation_told(&id, &revoked);
    if !args.wait || revoked.running == 0 {
        console.result(&revoked, told);
        return Ok(());
    }
    console.say(told());
    let mut running = revoked.running;
    while running > 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
        let now: LicenseStatus = client.get(&format!("/licenses/{id}")).await?;
        if now.seats_in_use != running {
            running = now.seats_in_use;
            console.say(format!("{running} running"));
        }
    }
    console.result(&json!({"id": id, "running": 0}), || format!("nothing runs under {id} any more"));
    Ok(())
}

fn revocation_told(id: &str, revoked: &Revoked) -> String {
    let Some(by) = revoked.stopped_by else { return format!("revoked {id}: nothing is running under it") };
    let offline = match revoked.offline {
        0 => String::new(),
        some => format!(
            " ({some} of them keep their keys sealed: without the service they go on, and start again, until their allowance ends)"
        ),
    };
    let told = format!("revoked {id}: {} running, stopped by {by} at the latest{offline}", revoked.running);
    match revoked.not_revocable {
        0 => told,
        some => format!("{told}, but for {some} that nothing stops: they get no key any more and run until they end"),
    }
}

/// How often `--wait` looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

fn refuse_existing(file: Option<&Path>) -> Result<(), Failure> {
    match file.filter(|file| file.exists()) {
        None => Ok(()),
        Some(file) => Err(Failure::bad_input(format!("`{}` exists already", file.display()))
            .hint("name another file; a licence is not overwritten")),
    }
}

/// Writes a licence to its file, or to stdout.
fn hand_out(issued: &IssuedLicense, file: Option<&Path>, console: &Console) -> Result<(), Failure> {
    match file {
        None => console.result(issued, || issued.token.clone()),
        Some(file) => {
            write_new(file, issued.token.as_bytes(), 0o600)?;
            console.result(&json!({"id": issued.id, "file": file}), || issued.id.clone());
        }
    }
    Ok(())
}

async fn issue(client: &AdminClient, args: LicenseIssueArgs, console: &Console) -> Result<(), Failure> {
    refuse_existing(args.file.as_deref())?;
    let from = args.from.unwrap_or_else(Timestamp::now);
    let grace = match args.max_offline {
        None => args.grace,
        Some(most) => most.checked_sub(args.lease).ok_or_else(|| {
            Failure::usage("a lease outlives `--max-offline`: who holds it needs no service until it ends")
                .hint("give a shorter `--lease`, or more time to `--max-offline`")
        })?,
    };
    let new = NewLicense {
        products: args.product,
        customer: args.customer.unwrap_or_default(),
        seats: args.seats,
        valid_from: args.from,
        valid_until: end_of(&args.until, from)?,
        lease_seconds: args.lease.as_secs(),
        grace_seconds: grace.as_secs(),
        offline_seconds: args.offline.map(|offline| offline.as_secs()),
        platforms: args.platform,
        features: args.feature.into_iter().collect(),
        relay: args.relay,
    };
    let issued: IssuedLicense = client.post("/licenses", &new).await?;
    console.say(format!("issued {} to {}", issued.id, new.customer));
    hand_out(&issued, args.file.as_deref(), console)
}

async fn issue_batch(client: &AdminClient, file: &Path, console: &Console) -> Result<(), Failure> {
    let cannot = || format!("cannot read the licences in `{}`", file.display());
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).or_fail(ExitCode::BadInput, cannot)?;
    } else {
        text = std::fs::read_to_string(file).or_fail(ExitCode::BadInput, cannot)?;
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .or_fail(ExitCode::BadInput, || format!("line {} of `{}` is no licence", number + 1, file.display()))
    };
    let new: Vec<NewLicense> = lines.map(parse).collect::<Result<_, _>>()?;
    let issued: Vec<IssuedLicense> = client.post("/licenses/batch", &new).await?;
    console.say(format!("issued {} licences", issued.len()));
    let document = |(new, issued): (&NewLicense, &IssuedLicense)| json!({"id": issued.id, "customer": new.customer, "token": issued.token});
    let documents: Vec<serde_json::Value> = new.iter().zip(&issued).map(document).collect();
    console.result(&documents, || documents.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// `+8h` is for the service to count from its own now, `90d` counts from where the licence begins.
fn end_of(text: &str, from: Timestamp) -> Result<End, Failure> {
    if text.starts_with('+') {
        return text.parse().or_fail(ExitCode::Usage, || "when the licence ends cannot be read".to_owned());
    }
    until(text, from).map(End::At)
}

pub(super) fn until(text: &str, from: Timestamp) -> Result<Timestamp, Failure> {
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
        format!(
            "lease     {} s, grace {} s: {} s at most without the service",
            license.lease_seconds,
            license.grace_seconds,
            license.lease_seconds.saturating_add(license.grace_seconds)
        ),
    ];
    if license.relay {
        lines.push("relay     starts no workload; one relay hands its seats on".to_owned());
    }
    if let Some(offline) = license.offline_seconds {
        lines.push(format!(
            "offline   {offline} s: guests that keep their keys sealed start and run without the service"
        ));
    }
    if !license.platforms.is_empty() {
        lines.push(format!("chips     {}", license.platforms.join(", ")));
    }
    if let Some(until) = &license.drain_until {
        lines.push(format!("drains    until {until}"));
    }
    if let Some(reason) = &license.reason {
        lines.push(format!("reason    {reason}"));
    }
    lines.join("\n")
}
