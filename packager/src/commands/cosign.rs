//! `cosign`: one of several partners signs their image, and lets its own keys open exactly that one. `cosign status`: who has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attestation_service::api::KeyManifests;
use command_line::{Console, Failure, store_failure};
use image_signature::Signatures;
use image_store::{ImageReference, Store};
use jose::signing::{SigningKey, VerifyingKey};
use release_protocol::ProductName;
use serde_json::json;

use super::finish::check_reference;
use crate::cli::{CosignArgs, CosignCommand, CosignStatusArgs};
use crate::client::AdminClient;
use crate::home::VendorHome;
use crate::keys::{read_signing_key, read_verifying_key};
use crate::pack::{JointImage, LayerSelection, Looking, Survey, check_signatures, docker_reference, sign};

pub(crate) async fn run(home: &VendorHome, args: CosignArgs, console: &Console) -> Result<(), Failure> {
    if let Some(CosignCommand::Status(args)) = args.command {
        return status(args, console).await;
    }
    let (Some(reference), Some(product)) = (&args.reference, &args.product) else {
        return Err(Failure::usage("there is no image to sign, or no product"));
    };
    check_reference(reference, "sign the image")?;
    let client = AdminClient::new(home)?;
    let signer_uri = args.signer.clone().unwrap_or_else(|| home.signing_key_path().display().to_string());
    let signer = read_signing_key(&signer_uri)?;
    let source = args.registry.open(reference).await?;
    let extends = match &args.extends {
        Some(before) => Some(args.registry.open(before).await?),
        None => None,
    };
    let (layers, authority) = (LayerSelection::new(args.layers.clone()), client.key_authority()?);
    let looking = Looking { product, authority: &authority, layers: &layers, extends: extends.as_ref() };
    let image = JointImage::read(&source, &looking).await?;
    let store = Store::create(reference, &args.registry.store_options()?)
        .await
        .map_err(|error| store_failure(format!("cannot open `{reference}`"), &error))?;
    let name = docker_reference(reference, product);
    bind(&client, product, &image, &name).await?;
    for digest in image.digests() {
        sign_beside_others(&store, &digest, &name, &signer).await?;
    }
    store.commit().await.map_err(|error| store_failure(format!("cannot finish `{reference}`"), &error))?;
    say(&image, reference, product, &signer, console);
    Ok(())
}

/// Lets one's own keys open the image. A key that opens another one already gets no further one.
async fn bind(client: &AdminClient, product: &ProductName, image: &JointImage, name: &str) -> Result<(), Failure> {
    for (key, manifests) in &image.keys {
        let path = format!("/products/{product}/keys/{key}/manifests");
        let bound = KeyManifests { image: name.to_owned(), manifests: manifests.clone() };
        client.submit(&path, &bound).await.map_err(|failure| match failure.hint {
            Some(_) => failure,
            None => {
                failure.hint("seal one's own layers anew by `sealift pack --joint`: a key is bound to one image, once")
            }
        })?;
    }
    Ok(())
}

/// A registry has no way to add to a signature image that another partner is adding to: whose signature was lost on the way
/// adds it again.
async fn sign_beside_others(store: &Store, digest: &str, name: &str, signer: &SigningKey) -> Result<(), Failure> {
    let key = [signer.verifying_key().clone()];
    for _ in 0..TRIES {
        sign(store, digest, name, signer).await?;
        if matches!(check_signatures(store, digest, &key).await?, Signatures::By(_)) {
            return Ok(());
        }
    }
    Err(Failure::unavailable(format!(
        "the signature of {digest} does not stay: others are signing it at the same time"
    ))
    .hint("sign it again"))
}

const TRIES: usize = 4;

fn say(image: &JointImage, reference: &ImageReference, product: &ProductName, signer: &SigningKey, console: &Console) {
    let pinned = reference.with_digest(image.digest);
    let others: Vec<&str> = image.others.iter().map(String::as_str).collect();
    if !image.plain.is_empty() {
        let plain: Vec<String> = image.plain.iter().map(ToString::to_string).collect();
        console.say(format!("layers {} are plain: what they do was signed with the image", plain.join(", ")));
    }
    console.say(format!(
        "bound {} keys of {product} to {} and signed it; others have sealed layers to {}",
        image.keys.len(),
        image.digest,
        if others.is_empty() { "no other service".to_owned() } else { others.join(", ") },
    ));
    let document = json!({
        "reference": pinned.to_string(), "digest": image.digest.to_string(), "product": product,
        "signer": signer.verifying_key().thumbprint(), "keys": image.keys.keys().collect::<Vec<_>>(),
        "manifests": image.manifests, "others": others, "plain_layers": image.plain,
    });
    console.result(&document, || pinned.to_string());
}

/// A partner's key, in whichever files it was found.
struct Expected<'a> {
    key: VerifyingKey,
    files: Vec<&'a Path>,
    signed: bool,
}

async fn status(args: CosignStatusArgs, console: &Console) -> Result<(), Failure> {
    let mut expected = distinct(&args.key)?;
    let keys = expected.len();
    let threshold = args.threshold.map_or(keys, |threshold| threshold as usize);
    if threshold > keys {
        return Err(Failure::usage(format!("{threshold} signatures cannot come of {keys} keys"))
            .hint("name more keys by `--key`; a key that is named twice counts once"));
    }
    let store = args.registry.open(&args.reference).await?;
    let image = Survey::of_joint(&store).await?;
    for one in expected.values_mut() {
        one.signed = has_signed(&store, &image, &one.key).await?;
    }
    let signed = expected.values().filter(|one| one.signed).count();
    let digest = image.digest();
    let rows: Vec<_> = expected
        .iter()
        .map(|(thumbprint, one)| json!({"key": thumbprint, "files": one.files, "signed": one.signed}))
        .collect();
    let document = json!({
        "reference": args.reference.with_digest(digest).to_string(), "digest": digest.to_string(), "keys": rows,
        "signed": signed, "threshold": threshold, "complete": signed >= threshold,
    });
    console.result(&document, || {
        let lines = expected.iter().map(|(thumbprint, one)| {
            format!("{}  {thumbprint}  {}", if one.signed { "signed " } else { "missing" }, one.names())
        });
        let last = format!("{signed} of {keys} have signed {digest}, {threshold} have to");
        lines.chain([last]).collect::<Vec<_>>().join("\n")
    });
    if signed >= threshold {
        return Ok(());
    }
    let missing: Vec<String> = expected.values().filter(|one| !one.signed).map(Expected::names).collect();
    Err(Failure::verification(format!("{signed} of the required {threshold} partners have signed {digest}"))
        .cause(format!("the signature of {} is missing", missing.join(", ")))
        .hint("each of them signs by `sealift cosign`"))
}

impl Expected<'_> {
    fn names(&self) -> String {
        self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The keys in the files, by their thumbprints: one that is named twice is one.
fn distinct(files: &[PathBuf]) -> Result<BTreeMap<String, Expected<'_>>, Failure> {
    let mut expected = BTreeMap::new();
    for file in files {
        let key = read_verifying_key(file)?;
        let new = |key| Expected { key, files: Vec::new(), signed: false };
        expected.entry(key.thumbprint()).or_insert_with(|| new(key)).files.push(file.as_path());
    }
    Ok(expected)
}

/// Whether all of the image is signed by the key.
async fn has_signed(store: &Store, image: &Survey, key: &VerifyingKey) -> Result<bool, Failure> {
    for digest in image.digests() {
        if !matches!(check_signatures(store, &digest, std::slice::from_ref(key)).await?, Signatures::By(_)) {
            return Ok(false);
        }
    }
    Ok(true)
}
