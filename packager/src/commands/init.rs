//! `init`: makes a vendor home. Everything is made in a staging directory beside it and moved in place at the end.

use std::path::{Path, PathBuf};

use attestation_service::{Home, ServiceSettings, Store, try_master_key};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use jose::signing::SigningKey;
use serde::Serialize;
use url::Url;

use crate::cli::InitArgs;
use crate::home::{Settings, VendorHome, cannot_open, custody_failure, database, write_new};

#[derive(Serialize)]
struct Made {
    home: PathBuf,
    url: Url,
    signing_public_key: PathBuf,
    admin_token_file: PathBuf,
}

pub(crate) async fn run(home: &VendorHome, args: InitArgs, console: &Console) -> Result<(), Failure> {
    let target = args.dir.clone().unwrap_or_else(|| home.directory().to_owned());
    create(&target, &args).await?;
    let made = VendorHome::at(Some(target.clone()));
    let result = Made {
        home: target.clone(),
        url: made.settings()?.service.url,
        signing_public_key: made.signing_public_key_path(),
        admin_token_file: made.admin_token_path(),
    };
    console.say(format!("made the vendor home `{}`", target.display()));
    console.say("next: `sealift serve`, then `sealift product create NAME`");
    console.result(&result, || target.display().to_string());
    Ok(())
}

/// Makes the home at `target`.
pub(crate) async fn create(target: &Path, args: &InitArgs) -> Result<(), Failure> {
    let is_taken = match std::fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => target.exists(),
    };
    if is_taken {
        return Err(Failure::bad_input(format!("`{}` exists and is not empty", target.display()))
            .hint("name another place, or remove it if you are sure: its keys open every image packed with it"));
    }
    let settings = settings_of(args)?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot make `{}`", target.display());
    std::fs::create_dir_all(parent).or_fail(ExitCode::BadInput, failed)?;
    // Dropped on any failure, and all that is in it with it.
    let staging =
        tempfile::Builder::new().prefix(".sealift-init-").tempdir_in(parent).or_fail(ExitCode::BadInput, failed)?;
    fill(&VendorHome::at(Some(staging.path().to_owned())), args, settings).await?;
    if target.exists() {
        std::fs::remove_dir(target).or_fail(ExitCode::BadInput, failed)?;
    }
    std::fs::rename(staging.path(), target).or_fail(ExitCode::BadInput, failed)
}

/// What the arguments say of the service.
pub(crate) fn settings_of(args: &InitArgs) -> Result<ServiceSettings, Failure> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("https://{}", args.listen))
            .or_fail(ExitCode::Usage, || format!("`{}` makes no URL", args.listen))?,
    };
    if let Some(url) = [Some(&url), args.admin_url.as_ref()].into_iter().flatten().find(|url| url.scheme() != "https") {
        return Err(Failure::usage(format!("the service's URL `{url}` is not https")));
    }
    Ok(ServiceSettings {
        admin_url: args.admin_url.clone(),
        database: database(args.database.as_deref())?,
        database_schema: args.schema.clone(),
        master_key: args.master_key.clone(),
        ..ServiceSettings::new(args.listen, url)
    })
}

async fn fill(staging: &VendorHome, args: &InitArgs, settings: ServiceSettings) -> Result<(), Failure> {
    let mut names = Vec::new();
    if !args.own_names_only {
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    }
    let urls = [Some(&settings.url), settings.admin_url.as_ref()];
    names
        .extend(urls.into_iter().flatten().filter_map(|url| Some(url.host_str()?.trim_matches(['[', ']']).to_owned())));
    names.extend(args.host_name.iter().cloned());
    names.sort();
    names.dedup();
    let service: Home = staging.service();
    service
        .create_under(&names, &settings.master_key.clone().unwrap_or_default())
        .or_fail(ExitCode::Other, || "cannot make the service's keys".to_owned())?;
    try_master_key(&service, &settings)
        .await
        .map_err(|error| custody_failure("cannot make a home with this master key".to_owned(), &error))?;
    let key = SigningKey::generate().or_fail(ExitCode::Other, || "cannot make the signing key".to_owned())?;
    let pem = key.to_pkcs8_pem().or_fail(ExitCode::Other, || "cannot write the signing key".to_owned())?;
    write_new(&staging.signing_key_path(), pem.as_bytes(), 0o600)?;
    let public =
        key.verifying_key().to_spki_pem().or_fail(ExitCode::Other, || "cannot write the signing key".to_owned())?;
    write_new(&staging.signing_public_key_path(), public.as_bytes(), 0o644)?;
    let store = Store::open(&service.database(&settings))
        .await
        .map_err(|error| cannot_open("cannot make the database".to_owned(), &error))?;
    let token = store
        .create_api_token("first-admin", Timestamp::now())
        .await
        .or_fail(ExitCode::Other, || "cannot make the admin token".to_owned())?;
    store.close().await;
    write_new(&staging.admin_token_path(), token.as_bytes(), 0o600)?;
    let settings = Settings { service: settings };
    let text = toml::to_string(&settings).or_fail(ExitCode::Other, || "cannot write the settings".to_owned())?;
    write_new(&staging.settings_path(), text.as_bytes(), 0o644)
}
