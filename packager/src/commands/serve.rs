//! `serve`: runs the attestation service until it is told to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attestation_service::{LogHeadError, Service, ServiceError, ServiceOptions, ServiceSettings, StoreError, serve};
use command_line::{Console, ExitCode, Failure, FailureContext as _, StopSignals};
use jiff::Timestamp;
use launch_evidence::simulated::SimulatedPlatform;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::ServeArgs;
use crate::home::{self, VendorHome, database};
use crate::relay::{self, Authority, Publish};
use crate::tenants::is_being_deleted;

pub(crate) async fn run(home: &VendorHome, args: ServeArgs, console: &Console) -> Result<(), Failure> {
    if args.tenants {
        return super::serve_tenants::run(home, args, console).await;
    }
    refuse_deleted(home)?;
    if args.relay.is_none() {
        relay::refuse_relay(home)?;
    }
    let mut settings = home.settings()?.service;
    if let Some(database) = database(args.database.as_deref())? {
        settings.database = Some(database);
    }
    let platforms = simulated_platforms(home, &args);
    let service = open(home, settings.clone(), &args, &platforms).await?;
    let files = home.service();
    let mut stop = StopSignals::listen()?;
    let mut authority = match &args.relay {
        None => None,
        Some(license) => tokio::select! {
            authority = become_relay(home, &service, license, args.child_license, console) => Some(authority?),
            () = stop.asked() => {
                console.say("stopping; an authority that was granted just now stays taken for this guest's next start");
                return Ok(());
            }
        },
    };
    let listen = args.listen.unwrap_or(settings.listen);
    let server = match serve(&files, Arc::clone(&service), listen).await {
        Ok(server) => server,
        Err(error) => {
            if let Some(authority) = &authority {
                authority.give_back(&service, console).await;
            }
            return Err(Failure::other(format!("cannot serve on {listen}")).caused_by(&error));
        }
    };
    warn_of_simulated(&args, console);
    console.say(format!("serving on https://{}, reached as {}", server.address(), settings.url));
    let ready = json!({"listening": server.address(), "url": settings.url, "simulated_platforms_allowed": args.allow_simulated});
    console.result(&ready, || format!("https://{}", server.address()));
    let lost = match &mut authority {
        None => {
            stop.asked().await;
            None
        }
        Some(authority) => tokio::select! {
            () = stop.asked() => None,
            lost = authority.keep(home, &service, console) => Some(lost),
        },
    };
    if let Some(lost) = lost {
        let failure = relay::give_up(home, &service, &lost, console).await;
        server.stop().await;
        return Err(failure);
    }
    console.say("stopping");
    // Nothing may begin by an authority that is given back: whoever got a seat after it was looked whether any is taken would
    // have one that is another relay's, too.
    if authority.is_some() {
        service.has_authority_until(Duration::ZERO);
    }
    server.stop().await;
    if let Some(authority) = &authority {
        authority.give_back(&service, console).await;
    }
    Ok(())
}

/// Gets what a relay serves by. One that is refused keeps nothing of what it had.
async fn become_relay(
    home: &VendorHome,
    service: &Service,
    license: &Path,
    publish: Option<Publish>,
    console: &Console,
) -> Result<Authority, Failure> {
    let license = relay::read_license(license)?;
    service.act_as_relay();
    relay::adopt(home, service, &license).await?;
    let obtained = Authority::obtain(home, service, license, publish, console).await;
    if let Err(failure) = &obtained
        && matches!(failure.code, ExitCode::Denied | ExitCode::VerificationFailed)
    {
        relay::give_up(home, service, failure, console).await;
    }
    obtained
}

/// Opens the home's service, as the arguments want it.
pub(super) async fn open(
    home: &VendorHome,
    mut settings: ServiceSettings,
    args: &ServeArgs,
    platforms: &[PathBuf],
) -> Result<Arc<Service>, Failure> {
    if args.offline {
        settings.evidence.endorsements.fetch = false;
    }
    let simulated_roots = simulated_roots(platforms)?;
    let clock = if args.relay.is_some() { relay::now } else { Timestamp::now };
    let options = ServiceOptions { settings, simulated_roots, clock };
    let service = Service::open(&home.service(), options).await.map_err(|error| cannot_open(home, &error))?;
    adopt_admin_token(home, &service).await?;
    Ok(Arc::new(service))
}

pub(super) fn warn_of_simulated(args: &ServeArgs, console: &Console) {
    if args.allow_simulated {
        console.say(
            "WARNING: evidence of SIMULATED platforms is accepted. It protects nothing; never serve customers so.",
        );
    }
}

/// A tenant whose keys are being destroyed is served by nobody.
fn refuse_deleted(home: &VendorHome) -> Result<(), Failure> {
    if is_being_deleted(home) {
        return Err(Failure::bad_input(format!("the tenant of `{}` is being deleted", home.directory().display())));
    }
    Ok(())
}

fn cannot_open(home: &VendorHome, error: &ServiceError) -> Failure {
    let message = format!("cannot open the service's files in `{}`", home.directory().display());
    match error {
        ServiceError::Store(error @ StoreError::Database(_)) => return home::cannot_open(message, error),
        ServiceError::Custody(error) => return home::custody_failure(message, error),
        _ => {}
    }
    let failure = Failure::other(message);
    let hint = match error {
        ServiceError::LogHead(LogHeadError::Shrunk { .. } | LogHeadError::Forked { .. }) => {
            "put the newest database back (`sealift restore`); customers hold receipts of what this one lacks"
        }
        ServiceError::Store(StoreError::InUse) => "stop the other one; several services need PostgreSQL (`--database`)",
        _ => return failure.caused_by(error),
    };
    failure.caused_by(error).hint(hint)
}

/// A database that knows of no token yet learns of the home's own: it was made apart from the home.
async fn adopt_admin_token(home: &VendorHome, service: &Service) -> Result<(), Failure> {
    let path = home.admin_token_path();
    let Ok(token) = std::fs::read_to_string(&path).map(Zeroizing::new) else { return Ok(()) };
    service
        .store()
        .adopt_api_token("first-admin", token.trim_end(), Timestamp::now())
        .await
        .or_fail(ExitCode::Other, || format!("cannot keep the admin token `{}`", path.display()))
}

/// The simulated platforms that are accepted.
pub(super) fn simulated_platforms(home: &VendorHome, args: &ServeArgs) -> Vec<PathBuf> {
    match args.simulated_platform.as_slice() {
        _ if !args.allow_simulated => Vec::new(),
        [] => vec![home.service().simulated_platform_path()],
        named => named.to_vec(),
    }
}

fn simulated_roots(directories: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    directories
        .iter()
        .map(|directory| {
            SimulatedPlatform::open(directory)
                .map(|platform| platform.ark_der().to_vec())
                .or_fail(ExitCode::BadInput, || format!("cannot open the simulated platform `{}`", directory.display()))
                .map_err(|failure| failure.hint("make one with `sealift simulate platform`"))
        })
        .collect()
}
