//! `pack`: encrypt, register, sign, push.

use std::path::Path;
use std::time::Instant;

use command_line::{Console, ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{ImageReference, Store};
use jiff::Timestamp;
use jose::jwe::Recipient;
use serde_json::json;

use crate::cli::PackArgs;
use crate::client::AdminClient;
use crate::home::VendorHome;
use crate::keys::{read_key_text, read_signing_key, verifying_keys};
use crate::pack::{
    Appended, Earlier, LayerSelection, Mark, MarkKey, PackPlan, Packed, Packer, Publication, Rewrapping, SbomDocument,
    Survey, docker_reference,
};

pub(crate) async fn run(home: &VendorHome, args: PackArgs, console: &Console) -> Result<(), Failure> {
    if let Some(reference) = &args.finish {
        return super::finish::run(home, &args, reference, console).await;
    }
    let (Some(from), Some(to)) = (&args.source, &args.destination) else {
        return Err(Failure::usage("there is no image to pack, or no place for the sealed one"));
    };
    check_destination(to)?;
    refuse_same_place(from, to)?;
    let client = AdminClient::new(home)?;
    // Asked first: a wrong product or a silent service must not cost an hour of encryption.
    let _: attestation_service::api::Product = client.get(&format!("/products/{}", args.product)).await?;
    let signer_uri = args.sealing.signer.clone().unwrap_or_else(|| home.signing_key_path().display().to_string());
    let signer = read_signing_key(&signer_uri)?;
    let (pems, recipients): (Vec<_>, Vec<_>) =
        args.sealing.recipient.iter().map(|uri| recipient(uri)).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let sbom = args.sealing.sbom.as_deref().map(SbomDocument::read).transpose()?;
    let source = args.registry.open(from).await?;
    // All that can be refused is refused before the destination exists.
    let append = Appended::read(&args.append, args.confine.as_ref()).await?;
    let appended = append.as_ref().map_or(0, Appended::len);
    let survey = Survey::of(&source, &LayerSelection::new(args.layers.clone()), &args.platform, appended).await?;
    let docker_reference = docker_reference(to, &args.product);
    let mark = mark(home, &args, &docker_reference)?;
    let reuse = reuse(home, &args, &source, &survey).await?;
    let destination = Store::create(to, &args.registry.store_options()?)
        .await
        .map_err(|error| store_failure(format!("cannot open `{to}`"), &error))?;
    let progress = console.byte_progress("packing", survey.bytes());
    let publication = Publication {
        destination: &destination,
        product: args.product.clone(),
        version: args.sealing.image_version,
        signer: (!args.joint).then_some(signer),
        docker_reference,
        sbom,
    };
    let plan = PackPlan {
        source: &source,
        publication: &publication,
        recipients,
        key_authority: client.key_authority()?,
        scrub_config: args.scrub_config,
        append,
        confinement: args.confine.clone(),
        mark,
    };
    let started = Instant::now();
    let mut packer = Packer::new(plan, progress.clone())?;
    let rewrapping = match &reuse {
        Some(reuse) => reuse.apply(&mut packer, &client, &publication, pems).await?,
        None => None,
    };
    let packed = packer.pack(survey).await?;
    if let Some(registration) = packer.registration(&packed) {
        client.submit(&format!("/products/{}/keys", args.product), &registration).await?;
    }
    if let Some(rewrapping) = rewrapping.as_ref().filter(|_| !args.joint) {
        rewrapping.bind(&client, &packed.image.manifests).await?;
    }
    publication.publish(&packed.image).await?;
    progress.finish();
    report(&packer, &packed, to, started.elapsed().as_secs_f64(), console);
    if args.joint {
        console.say("nothing is signed, and the key opens nothing, until `sealift cosign` has seen the whole image");
    }
    Ok(())
}

fn report(packer: &Packer<'_>, packed: &Packed, to: &ImageReference, seconds: f64, console: &Console) {
    let Packed { image, sealed_layers, reused_layers, plain_layers, sealed_bytes } = packed;
    let reference = to.with_digest(image.digest);
    let reused = if *reused_layers == 0 { String::new() } else { format!(", took over {reused_layers}") };
    console.say(format!(
        "sealed {sealed_layers} layers ({} MiB in {seconds:.1} s){reused}, left {plain_layers} plain, for {}; key {}",
        sealed_bytes >> 20,
        image.manifests.iter().map(|manifest| manifest.platform.as_str()).collect::<Vec<_>>().join(", "),
        packer.kid().as_str(),
    ));
    let document = json!({
        "reference": reference.to_string(), "digest": image.digest.to_string(), "product": packer.product(),
        "key": packer.kid().as_str(), "manifests": image.manifests, "sealed_layers": sealed_layers,
        "reused_layers": reused_layers, "plain_layers": plain_layers, "sealed_bytes": sealed_bytes,
        "seconds": seconds,
    });
    console.result(&document, || reference.to_string());
}

/// The layer that says whose copy it is, where it is wanted.
fn mark(home: &VendorHome, args: &PackArgs, image: &str) -> Result<Option<Vec<u8>>, Failure> {
    let Some(customer) = &args.watermark else { return Ok(None) };
    let (customer, product, image) = (customer.clone(), args.product.clone(), image.to_owned());
    let mark = Mark { customer, product, image, packed_at: Timestamp::now() };
    MarkKey::create(home)?.layer(&mark).map(Some)
}

/// An earlier image, and what of it is wanted again.
struct Reuse {
    earlier: Earlier,
    /// Digest of the plain layer → the sealed one.
    layers: std::collections::BTreeMap<image_store::Digest, image_store::Descriptor>,
}

async fn reuse(home: &VendorHome, args: &PackArgs, source: &Store, survey: &Survey) -> Result<Option<Reuse>, Failure> {
    let Some(reference) = &args.reuse else { return Ok(None) };
    let store = args.registry.open(reference).await?;
    let earlier = Earlier::read(store, &verifying_keys(home, &[])?).await?;
    let layers = earlier.matching(source, survey).await?;
    Ok(Some(Reuse { earlier, layers }))
}

impl Reuse {
    /// Takes the layers over, under a key of their own.
    async fn apply(
        &self,
        packer: &mut Packer<'_>,
        client: &AdminClient,
        publication: &Publication<'_>,
        recipients: Vec<String>,
    ) -> Result<Option<Rewrapping>, Failure> {
        let (product, name) = (&publication.product, &publication.docker_reference);
        let rewrapping = Rewrapping::of(client, product, name, self.layers.values(), recipients).await?;
        if let Some(rewrapping) = &rewrapping {
            for (plain, earlier) in &self.layers {
                if let Some(sealed) = rewrapping.layer(&earlier.digest) {
                    packer.reuse(*plain, &self.earlier.store, sealed).await?;
                }
            }
        }
        Ok(rewrapping)
    }
}

/// A sealed image has a new digest: none can be named before.
pub(super) fn check_destination(to: &ImageReference) -> Result<(), Failure> {
    if to.digest().is_none() {
        return Ok(());
    }
    Err(Failure::usage(format!("`{to}` names a digest; a sealed image gets a new one")).hint("name a tag"))
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

/// A recipient of the command line, and its public key in PEM.
pub(super) fn recipient(uri: &str) -> Result<(String, Recipient), Failure> {
    let Some(file) = uri.strip_prefix("jwe:") else {
        return Err(Failure::usage(format!("the recipient `{uri}` is of no known kind"))
            .hint("write `jwe:FILE` with a public key in PEM"));
    };
    let pem = read_key_text(file)?.to_string();
    let recipient = Recipient::from_pem(&pem)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no public key", Path::new(file).display()))?;
    Ok((pem, recipient))
}
