//! `serve --tenants`: all tenants of a home on one listener, until it is told to stop. Each is opened by itself, so that one
//! that cannot be does not keep the others; those that are made or deleted meanwhile are taken up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation_service::{Service, ServiceSettings, TenantServer};
use command_line::{Console, ExitCode, Failure, FailureContext as _, StopSignals};
use serde::Serialize;
use tokio::task::JoinSet;

use super::serve;
use crate::cli::ServeArgs;
use crate::home::VendorHome;
use crate::relay;
use crate::tenants::{self, TenantName, is_being_deleted};

/// Where tenants listen that were made without `--listen`.
const LISTEN: &str = "127.0.0.1:8444";
/// How often it is looked which tenants there are.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// When one that could not be opened is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// How long those that open slowly are waited for before the others are announced.
const WAIT_FOR_ALL: Duration = Duration::from_secs(10);

/// A tenant as it is announced at the start.
#[derive(Serialize)]
struct Announced {
    tenant: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

type Opened = (TenantName, Result<(Arc<Service>, ServiceSettings), Failure>);

/// The tenants as this process has them.
struct Fleet<'a> {
    vendor: &'a VendorHome,
    args: Arc<ServeArgs>,
    console: &'a Console,
    server: TenantServer,
    served: BTreeMap<TenantName, Arc<Service>>,
    failed: BTreeMap<TenantName, (Instant, String)>,
    opening: JoinSet<Opened>,
    being_opened: BTreeSet<TenantName>,
}

pub(crate) async fn run(vendor: &VendorHome, args: ServeArgs, console: &Console) -> Result<(), Failure> {
    vendor.settings()?;
    let listen = match args.listen {
        Some(listen) => listen,
        None => common_listen(vendor)?,
    };
    let mut stop = StopSignals::listen()?;
    let server = TenantServer::start(listen).await.or_fail(ExitCode::Other, || format!("cannot serve on {listen}"))?;
    serve::warn_of_simulated(&args, console);
    let mut fleet = Fleet {
        vendor,
        args: Arc::new(args),
        console,
        server,
        served: BTreeMap::new(),
        failed: BTreeMap::new(),
        opening: JoinSet::new(),
        being_opened: BTreeSet::new(),
    };
    fleet.look().await;
    let until = tokio::time::Instant::now() + WAIT_FOR_ALL;
    while let Ok(Some(Ok(opened))) = tokio::time::timeout_at(until, fleet.opening.join_next()).await {
        fleet.take_up(opened);
    }
    fleet.announce();
    loop {
        tokio::select! {
            () = stop.asked() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(Ok(opened)) = fleet.opening.join_next() => fleet.take_up(opened),
        }
        fleet.look().await;
    }
    console.say("stopping");
    fleet.server.stop().await;
    Ok(())
}

/// Where all tenants say that they listen.
fn common_listen(vendor: &VendorHome) -> Result<SocketAddr, Failure> {
    let mut wanted = BTreeSet::new();
    for name in tenants::all(vendor)? {
        // One whose settings cannot be read is said later.
        if let Ok(settings) = tenants::home_of(vendor, &name).settings() {
            wanted.insert(settings.service.listen);
        }
    }
    let mut wanted = wanted.into_iter();
    match (wanted.next(), wanted.next()) {
        (None, _) => LISTEN.parse().or_fail(ExitCode::Other, || format!("`{LISTEN}` is no address")),
        (Some(listen), None) => Ok(listen),
        (Some(one), Some(other)) => {
            Err(Failure::usage(format!("the tenants listen at different addresses: {one} and {other}"))
                .hint("name the one that all are served at by `--listen`"))
        }
    }
}

impl Fleet<'_> {
    /// Opens tenants that are new, or that are to be tried again, and lets those go that are being deleted.
    async fn look(&mut self) {
        let names = match tenants::all(self.vendor) {
            Ok(names) => names,
            // Those that are served go on; it is looked again soon.
            Err(failure) => {
                return tracing::warn!(why = failure.message, causes = ?failure.causes, "cannot look for tenants");
            }
        };
        let there: BTreeSet<TenantName> = names
            .into_iter()
            .filter(|name| {
                let home = tenants::home_of(self.vendor, name);
                home.settings_path().exists() && !is_being_deleted(&home)
            })
            .collect();
        let gone: Vec<_> = self.served.keys().filter(|name| !there.contains(*name)).cloned().collect();
        for name in gone {
            if let Some(service) = self.served.remove(&name) {
                self.server.remove(&service).await;
                self.console.say(format!("the tenant `{name}` is no longer served"));
            }
        }
        self.failed.retain(|name, (since, _)| there.contains(name) && since.elapsed() < TRY_AGAIN);
        for name in there {
            if !self.served.contains_key(&name)
                && !self.failed.contains_key(&name)
                && self.being_opened.insert(name.clone())
            {
                let (vendor, args) = (self.vendor.clone(), Arc::clone(&self.args));
                self.opening.spawn(async move {
                    let tenant = name.clone();
                    // One that brings its task down does not bring the others down.
                    let opened = tokio::spawn(async move { open(&vendor, &tenant, &args).await }).await;
                    let failed = |error| Err(Failure::other("it could not be opened").caused_by(&error));
                    (name, opened.unwrap_or_else(failed))
                });
            }
        }
    }

    /// Serves a tenant that was opened, or says why not.
    fn take_up(&mut self, (name, opened): Opened) {
        self.being_opened.remove(&name);
        let home = tenants::home_of(self.vendor, &name);
        let added = opened.and_then(|(service, settings)| {
            let urls: Vec<_> = [Some(&settings.url), settings.admin_url.as_ref()].into_iter().flatten().collect();
            self.server
                .add(&home.service(), Arc::clone(&service), &urls)
                .or_fail(ExitCode::BadInput, || "it cannot be served".to_owned())?;
            Ok((service, settings.url))
        });
        match added {
            Ok((service, url)) => {
                self.console.say(format!("serving the tenant `{name}`, reached as {url}"));
                self.served.insert(name, service);
            }
            Err(failure) => {
                let why = [vec![failure.message], failure.causes].concat().join(": ");
                self.console.say(format!("the tenant `{name}` is not served: {why}"));
                self.failed.insert(name, (Instant::now(), why));
            }
        }
    }

    fn announce(&self) {
        let served = self.served.keys().map(|name| Announced { tenant: name.to_string(), state: "served", why: None });
        let failed = self.failed.iter().map(|(name, (_, why))| Announced {
            tenant: name.to_string(),
            state: "not served",
            why: Some(why.clone()),
        });
        let opening = self.being_opened.iter().map(|name| Announced {
            tenant: name.to_string(),
            state: "being opened",
            why: None,
        });
        let address = self.server.address();
        let document = serde_json::json!({
            "listening": address,
            "tenants": served.chain(failed).chain(opening).collect::<Vec<_>>(),
            "simulated_platforms_allowed": self.args.allow_simulated,
        });
        self.console.result(&document, || format!("https://{address}"));
    }
}

async fn open(
    vendor: &VendorHome,
    name: &TenantName,
    args: &ServeArgs,
) -> Result<(Arc<Service>, ServiceSettings), Failure> {
    let home = tenants::home_of(vendor, name);
    relay::refuse_relay(&home)?;
    let settings = home.settings()?.service;
    let service = serve::open(&home, settings.clone(), args, &platforms(vendor, &home, args)).await?;
    Ok((service, settings))
}

/// The simulated platforms that a tenant accepts: those that are named, its own, or the vendor's.
fn platforms(vendor: &VendorHome, home: &VendorHome, args: &ServeArgs) -> Vec<PathBuf> {
    let own = serve::simulated_platforms(home, args);
    if own.iter().all(|directory| directory.exists()) { own } else { serve::simulated_platforms(vendor, args) }
}
