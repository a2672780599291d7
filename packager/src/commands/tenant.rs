//! `tenant`: homes with nothing in common, below the vendor's own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use attestation_service::{is_taken, master_keys};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use futures_util::future::join_all;
use serde::Serialize;
use url::{Host, Url};

use super::{init, table};
use crate::cli::{InitArgs, TenantCommand, TenantCreateArgs};
use crate::client::is_ready;
use crate::home::{VendorHome, cannot_open};
use crate::tenants::{self, DeletedTenant, Deletion, TenantName, is_being_deleted};

/// How long a service that runs may take to let go of a tenant that is deleted.
const LET_GO: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn run(vendor: &VendorHome, command: TenantCommand, console: &Console) -> Result<(), Failure> {
    match command {
        TenantCommand::Create(args) => create(vendor, *args, console).await,
        TenantCommand::List { deleted: false } => list(vendor, console).await,
        TenantCommand::List { deleted: true } => list_deleted(vendor, console),
        TenantCommand::Show { name } => show(vendor, &name, console).await,
        TenantCommand::Delete { name, yes: _, key_destroyed } => delete(vendor, &name, key_destroyed, console).await,
    }
}

#[derive(Serialize)]
struct Made {
    tenant: String,
    home: PathBuf,
    url: Url,
    #[serde(skip_serializing_if = "Option::is_none")]
    database_schema: Option<String>,
    signing_public_key: PathBuf,
    admin_token_file: PathBuf,
}

async fn create(vendor: &VendorHome, args: TenantCreateArgs, console: &Console) -> Result<(), Failure> {
    // Tenants are a vendor's.
    vendor.settings()?;
    let home = tenants::home_of(vendor, &args.name);
    if is_being_deleted(&home) {
        return Err(Failure::bad_input(format!("the tenant `{}` is being deleted", args.name))
            .hint(format!("end that first: `sealift tenant delete {} --yes`", args.name)));
    }
    if home.directory().exists() {
        return Err(Failure::bad_input(format!("the tenant `{}` exists already", args.name)));
    }
    let url = match &args.url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("https://{}.localhost:{}", args.name, args.listen.port()))
            .or_fail(ExitCode::Usage, || format!("`{}` makes no URL", args.name))?,
    };
    for url in [Some(&url), args.admin_url.as_ref()].into_iter().flatten() {
        refuse_taken_name(vendor, url)?;
    }
    if let Some(key) = &args.master_key
        && let Some(other) = tenants::master_key_holder(vendor, &args.name, key).await?
    {
        return Err(Failure::bad_input(format!("the master key `{key}` is that of {other}"))
            .hint("a tenant's master key is its own: deleting the tenant destroys it"));
    }
    let schema = match (&args.database, &args.schema) {
        (None, _) => None,
        (Some(_), Some(schema)) => Some(schema.clone()),
        (Some(_), None) => {
            let name = format!("tenant_{}", args.name.as_str().replace('-', "_"));
            Some(name.parse().or_fail(ExitCode::Usage, || format!("`{name}` is no schema"))?)
        }
    };
    let init = InitArgs {
        dir: None,
        listen: args.listen,
        url: Some(url.clone()),
        admin_url: args.admin_url,
        database: args.database,
        schema: schema.clone(),
        master_key: args.master_key,
        host_name: Vec::new(),
        own_names_only: true,
    };
    refuse_taken_schema(&home, &init).await?;
    init::create(home.directory(), &init).await?;
    let made = Made {
        tenant: args.name.to_string(),
        home: home.directory().to_owned(),
        url,
        database_schema: schema.map(|schema| schema.to_string()),
        signing_public_key: home.signing_public_key_path(),
        admin_token_file: home.admin_token_path(),
    };
    console.say(format!("made the tenant `{}`: `{}`", args.name, home.directory().display()));
    console.say("next: `sealift serve --tenants`, or `sealift --home` with this home for an instance of its own");
    console.result(&made, || home.directory().display().to_string());
    Ok(())
}

/// The host name is what tells tenants apart.
fn refuse_taken_name(vendor: &VendorHome, url: &Url) -> Result<(), Failure> {
    let Some(Host::Domain(name)) = url.host() else {
        return Err(Failure::usage(format!("`{url}` has no host name"))
            .hint("tenants on one listener are told apart by their host names, which an IP address is not"));
    };
    for other in tenants::all(vendor)? {
        let Ok(settings) = tenants::home_of(vendor, &other).settings() else { continue };
        let urls = [Some(settings.service.url), settings.service.admin_url];
        if urls.iter().flatten().any(|url| url.host_str() == Some(name)) {
            return Err(Failure::bad_input(format!("the host name `{name}` is that of the tenant `{other}`"))
                .hint("name another one by `--url`"));
        }
    }
    Ok(())
}

async fn refuse_taken_schema(home: &VendorHome, init: &InitArgs) -> Result<(), Failure> {
    let settings = init::settings_of(init)?;
    let taken = is_taken(&home.service(), &settings)
        .await
        .map_err(|error| cannot_open("cannot ask the database".to_owned(), &error))?;
    match (&settings.database_schema, taken) {
        (Some(schema), true) => {
            Err(Failure::bad_input(format!("there are tables in the schema `{schema}` of that database already"))
                .hint("name another one by `--schema`; each tenant has one of its own"))
        }
        _ => Ok(()),
    }
}

#[derive(Serialize)]
struct Row {
    tenant: String,
    url: String,
    home: PathBuf,
    database: String,
    state: &'static str,
}

async fn list(vendor: &VendorHome, console: &Console) -> Result<(), Failure> {
    vendor.settings()?;
    let rows = join_all(tenants::all(vendor)?.iter().map(|name| row(vendor, name))).await;
    let headings = ["TENANT", "STATE", "URL", "DATABASE"];
    console.result(&rows, || {
        let cells = |row: &Row| vec![row.tenant.clone(), row.state.to_owned(), row.url.clone(), row.database.clone()];
        table::render(&headings, rows.iter().map(cells).collect())
    });
    Ok(())
}

async fn row(vendor: &VendorHome, name: &TenantName) -> Row {
    let home = tenants::home_of(vendor, name);
    let settings = home.settings().ok().map(|settings| settings.service);
    let database = match &settings {
        None => String::new(),
        Some(settings) => match (&settings.database, &settings.database_schema) {
            (None, _) => "SQLite".to_owned(),
            (Some(_), Some(schema)) => format!("PostgreSQL, schema {schema}"),
            (Some(_), None) => "PostgreSQL".to_owned(),
        },
    };
    let state = match &settings {
        _ if is_being_deleted(&home) => "being deleted",
        None => "unusable",
        Some(_) if is_ready(&home).await => "served",
        Some(_) => "not served",
    };
    let url = settings.map(|settings| settings.url.to_string()).unwrap_or_default();
    Row { tenant: name.to_string(), url, home: home.directory().to_owned(), database, state }
}

fn list_deleted(vendor: &VendorHome, console: &Console) -> Result<(), Failure> {
    let deleted = tenants::deleted(vendor)?;
    let headings = ["TENANT", "DELETED AT", "MASTER KEYS"];
    console.result(&deleted, || table::render(&headings, deleted.iter().map(deleted_row).collect()));
    Ok(())
}

fn deleted_row(tenant: &DeletedTenant) -> Vec<String> {
    let keys = tenant.master_keys.iter().flatten().map(|key| key.name.clone()).collect::<Vec<_>>().join(", ");
    vec![tenant.tenant.clone(), tenant.deleted_at.map(|at| at.to_string()).unwrap_or_default(), keys]
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    master_keys: Vec<String>,
    log_key: String,
    signing_public_key: PathBuf,
    certificate_authority: PathBuf,
    admin_token_file: PathBuf,
}

async fn show(vendor: &VendorHome, name: &TenantName, console: &Console) -> Result<(), Failure> {
    let home = tenants::existing(vendor, name)?;
    let settings = home.settings()?.service;
    let keys = master_keys(&home.service(), &settings)
        .await
        .map_err(|error| cannot_open(format!("cannot ask the database of the tenant `{name}`"), &error))?;
    let log_key = home
        .service()
        .log_verifier_key()
        .or_fail(ExitCode::BadInput, || format!("the tenant `{name}` has no log key"))?
        .to_string();
    let shown = Shown {
        row: row(vendor, name).await,
        master_keys: keys.iter().map(ToString::to_string).collect(),
        log_key,
        signing_public_key: home.signing_public_key_path(),
        certificate_authority: home.service().ca_path(),
        admin_token_file: home.admin_token_path(),
    };
    console.result(&shown, || {
        let Row { tenant, url, home, database, state } = &shown.row;
        let (keys, home) = (shown.master_keys.join(", "), home.display());
        format!(
            "tenant: {tenant}\nstate: {state}\nurl: {url}\nhome: {home}\ndatabase: {database}\nmaster keys: {keys}\nlog key: {}",
            shown.log_key
        )
    });
    Ok(())
}

async fn delete(vendor: &VendorHome, name: &TenantName, key_destroyed: bool, console: &Console) -> Result<(), Failure> {
    let deletion = Deletion::begin(vendor, name)?;
    let erasure = if deletion.is_erased() { None } else { Some(take(&deletion, name).await?) };
    let deleted = deletion.complete(erasure, key_destroyed).await?;
    let keys = deleted.master_keys.iter().flatten();
    let by_file = keys.clone().any(|key| key.name.starts_with("file:"));
    if by_file {
        console.say("the master key's file was overwritten and removed; what a solid-state disk or a snapshot keeps of it, is theirs to erase");
    }
    console.say(format!("deleted the tenant `{name}`: nothing that was sealed for it opens again"));
    console.result(&deleted, || keys.map(|key| format!("{} is destroyed", key.name)).collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// Waits until nobody serves the tenant.
async fn take(deletion: &Deletion, name: &TenantName) -> Result<attestation_service::Erasure, Failure> {
    let until = Instant::now() + LET_GO;
    loop {
        if let Some(erasure) = deletion.take()?
            && !is_ready(deletion.home()).await
        {
            return Ok(erasure);
        }
        if Instant::now() >= until {
            return Err(Failure::unavailable(format!(
                "a service runs for the tenant `{name}`, and does not let it go"
            ))
            .hint("stop it, then repeat the command"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
