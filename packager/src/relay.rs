//! `serve --relay`: a service that holds the seats of a vendor's licence for a site. What it may do it has from the vendor's
//! service, and loses it when that refuses, or stays away for longer than its lease and the grace.

mod attester;
mod authority;
mod kept;
mod parent;
mod time;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation_service::api::IssuedLicense;
use attestation_service::{Service, ServiceError};
use command_line::{Answerer, Console, ExitCode, Failure, FailureContext as _, whole_file};
use release_protocol::LicenseFile;

use crate::home::VendorHome;
pub(crate) use authority::Authority;
pub(crate) use time::now;

/// Says of a home that it is a relay's: under which licence.
fn mark(home: &VendorHome) -> PathBuf {
    home.directory().join("relay")
}

/// Where the licence for the site's guests is written.
pub(crate) fn child_license(home: &VendorHome) -> PathBuf {
    home.directory().join("child.license")
}

/// A relay's home serves as nothing else: what was delegated would have no end.
pub(crate) fn refuse_relay(home: &VendorHome) -> Result<(), Failure> {
    if !mark(home).exists() {
        return Ok(());
    }
    Err(Failure::bad_input(format!("`{}` is the home of a relay", home.directory().display())).hint(
        "serve it with `sealift serve --relay LICENCE`; a service of your own needs a home of its own (`sealift init`)",
    ))
}

/// Reads the vendor's licence for a relay.
pub(crate) fn read_license(path: &Path) -> Result<LicenseFile, Failure> {
    let cannot = || format!("cannot read the relay's licence `{}`", path.display());
    let text = fs::read_to_string(path).or_fail(ExitCode::BadInput, cannot)?;
    let license: LicenseFile = text.parse().or_fail(ExitCode::BadInput, cannot)?;
    let claims = license.unverified();
    if !claims.relay {
        return Err(Failure::bad_input(format!(
            "the licence in `{}` is for workloads, not for a relay",
            path.display()
        ))
        .hint("ask the vendor for one by `sealift license issue --relay`"));
    }
    if claims.service.url.scheme() != "https" {
        return Err(Failure::bad_input(format!("the licence's service `{}` is not https", claims.service.url)));
    }
    Ok(license)
}

/// Makes the home a relay's under this licence. What was delegated under another one ends.
pub(crate) async fn adopt(home: &VendorHome, service: &Service, license: &LicenseFile) -> Result<(), Failure> {
    let (path, id) = (mark(home), &license.unverified().id.0);
    match fs::read_to_string(&path) {
        Ok(before) if before.trim() == id => return Ok(()),
        Ok(_) => service.give_up("the relay serves under another licence now").await.map_err(|error| local(&error))?,
        Err(_) if !service.is_blank().await.map_err(|error| local(&error))? => {
            let message = format!("`{}` has products or licences of its own", home.directory().display());
            return Err(Failure::bad_input(message).hint("make a fresh home for the relay: `sealift init DIR`"));
        }
        Err(_) => {}
    }
    whole_file::write_durably(&path, id.as_bytes())
}

/// Who is given the licence for the site's guests, beside its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Publish {
    /// Whoever reads what the relay says.
    Console,
}

/// Writes the licence for the site's guests, in the place of one that is there.
fn write_child_license(
    home: &VendorHome,
    issued: &IssuedLicense,
    publish: Option<Publish>,
    console: &Console,
) -> Result<(), Failure> {
    let path = child_license(home);
    let before = fs::read_to_string(&path).ok();
    // Each signature is another one: the file stays while it says the same.
    let says = |text: &str| text.parse::<LicenseFile>().ok().map(|license| license.unverified().clone());
    if before.as_deref().and_then(says).is_some_and(|before| says(&issued.token) == Some(before)) {
        return Ok(());
    }
    if publish == Some(Publish::Console) {
        console.say(format!("licence for this site's guests, a bearer's token: {}", issued.token));
    }
    whole_file::write_durably(&path, issued.token.as_bytes())
}

/// How long guests have to hear that they must stop, and to say that they did.
const DRAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether they did.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Ends what was delegated, and gives the guests time to hear of it while the service still answers.
pub(crate) async fn give_up(home: &VendorHome, service: &Service, why: &Failure, console: &Console) -> Failure {
    let reason = why.causes.first().unwrap_or(&why.message);
    let ended = service.give_up(&format!("the relay lost its authority: {reason}")).await;
    // Nobody is to start anything with it.
    let _ = fs::remove_file(child_license(home));
    if let Err(error) = ended {
        return local(&error);
    }
    console.say("the authority is lost: the licence of this site's guests is revoked, the vendor's keys are deleted");
    let drained = async {
        while service.children().await.is_ok_and(|running| running > 0) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    let mut lost = Failure::new(ExitCode::LeaseLost, "the relay lost its authority").from_answerer(Answerer::Service);
    lost.causes = std::iter::once(why.message.clone()).chain(why.causes.iter().cloned()).collect();
    lost.hint("ask the vendor about the licence; once its service grants it again, start the relay again")
}

/// A failure of the relay's own database or keys.
fn local(error: &ServiceError) -> Failure {
    Failure::other("what the vendor delegates cannot be kept in the relay's home").caused_by(error)
}
