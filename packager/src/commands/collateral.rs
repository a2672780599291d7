//! `collateral`: what a service without internet needs to judge evidence, carried in one file. Certificates and lists are judged by
//! the verifier each time that they are used, whoever brought them; policies by nobody, so they want the bundle's digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use attestation_service::api::Product;
use attestation_service::endorsement::{NotTaken, Shelf};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use launch_evidence::{ChipId, TrustRoots};
use release_protocol::ProductName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::cli::{CollateralBundleArgs, CollateralCommand, CollateralImportArgs};
use crate::client::AdminClient;
use crate::home::{VendorHome, write_new};

/// What [`Bundle::format`] says.
const FORMAT: &str = "sealift-collateral-bundle/1";
/// The longest bundle that is read, in bytes.
const BUNDLE_MAX: u64 = 64 << 20;

/// The file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    format: String,
    made_at: Timestamp,
    files: Vec<BundledFile>,
    policies: Vec<BundledPolicy>,
}

/// A certificate, revocation list or collateral.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BundledFile {
    /// As [`Shelf`] names it.
    path: String,
    sha256: String,
    /// base64.
    content: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BundledPolicy {
    product: ProductName,
    sha256: String,
    source: String,
}

pub(crate) async fn run(home: &VendorHome, command: CollateralCommand, console: &Console) -> Result<(), Failure> {
    match command {
        CollateralCommand::Bundle(args) => bundle(home, args, console).await,
        CollateralCommand::Import(args) => import(home, args, console).await,
    }
}

async fn bundle(home: &VendorHome, args: CollateralBundleArgs, console: &Console) -> Result<(), Failure> {
    if args.out.exists() {
        let failure = Failure::bad_input(format!("`{}` exists already", args.out.display()));
        return Err(failure.hint("name another file; a bundle is not overwritten"));
    }
    let chips = args.chip.iter().map(|chip| {
        let chip: ChipId = chip.parse().or_fail(ExitCode::Usage, || format!("`{chip}` is no chip id"))?;
        Ok(chip.to_string())
    });
    let chips = chips.collect::<Result<Vec<_>, Failure>>()?;
    let settings = home.settings()?.service.evidence.endorsements;
    // What the operator keeps goes before what was fetched, as it does in the service.
    let shelves = [Some(Shelf::at(home.service().endorsements_path())), settings.directory.map(Shelf::at)];
    let all: BTreeMap<_, _> = shelves.into_iter().flatten().flat_map(|shelf| shelf.endorsements()).collect();
    let is_wanted =
        |name: &str| chips.is_empty() || name.split('/').count() < 3 || chips.iter().any(|chip| name.contains(chip));
    if let Some(missing) = chips.iter().find(|chip| !all.keys().any(|name| name.contains(*chip))) {
        return Err(Failure::bad_input(format!("this service has no certificate of the chip {missing}"))
            .hint("have a guest attest from there once while the service has internet, or put the certificate into the directory of `[service.evidence.endorsements]`"));
    }
    let files = all.into_iter().filter(|(name, _)| is_wanted(name)).map(|(path, content)| BundledFile {
        path,
        sha256: digest(&content),
        content: STANDARD.encode(content),
    });
    let files: Vec<_> = files.collect();
    let mut policies = Vec::new();
    if !args.product.is_empty() {
        let client = AdminClient::new(home)?;
        for product in args.product {
            let source = client.get_text(&format!("/products/{product}/policy")).await?;
            policies.push(BundledPolicy { product, sha256: digest(source.as_bytes()), source });
        }
    }
    if files.is_empty() && policies.is_empty() {
        return Err(Failure::bad_input("this service has neither certificates nor revocation lists")
            .hint("it keeps what it fetches for the guests that attest; or name products whose policies are wanted by `--product`"));
    }
    let bundle = Bundle { format: FORMAT.to_owned(), made_at: Timestamp::now(), files, policies };
    let json = serde_json::to_vec(&bundle).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    write_new(&args.out, &json, 0o644)?;
    let (files, policies, sha256) = (bundle.files.len(), bundle.policies.len(), digest(&json));
    console.result(&json!({"file": args.out, "files": files, "policies": policies, "sha256": sha256}), || {
        format!("{}: {files} certificates and lists, {policies} policies; SHA-256 {sha256}", args.out.display())
    });
    Ok(())
}

async fn import(home: &VendorHome, args: CollateralImportArgs, console: &Console) -> Result<(), Failure> {
    let bundle = read(&args.file, args.sha256.as_deref())?;
    let directory = if let Some(directory) = args.directory {
        directory
    } else {
        let settings = home.settings()?.service.evidence.endorsements;
        settings.directory.unwrap_or_else(|| home.service().endorsements_path())
    };
    // Nothing is written before all of it has been checked.
    let files = bundle.files.iter().map(checked).collect::<Result<Vec<_>, _>>()?;
    if let Some(policy) = bundle.policies.iter().find(|policy| digest(policy.source.as_bytes()) != policy.sha256) {
        return Err(damaged(&format!("the policy of {}", policy.product)));
    }
    let shelf = Shelf::at(directory.clone());
    let files = newer(&shelf, files, console)?;
    for (path, content) in &files {
        shelf
            .put(path, content)
            .or_fail(ExitCode::BadInput, || format!("cannot write `{path}` below `{}`", directory.display()))?;
    }
    let mut set = Vec::new();
    if args.set_policies {
        let client = AdminClient::new(home)?;
        let own: Vec<Product> = client.get("/products").await?;
        for BundledPolicy { product, source, .. } in bundle.policies {
            if !own.iter().any(|own| own.name == product) {
                console.say(format!("note: this service has no product {product}: its policy is left out"));
                continue;
            }
            client.put_text(&format!("/products/{product}/policy"), source).await?;
            set.push(product);
        }
    }
    let document = json!({"directory": directory, "files": files.len(), "policies": set, "made_at": bundle.made_at});
    console.result(&document, || {
        format!(
            "{} certificates and lists of {} to `{}`, {} policies set",
            files.len(),
            bundle.made_at,
            directory.display(),
            set.len()
        )
    });
    console.say("the service takes certificates at the next attestation, revocation lists and collateral within an hour or when it starts");
    Ok(())
}

fn read(file: &Path, sha256: Option<&str>) -> Result<Bundle, Failure> {
    let cannot = || format!("cannot read the bundle `{}`", file.display());
    let mut json = Vec::new();
    let opened = File::open(file).or_fail(ExitCode::BadInput, cannot)?;
    opened.take(BUNDLE_MAX).read_to_end(&mut json).or_fail(ExitCode::BadInput, cannot)?;
    if sha256.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&digest(&json))) {
        return Err(Failure::verification(format!("`{}` is not the bundle that was said", file.display()))
            .cause(format!("its SHA-256 is {}", digest(&json)))
            .hint("ask whoever made it for its SHA-256, and for the file again"));
    }
    let bundle: Bundle = serde_json::from_slice(&json)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no bundle of collateral", file.display()))
        .map_err(|failure| failure.hint("`sealift collateral bundle` makes one"))?;
    if bundle.format != FORMAT {
        let failure = Failure::bad_input(format!("`{}` is no bundle of collateral that is known here", file.display()));
        return Err(failure.cause(format!("only `{FORMAT}` is known")));
    }
    Ok(bundle)
}

/// The files without those that are older than what is there: whoever carries a bundle may have kept an earlier one.
fn newer<'b>(
    shelf: &Shelf,
    files: Vec<(&'b str, Vec<u8>)>,
    console: &Console,
) -> Result<Vec<(&'b str, Vec<u8>)>, Failure> {
    let (roots, now) = (TrustRoots::amd(), Timestamp::now());
    let mut taken = Vec::with_capacity(files.len());
    for (path, content) in files {
        match shelf.check(&roots, path, &content, now) {
            Ok(()) => taken.push((path, content)),
            Err(NotTaken::Older) => console.say(format!("note: `{path}` is left out: the one that is there is newer")),
            Err(why) => {
                return Err(Failure::verification(format!("`{path}` of the bundle cannot be used"))
                    .caused_by(&why)
                    .hint("nothing was taken; have the bundle made anew, by a service that has a list that counts"));
            }
        }
    }
    Ok(taken)
}

/// A file whose name is one of the directory's, and whose content is what its digest says.
fn checked(file: &BundledFile) -> Result<(&str, Vec<u8>), Failure> {
    if !Shelf::is_endorsement(&file.path) {
        let shown: String = file.path.chars().take(200).collect();
        return Err(Failure::bad_input(format!(
            "the bundle has a file `{shown}`, which is no certificate and no list"
        )));
    }
    let content = STANDARD.decode(&file.content).map_err(|_| damaged(&file.path))?;
    if digest(&content) == file.sha256 { Ok((&file.path, content)) } else { Err(damaged(&file.path)) }
}

fn damaged(what: &str) -> Failure {
    Failure::verification(format!("the bundle is damaged: {what} is not what its digest says"))
        .hint("nothing was taken; carry the file again")
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
