//! `pack`: encrypt, register, sign, push.

use std::path::Path;
use std::time::Instant;

use command_line::{Console, ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{ImageReference, Store};
use jose::jwe::Recipient;
use serde_json::json;

use crate::cli::PackArgs;
use crate::client::AdminClient;
use crate::home::VendorHome;
use crate::keys::{read_key_text, read_signing_key};
use crate::pack::{LayerSelection, PackPlan, Packer, Survey, docker_reference};

pub(crate) async fn run(home: &VendorHome, args: PackArgs, console: &Console) -> Result<(), Failure> {
    if let Some(reference) = &args.finish {
        return super::finish::run(home, &args, reference, console).await;
    }
    let (Some(from), Some(to)) = (&args.source, &args.destination) else {
        return Err(Failure::usage("there is no image to pack, or no place for the sealed one"));
    };
    if to.digest().is_some() {
        return Err(Failure::usage(format!("`{to}` names a digest; a sealed image gets a new one")).hint("name a tag"));
    }
    refuse_same_place(from, to)?;
    let client = AdminClient::new(home)?;
    // Asked first: a wrong product or a silent service must not cost an hour of encryption.
    let _: attestation_service::api::Product = client.get(&format!("/products/{}", args.product)).await?;
    let signer_uri = args.signer.clone().unwrap_or_else(|| home.signing_key_path().display().to_string());
    let signer = read_signing_key(&signer_uri)?;
    let recipients = args.recipient.iter().map(|uri| recipient(uri)).collect::<Result<Vec<_>, _>>()?;
    let source = args.registry.open(from).await?;
    // All that can be refused is refused before the destination exists.
    let survey = Survey::of(&source, &LayerSelection::new(args.layers), &args.platform).await?;
    let destination = Store::create(to, &args.registry.store_options()?)
        .await
        .map_err(|error| store_failure(format!("cannot open `{to}`"), &error))?;
    let progress = console.byte_progress("packing", survey.bytes());
    let plan = PackPlan {
        source: &source,
        destination: &destination,
        docker_reference: docker_reference(to, &args.product),
        product: args.product.clone(),
        version: args.image_version,
        recipients,
        signer,
        key_authority: client.key_authority()?,
    };
    let started = Instant::now();
    let mut packer = Packer::new(plan, progress.clone())?;
    let packed = packer.pack(survey).await?;
    client.submit(&format!("/products/{}/keys", args.product), &packer.registration(&packed)).await?;
    packer.publish(&packed).await?;
    progress.finish();
    let reference = to.with_digest(packed.digest);
    let seconds = started.elapsed().as_secs_f64();
    console.say(format!(
        "sealed {} layers ({} MiB in {seconds:.1} s), left {} plain, for {}; key {}",
        packed.sealed_layers,
        packed.sealed_bytes >> 20,
        packed.plain_layers,
        packed.manifests.iter().map(|manifest| manifest.platform.as_str()).collect::<Vec<_>>().join(", "),
        packer.kid().as_str(),
    ));
    let document = json!({
        "reference": reference.to_string(), "digest": packed.digest.to_string(), "product": args.product,
        "key": packer.kid().as_str(), "manifests": packed.manifests, "sealed_layers": packed.sealed_layers,
        "plain_layers": packed.plain_layers, "sealed_bytes": packed.sealed_bytes, "seconds": seconds,
    });
    console.result(&document, || reference.to_string());
    Ok(())
}

/// A layout or archive that held the plain layers beside the sealed ones would be given away with them.
fn refuse_same_place(from: &ImageReference, to: &ImageReference) -> Result<(), Failure> {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_same = match (from.path(), to.path()) {
        (Some(source), Some(destination)) => place(source) == place(destination),
        _ => from.to_string() == to.to_string(),
    };
    if is_same {
        return Err(Failure::usage(format!("`{to}` would hold the plain image and the sealed one")).hint(
            "name another layout, archive or repository: the plain layers would be given away with the sealed ones",
        ));
    }
    Ok(())
}

fn recipient(uri: &str) -> Result<Recipient, Failure> {
    let Some(file) = uri.strip_prefix("jwe:") else {
        return Err(Failure::usage(format!("the recipient `{uri}` is of no known kind"))
            .hint("write `jwe:FILE` with a public key in PEM"));
    };
    Recipient::from_pem(&read_key_text(file)?)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no public key", Path::new(file).display()))
}
