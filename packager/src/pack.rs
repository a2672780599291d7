//! Packing: every layer encrypted in one pass, the key registered with the manifests it may open, all of it signed.
//!
//! Order matters: blobs, platform manifests, key registration, signatures, and only then the name that people pull. An
//! interrupted pack leaves blobs that nothing names; a rerun makes new ones.

mod append;
mod config;
mod finish;
mod joint;
mod layer;
mod publication;
mod reuse;
mod rewrap;
mod sbom;
mod selection;
mod signature;
mod stages;
mod survey;
mod watermark;

use std::collections::{BTreeSet, HashMap, HashSet};

use attestation_service::api::NewImageKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{ByteProgress, ExitCode, Failure, FailureContext as _, store_failure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use image_store::{Descriptor, Digest, Document, Manifest, RawManifest, Store};
use jose::jwe::Recipient;
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::packet::Kid;
use release_protocol::{CONFINED_ANNOTATION, Confinement, ProductName, ResourcePath};
use zeroize::Zeroizing;

pub(crate) use append::Appended;
use config::ConfigChange;
pub(crate) use finish::SealedImage;
pub(crate) use joint::{JointImage, Looking};
pub(crate) use publication::{Assembled, Publication};
pub(crate) use reuse::Earlier;
pub(crate) use rewrap::Rewrapping;
pub(crate) use sbom::{SbomDocument, find as find_sboms};
pub(crate) use selection::{LayerSelection, platform_name};
pub(crate) use signature::{check_signatures, docker_reference, require_signature, sign};
pub(crate) use survey::Survey;
use survey::SurveyedImage;
pub(crate) use watermark::{Mark, MarkKey};

/// The manifest annotation that names the product.
pub(crate) const PRODUCT_ANNOTATION: &str = "io.sealift.product";
/// The manifest annotation that names the image's version.
pub(crate) const VERSION_ANNOTATION: &str = "io.sealift.version";

/// What is to be packed and how.
pub(crate) struct PackPlan<'a> {
    pub(crate) source: &'a Store,
    pub(crate) publication: &'a Publication<'a>,
    pub(crate) recipients: Vec<Recipient>,
    /// `HOST:PORT` of the service, for the key's id.
    pub(crate) key_authority: String,
    /// Whether the config is to say how to run, and not how it was made.
    pub(crate) scrub_config: bool,
    /// Layers that go on top.
    pub(crate) append: Option<Appended>,
    /// The directory that all layers which are sealed are held to.
    pub(crate) confinement: Option<Confinement>,
    /// A layer that goes on top of every platform's, as a plain tar.
    pub(crate) mark: Option<Vec<u8>>,
}

/// What was packed, ready to be registered and published.
pub(crate) struct Packed {
    pub(crate) image: Assembled,
    /// Layers that were encrypted.
    pub(crate) sealed_layers: usize,
    /// Layers that an earlier image had already.
    pub(crate) reused_layers: usize,
    pub(crate) plain_layers: usize,
    /// Plain bytes that were encrypted.
    pub(crate) sealed_bytes: u64,
}

/// One pack in progress.
pub(crate) struct Packer<'a> {
    plan: PackPlan<'a>,
    key_id: String,
    kid: Kid,
    kek: KeyEncryptionKey,
    progress: ByteProgress,
    /// Plain digest → sealed layer: a layer that several platforms share is encrypted once.
    sealed: HashMap<Digest, Descriptor>,
    reused_layers: usize,
    plain_layers: usize,
    sealed_bytes: u64,
}

impl<'a> Packer<'a> {
    /// A packer with a fresh key-encryption key.
    pub(crate) fn new(plan: PackPlan<'a>, progress: ByteProgress) -> Result<Self, Failure> {
        let key_id = uuid::Uuid::now_v7().to_string();
        let path = [plan.publication.product.as_str(), ResourcePath::IMAGE_KEY, &key_id];
        let kid = Kid::new(&plan.key_authority, path)
            .or_fail(ExitCode::BadInput, || "cannot name the image key".to_owned())?;
        let kek = KeyEncryptionKey::generate().or_fail(ExitCode::Other, || "cannot make a key".to_owned())?;
        let (sealed, reused_layers, plain_layers, sealed_bytes) = (HashMap::new(), 0, 0, 0);
        Ok(Self { plan, key_id, kid, kek, progress, sealed, reused_layers, plain_layers, sealed_bytes })
    }

    /// Takes a layer from an earlier image in the place of encrypting `plain`.
    pub(crate) async fn reuse(&mut self, plain: Digest, earlier: &Store, sealed: &Descriptor) -> Result<(), Failure> {
        let copied = self.plan.publication.destination.copy_blob(earlier, sealed).await;
        copied.map_err(|error| store_failure(format!("cannot take the layer {} over", sealed.digest), &error))?;
        self.reused_layers += usize::from(self.sealed.insert(plain, sealed.clone()).is_none());
        Ok(())
    }

    /// Encrypts and writes all layers and platform manifests. Nothing is registered, signed or named yet.
    pub(crate) async fn pack(&mut self, survey: Survey) -> Result<Packed, Failure> {
        let mut tops = self.seal_appended().await?;
        tops.extend(self.seal_mark().await?);
        let mut assembly = self.plan.publication.begin(survey.index);
        for SurveyedImage { entry, platform, mut manifest, wanted, .. } in survey.images {
            let top = tops.iter().map(|(diff_id, _)| *diff_id).collect();
            let change = ConfigChange { scrub: self.plan.scrub_config, top };
            manifest.config =
                config::carry(self.plan.source, self.plan.publication.destination, &manifest, &change).await?;
            self.carry_layers(&mut manifest.layers, &wanted).await?;
            refuse_plain(&manifest, &wanted)?;
            manifest.layers.extend(tops.iter().map(|(_, layer)| layer.clone()));
            if self.plan.scrub_config {
                manifest.annotations.clear();
            }
            assembly.add(manifest, entry, platform).await?;
        }
        Ok(Packed {
            image: assembly.finish()?,
            sealed_layers: self.sealed.len() - self.reused_layers + tops.len(),
            reused_layers: self.reused_layers,
            plain_layers: self.plain_layers,
            sealed_bytes: self.sealed_bytes,
        })
    }

    /// What to register with the service before anything is published; nothing where no layer was encrypted.
    pub(crate) fn registration(&self, packed: &Packed) -> Option<NewImageKey> {
        (packed.sealed_layers > 0).then(|| NewImageKey {
            id: self.key_id.clone(),
            kek: Zeroizing::new(STANDARD.encode(self.kek.expose())),
            image: self.plan.publication.docker_reference.clone(),
            // Where partners are still to add to the image, nobody knows its manifests yet.
            manifests: if self.plan.publication.signer.is_some() { packed.image.manifests.clone() } else { Vec::new() },
        })
    }

    /// What the image belongs to.
    pub(crate) fn product(&self) -> &ProductName {
        &self.plan.publication.product
    }

    /// The key's id as layers carry it.
    pub(crate) fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Seals or copies all layers, several at a time. The first that fails ends the others.
    async fn carry_layers(&mut self, layers: &mut [Descriptor], wanted: &BTreeSet<usize>) -> Result<(), Failure> {
        // What another partner has encrypted stays as it is.
        let is_to_seal = |position: usize, layer: &Descriptor| {
            wanted.contains(&position) && !ocicrypt::media_type::is_encrypted(&layer.media_type)
        };
        let mut seen = HashSet::new();
        let mut to_carry = Vec::new();
        for (position, layer) in layers.iter().enumerate() {
            let seals = is_to_seal(position, layer);
            if seen.insert((layer.digest, seals)) && !(seals && self.sealed.contains_key(&layer.digest)) {
                to_carry.push((position, layer.clone(), seals));
            }
        }
        let alone = to_carry.iter().filter(|(.., seals)| *seals).count() == 1;
        let carries = to_carry.into_iter().map(|(position, layer, seals)| self.carry(position, layer, seals, alone));
        let carries: Vec<_> = carries.collect();
        let carried: Vec<_> = stream::iter(carries).buffer_unordered(layers_at_once()).try_collect().await?;
        for (plain, sealed) in carried.into_iter().flatten() {
            self.sealed_bytes += plain.size;
            self.sealed.insert(plain.digest, sealed);
        }
        for (position, layer) in layers.iter_mut().enumerate() {
            if is_to_seal(position, layer) {
                if let Some(sealed) = self.sealed.get(&layer.digest) {
                    *layer = sealed.clone();
                }
                continue;
            }
            self.plain_layers += usize::from(!ocicrypt::media_type::is_encrypted(&layer.media_type));
            if let Some(layer_type) = ocicrypt::media_type::LayerType::parse(&layer.media_type) {
                layer.media_type = layer_type.name();
            }
        }
        Ok(())
    }

    /// Brings one layer to the destination; gives it as it was and as it is, where it was sealed.
    async fn carry(
        &self,
        position: usize,
        layer: Descriptor,
        seals: bool,
        alone: bool,
    ) -> Result<Option<(Descriptor, Descriptor)>, Failure> {
        if seals {
            let sealed = self.seal_layer(&layer, position, alone).await?;
            return Ok(Some((layer, sealed)));
        }
        let copied = self.plan.publication.destination.copy_blob(self.plan.source, &layer).await;
        copied.map_err(|error| store_failure(format!("cannot copy the layer {}", layer.digest), &error))?;
        self.progress.add(layer.size);
        Ok(None)
    }

    async fn seal_layer(&self, plain: &Descriptor, position: usize, alone: bool) -> Result<Descriptor, Failure> {
        let media_type = ocicrypt::media_type::encrypted(&plain.media_type)
            .or_fail(ExitCode::BadInput, || format!("layer {position} ({}) cannot be encrypted", plain.digest))?;
        let (source, destination) = (self.plan.source, self.plan.publication.destination);
        let sealed = layer::seal(source, destination, plain, alone, &self.progress).await?;
        let mut descriptor = self.wrapped(media_type, &sealed)?;
        if !self.plan.scrub_config {
            let wraps = std::mem::replace(&mut descriptor.annotations, plain.annotations.clone());
            descriptor.annotations.extend(wraps);
        }
        self.confine(&mut descriptor);
        Ok(descriptor)
    }

    /// Notes which directory a layer is held to, where one was named.
    fn confine(&self, layer: &mut Descriptor) {
        if let Some(confinement) = &self.plan.confinement {
            layer.annotations.insert(CONFINED_ANNOTATION.to_owned(), confinement.to_string());
        }
    }

    /// Encrypts the layers that are added, from the lowest on; gives their `diff_id`s as well.
    async fn seal_appended(&mut self) -> Result<Vec<(Digest, Descriptor)>, Failure> {
        let Some(append) = &self.plan.append else { return Ok(Vec::new()) };
        let mut layers = Vec::with_capacity(append.layers.len());
        for plain in &append.layers {
            let sealed = layer::seal(&append.store, self.plan.publication.destination, plain, true, &self.progress);
            let media_type = ocicrypt::media_type::encrypted(&plain.media_type)
                .or_fail(ExitCode::Other, || "a plain layer cannot be encrypted".to_owned())?;
            let mut descriptor = self.wrapped(media_type, &sealed.await?)?;
            self.confine(&mut descriptor);
            self.sealed_bytes += plain.size;
            layers.push((plain.digest, descriptor));
        }
        Ok(layers)
    }

    /// Encrypts the layer that goes on top; gives its `diff_id` as well.
    async fn seal_mark(&self) -> Result<Option<(Digest, Descriptor)>, Failure> {
        let Some(tar) = &self.plan.mark else { return Ok(None) };
        let diff_id = Digest::of(tar);
        let sealed = layer::seal_small(tar.clone(), diff_id, self.plan.publication.destination).await?;
        let media_type = ocicrypt::media_type::encrypted(image_store::media_type::OCI_LAYER)
            .or_fail(ExitCode::Other, || "a plain layer cannot be encrypted".to_owned())?;
        Ok(Some((diff_id, self.wrapped(media_type, &sealed)?)))
    }

    /// A sealed layer with its key wrapped for everyone who may open it.
    fn wrapped(&self, media_type: String, sealed: &layer::Sealed) -> Result<Descriptor, Failure> {
        let mut descriptor = Descriptor::new(media_type, sealed.digest, sealed.size);
        descriptor.annotations = ocicrypt::layer::LayerAnnotations::new(sealed.public, &sealed.private)
            .with_kek(&self.kid, &self.kek)
            .and_then(|annotations| annotations.with_recipients(&self.plan.recipients))
            .and_then(ocicrypt::layer::LayerAnnotations::build)
            .or_fail(ExitCode::Other, || format!("cannot wrap the key of the layer {}", sealed.digest))?;
        Ok(descriptor)
    }
}

/// The largest image config that is read, in bytes.
pub(crate) const CONFIG_MAX: usize = 4 * 1024 * 1024;

/// Reads a manifest or index.
pub(crate) fn parse(raw: &RawManifest) -> Result<Document, Failure> {
    raw.parse().or_fail(ExitCode::BadInput, || format!("the manifest {} cannot be used", raw.digest))
}

/// How many layers are carried at a time: one a core, and more, so that the last ones do not leave cores idle and a network is not
/// waited for. Each takes about 2 MiB.
fn layers_at_once() -> usize {
    std::thread::available_parallelism().map_or(LAYERS_LEAST, |cores| cores.get().clamp(LAYERS_LEAST, LAYERS_MOST))
}

const LAYERS_LEAST: usize = 8;
/// Within 64 MiB.
const LAYERS_MOST: usize = 16;

/// The last look before a manifest is written: where encryption was asked for, nothing is plain.
fn refuse_plain(manifest: &Manifest, wanted: &BTreeSet<usize>) -> Result<(), Failure> {
    for (position, layer) in manifest.layers.iter().enumerate() {
        if wanted.contains(&position) && !ocicrypt::media_type::is_encrypted(&layer.media_type) {
            return Err(Failure::other(format!("layer {position} would have stayed plain; nothing was published")));
        }
    }
    Ok(())
}
