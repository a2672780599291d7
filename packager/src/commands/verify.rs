//! `verify`: signatures and structure of a sealed image; with `--deep` every blob as well.

use command_line::{Console, Failure, store_failure};
use image_store::{Document, Manifest, Store};
use ocicrypt::layer::SealedLayer;
use serde_json::json;

use crate::cli::VerifyArgs;
use crate::home::VendorHome;
use crate::keys::verifying_keys;
use crate::pack::{PRODUCT_ANNOTATION, find_sboms, parse, platform_name, require_signature};

pub(crate) async fn run(home: &VendorHome, args: VerifyArgs, console: &Console) -> Result<(), Failure> {
    let keys = verifying_keys(home, &args.key)?;
    let store = args.registry.open(&args.reference).await?;
    let raw =
        store.resolve().await.map_err(|error| store_failure(format!("cannot read `{}`", args.reference), &error))?;
    let mut manifests = Vec::new();
    match parse(&raw)? {
        Document::Manifest(manifest) => manifests.push((raw.digest.to_string(), "(single)".to_owned(), manifest)),
        Document::Index(index) => {
            require_signature(&store, &raw.digest.to_string(), &keys).await?;
            for entry in &index.manifests {
                let raw = store
                    .manifest(&entry.digest)
                    .await
                    .map_err(|error| store_failure(format!("cannot read the manifest {}", entry.digest), &error))?;
                let name = entry.platform.as_ref().map_or_else(|| "(none)".to_owned(), platform_name);
                if let Document::Manifest(manifest) = parse(&raw)? {
                    manifests.push((raw.digest.to_string(), name, manifest));
                }
            }
        }
    }
    let mut verified = Vec::with_capacity(manifests.len());
    for (digest, platform, manifest) in &manifests {
        let signers = require_signature(&store, digest, &keys).await?;
        check_structure(manifest, digest)?;
        if args.deep {
            check_blobs(&store, manifest).await?;
        }
        let sboms = find_sboms(&store, digest, &keys).await?;
        if args.require_sbom && sboms.iter().all(|sbom| sbom.signers.is_empty()) {
            return Err(Failure::verification(format!(
                "no bill of materials that a given key signed stands beside {digest}"
            ))
            .hint("attach one with `sealift pack --sbom FILE`, and copy what refers to an image along with it"));
        }
        for unsigned in sboms.iter().filter(|sbom| sbom.signers.is_empty()) {
            console.say(format!("note: nobody known signed the bill of materials {}", unsigned.sbom.manifest));
        }
        verified.push(json!({
            "platform": platform, "digest": digest, "signers": signers, "layers": manifest.layers.len(),
            "sboms": sboms,
        }));
    }
    let document = json!({"reference": args.reference.to_string(), "digest": raw.digest.to_string(), "verified": verified, "deep": args.deep});
    console.result(&document, || {
        format!(
            "verified {}: {} manifests signed and well-formed",
            args.reference.with_digest(raw.digest),
            manifests.len()
        )
    });
    Ok(())
}

fn check_structure(manifest: &Manifest, digest: &str) -> Result<(), Failure> {
    // What another tool encrypted names its product in its keys alone.
    let mut names_product = manifest.annotations.contains_key(PRODUCT_ANNOTATION);
    let mut sealed_layers = 0;
    for layer in &manifest.layers {
        if ocicrypt::media_type::is_encrypted(&layer.media_type) {
            let sealed = SealedLayer::parse(&layer.annotations).map_err(|error| {
                Failure::verification(format!("the layer {} cannot be opened by anyone", layer.digest))
                    .caused_by(&error)
            })?;
            names_product |= sealed.kids().next().is_some();
            sealed_layers += 1;
        } else if layer.annotations.keys().any(|name| ocicrypt::layer::is_encryption_annotation(name)) {
            return Err(Failure::verification(format!(
                "the layer {} is plain but says how it is encrypted",
                layer.digest
            )));
        }
    }
    if sealed_layers == 0 {
        return Err(Failure::verification(format!("{digest} has no sealed layer")));
    }
    if !names_product {
        return Err(Failure::verification(format!(
            "{digest} names no product (annotation `{PRODUCT_ANNOTATION}`, or a key of its layers)"
        )));
    }
    Ok(())
}

async fn check_blobs(store: &Store, manifest: &Manifest) -> Result<(), Failure> {
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        let failed = |error: image_store::Error| {
            store_failure(format!("the blob {} does not verify", descriptor.digest), &error)
        };
        let mut blob = store.blob(descriptor).await.map_err(failed)?;
        while let Some(chunk) = blob.chunk().await {
            chunk.map_err(failed)?;
        }
    }
    Ok(())
}
