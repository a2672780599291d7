//! `inspect`: what is sealed to what, without any key.

use command_line::{Console, Failure, store_failure};
use image_signature::Signatures;
use image_store::{Descriptor, Document, Manifest, Store};
use ocicrypt::layer::SealedLayer;
use ocicrypt::packet::Packet;
use release_protocol::CONFINED_ANNOTATION;
use serde::Serialize;

use crate::cli::InspectArgs;
use crate::pack::{PRODUCT_ANNOTATION, VERSION_ANNOTATION, check_signatures, parse, platform_name};

#[derive(Serialize)]
struct Inspected {
    reference: String,
    digest: String,
    product: Option<String>,
    version: Option<String>,
    platforms: Vec<InspectedPlatform>,
}

#[derive(Serialize)]
struct InspectedPlatform {
    platform: String,
    digest: String,
    signed: bool,
    layers: Vec<InspectedLayer>,
}

#[derive(Serialize)]
struct InspectedLayer {
    digest: String,
    media_type: String,
    size: u64,
    encrypted: bool,
    cipher: Option<String>,
    /// `kbs://…` ids of the keys that open it.
    keys: Vec<String>,
    /// Other ways to open it, by annotation.
    other_wraps: Vec<String>,
    /// The directory that it is confined to.
    #[serde(skip_serializing_if = "Option::is_none")]
    confined_to: Option<String>,
    /// Why its annotations cannot be used.
    problem: Option<String>,
}

pub(crate) async fn run(args: InspectArgs, console: &Console) -> Result<(), Failure> {
    let store = args.registry.open(&args.reference).await?;
    let raw =
        store.resolve().await.map_err(|error| store_failure(format!("cannot read `{}`", args.reference), &error))?;
    let (annotations, platforms) = match parse(&raw)? {
        Document::Manifest(manifest) => {
            let annotations = manifest.annotations.clone();
            (annotations, vec![platform(&store, raw.digest.to_string(), "(single)".to_owned(), &manifest).await?])
        }
        Document::Index(index) => {
            let mut platforms = Vec::with_capacity(index.manifests.len());
            for entry in &index.manifests {
                let raw = store
                    .manifest(&entry.digest)
                    .await
                    .map_err(|error| store_failure(format!("cannot read the manifest {}", entry.digest), &error))?;
                let name = entry.platform.as_ref().map_or_else(|| "(none)".to_owned(), platform_name);
                if let Document::Manifest(manifest) = parse(&raw)? {
                    platforms.push(platform(&store, raw.digest.to_string(), name, &manifest).await?);
                }
            }
            (index.annotations, platforms)
        }
    };
    let inspected = Inspected {
        reference: args.reference.to_string(),
        digest: raw.digest.to_string(),
        product: annotations.get(PRODUCT_ANNOTATION).cloned(),
        version: annotations.get(VERSION_ANNOTATION).cloned(),
        platforms,
    };
    console.result(&inspected, || text(&inspected));
    Ok(())
}

async fn platform(
    store: &Store,
    digest: String,
    platform: String,
    manifest: &Manifest,
) -> Result<InspectedPlatform, Failure> {
    let signed = !matches!(check_signatures(store, &digest, &[]).await?, Signatures::None);
    Ok(InspectedPlatform { platform, digest, signed, layers: manifest.layers.iter().map(layer).collect() })
}

fn layer(descriptor: &Descriptor) -> InspectedLayer {
    let encrypted = ocicrypt::media_type::is_encrypted(&descriptor.media_type);
    let mut inspected = InspectedLayer {
        digest: descriptor.digest.to_string(),
        media_type: descriptor.media_type.clone(),
        size: descriptor.size,
        encrypted,
        cipher: None,
        keys: Vec::new(),
        other_wraps: Vec::new(),
        confined_to: descriptor.annotations.get(CONFINED_ANNOTATION).cloned(),
        problem: None,
    };
    if encrypted {
        match SealedLayer::parse(&descriptor.annotations) {
            Ok(sealed) => {
                inspected.cipher = Some(sealed.public.cipher().to_owned());
                inspected.keys = sealed.kids().map(|kid| kid.as_str().to_owned()).collect();
                if !sealed.jwe.is_empty() {
                    inspected.other_wraps.push(ocicrypt::jwe::ANNOTATION.to_owned());
                }
                inspected.other_wraps.extend(sealed.other_wraps().map(ToOwned::to_owned));
                if inspected.keys.is_empty() && inspected.other_wraps.is_empty() {
                    inspected.problem = sealed.packets.iter().find_map(unsupported);
                }
            }
            Err(error) => inspected.problem = Some(error.to_string()),
        }
    }
    inspected
}

fn unsupported(packet: &Packet) -> Option<String> {
    match packet {
        Packet::Unsupported(packet) => Some(format!("its key is wrapped in an unknown way ({packet})")),
        _ => None,
    }
}

fn text(inspected: &Inspected) -> String {
    let mut lines = vec![
        format!("image    {}", inspected.reference),
        format!("digest   {}", inspected.digest),
        format!("product  {}", inspected.product.as_deref().unwrap_or("(none)")),
    ];
    if let Some(version) = &inspected.version {
        lines.push(format!("version  {version}"));
    }
    for platform in &inspected.platforms {
        let signed = if platform.signed { "signed" } else { "NOT SIGNED" };
        lines.push(format!("{}  {}  {signed}", platform.platform, platform.digest));
        for layer in &platform.layers {
            let state = match (&layer.problem, layer.encrypted) {
                (Some(problem), _) => format!("UNUSABLE: {problem}"),
                (None, true) => format!(
                    "sealed to {}",
                    layer.keys.iter().chain(&layer.other_wraps).cloned().collect::<Vec<_>>().join(", ")
                ),
                (None, false) => "PLAIN".to_owned(),
            };
            let confined = layer.confined_to.as_ref().map(|directory| format!(", confined to {directory}"));
            let confined = confined.unwrap_or_default();
            lines.push(format!("  {}  {:>12} bytes  {state}{confined}", layer.digest, layer.size));
        }
    }
    lines.join("\n")
}
