//! `rewrap`: a sealed image under a key of its own. Layers stay as they are and where they are.

use command_line::{Console, Failure, store_failure};
use image_store::{CopyOutcome, Store};
use serde_json::json;

use super::pack::{check_destination, recipient};
use crate::cli::RewrapArgs;
use crate::client::AdminClient;
use crate::home::VendorHome;
use crate::keys::{read_signing_key, verifying_keys};
use crate::pack::{Publication, Rewrapping, SbomDocument, Survey, docker_reference};
use crate::tenants;

pub(crate) async fn run(home: &VendorHome, args: RewrapArgs, console: &Console) -> Result<(), Failure> {
    check_destination(&args.destination)?;
    let client = AdminClient::new(home)?;
    let target = target(home, &args)?;
    let owner = target.as_ref().map_or(home, |(home, _)| home);
    let signer_uri = args.sealing.signer.clone().unwrap_or_else(|| owner.signing_key_path().display().to_string());
    let signer = read_signing_key(&signer_uri)?;
    let recipients =
        args.sealing.recipient.iter().map(|uri| recipient(uri).map(|(pem, _)| pem)).collect::<Result<_, _>>()?;
    let source = args.registry.open(&args.source).await?;
    let keys = verifying_keys(home, &args.key)?;
    let survey = Survey::of_sealed(&source, &keys).await?;
    let sbom = match &args.sealing.sbom {
        Some(file) => Some(SbomDocument::read(file)?),
        // The image stays what it is made of.
        None => SbomDocument::beside(&source, &survey.digests(), &keys).await?,
    };
    let name = docker_reference(&args.destination, &args.product);
    let layers = survey.images.iter().flat_map(|image| &image.manifest.layers);
    let rewrapping = match &target {
        None => Rewrapping::of(&client, &args.product, &name, layers, recipients).await?,
        Some((_, to)) => Rewrapping::across((&client, to), &args.product, &name, layers).await?,
    };
    let rewrapping = rewrapping.ok_or_else(|| {
        Failure::bad_input(format!("no layer of `{}` is sealed to a key of {}", args.source, args.product))
            .hint("`sealift inspect` shows what it is sealed to")
    })?;
    let destination = Store::create(&args.destination, &args.registry.store_options()?)
        .await
        .map_err(|error| store_failure(format!("cannot open `{}`", args.destination), &error))?;
    let publication = Publication {
        destination: &destination,
        product: args.product.clone(),
        version: args.sealing.image_version,
        signer: Some(signer),
        docker_reference: name,
        sbom,
    };
    let mut assembly = publication.begin(survey.index);
    let mut moved_bytes = 0;
    for image in survey.images {
        let mut manifest = image.manifest;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            let copied = destination.copy_blob(&source, blob).await;
            let copied =
                copied.map_err(|error| store_failure(format!("cannot copy the blob {}", blob.digest), &error))?;
            moved_bytes += if copied == CopyOutcome::Copied { blob.size } else { 0 };
        }
        for layer in &mut manifest.layers {
            if let Some(rewrapped) = rewrapping.layer(&layer.digest) {
                *layer = rewrapped.clone();
            }
        }
        assembly.add(manifest, image.entry, image.platform).await?;
    }
    let image = assembly.finish()?;
    rewrapping.bind(target.as_ref().map_or(&client, |(_, to)| to), &image.manifests).await?;
    publication.publish(&image).await?;
    let reference = args.destination.with_digest(image.digest);
    console.say(format!(
        "wrapped the keys of {} layers anew, under the image key {}; {moved_bytes} bytes of blobs were copied",
        rewrapping.len(),
        rewrapping.key_id(),
    ));
    let document = json!({
        "reference": reference.to_string(), "digest": image.digest.to_string(), "product": args.product,
        "key": rewrapping.key_id(), "manifests": image.manifests, "layers": rewrapping.len(),
        "copied_bytes": moved_bytes,
    });
    console.result(&document, || reference.to_string());
    Ok(())
}

/// The other home whose service is to have the key, where one is named.
fn target(home: &VendorHome, args: &RewrapArgs) -> Result<Option<(VendorHome, AdminClient)>, Failure> {
    let target = match (&args.tenant, &args.to) {
        (Some(tenant), _) => tenants::existing(home, tenant)?,
        (None, Some(directory)) => VendorHome::at(Some(directory.clone())),
        (None, None) if args.to_token.is_some() => {
            return Err(Failure::usage("`--to-token` is for another home: name that by `--to` or `--tenant`"));
        }
        (None, None) => return Ok(None),
    };
    let token = args.to_token.clone().unwrap_or_else(|| target.admin_token_path());
    let client = AdminClient::with_token(&target, &token)?;
    Ok(Some((target, client)))
}
