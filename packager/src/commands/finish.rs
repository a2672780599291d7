//! `pack --finish`: an image that another tool encrypted through the key provider gets its keys bound and its signatures.
//! Layers stay as they are; manifests do, too, unless the key packets stand where only our own guests look for them.

use attestation_service::api::KeyManifests;
use command_line::{Console, Failure, store_failure};
use image_store::{ImageReference, Store};
use serde_json::json;

use crate::cli::PackArgs;
use crate::client::AdminClient;
use crate::home::VendorHome;
use crate::keys::read_signing_key;
use crate::pack::{LayerSelection, SbomDocument, SealedImage, docker_reference, sign};

pub(crate) async fn run(
    home: &VendorHome,
    args: &PackArgs,
    reference: &ImageReference,
    console: &Console,
) -> Result<(), Failure> {
    check_reference(reference, "finish the image")?;
    let client = AdminClient::new(home)?;
    let signer_uri = args.sealing.signer.clone().unwrap_or_else(|| home.signing_key_path().display().to_string());
    let signer = read_signing_key(&signer_uri)?;
    // Opened for reading first: writing would make a layout where there is none.
    let source = args.registry.open(reference).await?;
    let layers = LayerSelection::new(args.layers.clone());
    let sbom = args.sealing.sbom.as_deref().map(SbomDocument::read).transpose()?;
    let image = SealedImage::read(&source, &args.product, &client.key_authority()?, &layers, sbom.as_ref()).await?;
    if image.is_rewritten() && reference.tag().is_none() && reference.digest().is_none() {
        return Err(Failure::usage(format!(
            "`{reference}` would hold two images, and its manifest has to be rewritten"
        ))
        .hint("name the image by its tag or digest: oci:DIR:TAG"));
    }
    let store = Store::create(reference, &args.registry.store_options()?)
        .await
        .map_err(|error| store_failure(format!("cannot open `{reference}`"), &error))?;
    let name = docker_reference(reference, &args.product);
    image.write_nested(&store).await?;
    for (key, manifests) in &image.keys {
        let path = format!("/products/{}/keys/{key}/manifests", args.product);
        client.submit(&path, &KeyManifests { image: name.clone(), manifests: manifests.clone() }).await?;
    }
    for digest in image.digests() {
        sign(&store, &digest, &name, &signer).await?;
    }
    if let Some(sbom) = &sbom {
        sbom.write(&store, image.attachments(), &name, &signer).await?;
    }
    // The name that people pull comes last.
    image.write_named(&store).await?;
    store.commit().await.map_err(|error| store_failure(format!("cannot finish `{reference}`"), &error))?;
    let pinned = reference.with_digest(image.digest);
    if image.is_rewritten() {
        console.say(format!("moved the key packets to where every guest looks; the image is now {}", image.digest));
    }
    console.say(format!(
        "bound {} keys of {} to {} manifests and signed them",
        image.keys.len(),
        args.product,
        image.manifests.len()
    ));
    let document = json!({
        "reference": pinned.to_string(), "digest": image.digest.to_string(), "product": args.product,
        "keys": image.keys.keys().collect::<Vec<_>>(), "manifests": image.manifests,
    });
    console.result(&document, || pinned.to_string());
    Ok(())
}

/// What is signed is what is meant: a registry could give another image for a tag than the one that was pushed.
pub(super) fn check_reference(reference: &ImageReference, act: &str) -> Result<(), Failure> {
    match reference {
        ImageReference::Docker(registry) if registry.digest().is_none() => {
            Err(Failure::usage(format!("`{reference}` names a tag, whatever it stands for now would be signed"))
                .hint("add the digest that was pushed (`skopeo copy --digestfile`): docker://HOST/NAME:TAG@sha256:…"))
        }
        ImageReference::DockerArchive { .. } | ImageReference::OciArchive { .. } => {
            Err(Failure::usage(format!("signatures cannot be added to the archive `{reference}`"))
                .hint(format!("{act} in a layout (`oci:`) or in a registry (`docker://`), then copy it")))
        }
        _ => Ok(()),
    }
}
