//! Packing: every layer encrypted in one pass, the key registered with the manifests it may open, all of it signed.
//!
//! Order matters: blobs, platform manifests, key registration, signatures, and only then the name that people pull. An
//! interrupted pack leaves blobs that nothing names; a rerun makes new ones.

mod finish;
mod layer;
mod selection;
mod signature;
mod survey;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use attestation_service::api::{NewImageKey, SealedManifest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{ByteProgress, ExitCode, Failure, FailureContext as _, store_failure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use image_store::{Descriptor, Digest, Document, Index, Manifest, Place, Platform, RawManifest, Store, media_type};
use jose::jwe::Recipient;
use jose::signing::SigningKey;
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::packet::Kid;
use release_protocol::{ProductName, ResourcePath};
use zeroize::Zeroizing;

pub(crate) use finish::SealedImage;
pub(crate) use selection::{LayerSelection, platform_name};
pub(crate) use signature::{check_signatures, docker_reference, sign};
pub(crate) use survey::Survey;
use survey::SurveyedImage;

/// The manifest annotation that names the product.
pub(crate) const PRODUCT_ANNOTATION: &str = "io.sealift.product";
/// The manifest annotation that names the image's version.
pub(crate) const VERSION_ANNOTATION: &str = "io.sealift.version";

/// What is to be packed and how.
pub(crate) struct PackPlan<'a> {
    pub(crate) source: &'a Store,
    pub(crate) destination: &'a Store,
    pub(crate) product: ProductName,
    pub(crate) version: Option<String>,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) signer: SigningKey,
    /// `HOST:PORT` of the service, for the key's id.
    pub(crate) key_authority: String,
    /// The name that the signature is for.
    pub(crate) docker_reference: String,
}

/// What was packed, ready to be registered and published.
pub(crate) struct Packed {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<SealedManifest>,
    pub(crate) sealed_layers: usize,
    pub(crate) plain_layers: usize,
    /// Plain bytes that were encrypted.
    pub(crate) sealed_bytes: u64,
    bytes: bytes::Bytes,
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
    plain_layers: usize,
    sealed_bytes: u64,
}

impl<'a> Packer<'a> {
    /// A packer with a fresh key-encryption key.
    pub(crate) fn new(plan: PackPlan<'a>, progress: ByteProgress) -> Result<Self, Failure> {
        let key_id = uuid::Uuid::now_v7().to_string();
        let path = [plan.product.as_str(), ResourcePath::IMAGE_KEY, &key_id];
        let kid = Kid::new(&plan.key_authority, path)
            .or_fail(ExitCode::BadInput, || "cannot name the image key".to_owned())?;
        let kek = KeyEncryptionKey::generate().or_fail(ExitCode::Other, || "cannot make a key".to_owned())?;
        Ok(Self { plan, key_id, kid, kek, progress, sealed: HashMap::new(), plain_layers: 0, sealed_bytes: 0 })
    }

    /// Encrypts and writes all layers and platform manifests. Nothing is registered, signed or named yet.
    pub(crate) async fn pack(&mut self, survey: Survey) -> Result<Packed, Failure> {
        let mut manifests = Vec::new();
        let mut entries = Vec::new();
        let mut last = bytes::Bytes::new();
        for SurveyedImage { entry, platform, manifest, wanted } in survey.images {
            last = self.pack_manifest(manifest, &wanted).await?;
            manifests.push(SealedManifest { digest: Digest::of(&last).to_string(), platform });
            if survey.index.is_some() {
                entries.push(self.put_platform(&last, entry).await?);
            }
        }
        let (bytes, media_type) = match survey.index {
            None => (last, media_type::OCI_MANIFEST),
            Some(index) => (self.finish_index(index, entries)?, media_type::OCI_INDEX),
        };
        Ok(Packed {
            digest: Digest::of(&bytes),
            media_type: media_type.to_owned(),
            manifests,
            sealed_layers: self.sealed.len(),
            plain_layers: self.plain_layers,
            sealed_bytes: self.sealed_bytes,
            bytes,
        })
    }

    /// What to register with the service before anything is published.
    pub(crate) fn registration(&self, packed: &Packed) -> NewImageKey {
        NewImageKey {
            id: self.key_id.clone(),
            kek: Zeroizing::new(STANDARD.encode(self.kek.expose())),
            image: self.plan.docker_reference.clone(),
            manifests: packed.manifests.clone(),
        }
    }

    /// The key's id as layers carry it.
    pub(crate) fn kid(&self) -> &Kid {
        &self.kid
    }

    /// Signs every manifest and gives the image its name.
    pub(crate) async fn publish(&self, packed: &Packed) -> Result<(), Failure> {
        let mut digests: Vec<String> = packed.manifests.iter().map(|manifest| manifest.digest.clone()).collect();
        if !digests.contains(&packed.digest.to_string()) {
            digests.push(packed.digest.to_string());
        }
        let destination = self.plan.destination;
        for digest in &digests {
            signature::sign(destination, digest, &self.plan.docker_reference, &self.plan.signer).await?;
        }
        destination
            .put_image(packed.bytes.clone(), &packed.media_type)
            .await
            .map_err(|error| store_failure(format!("cannot write `{}`", destination.reference()), &error))?;
        destination
            .commit()
            .await
            .map_err(|error| store_failure(format!("cannot finish `{}`", destination.reference()), &error))
    }

    /// Writes a platform's manifest by its digest, for an index to name.
    async fn put_platform(&self, bytes: &bytes::Bytes, platform: Option<Platform>) -> Result<Descriptor, Failure> {
        let destination = self.plan.destination;
        destination
            .put_manifest(bytes.clone(), media_type::OCI_MANIFEST, Place::Digest)
            .await
            .map_err(|error| store_failure("cannot write a platform's manifest", &error))?;
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, bytes);
        descriptor.platform = platform;
        Ok(descriptor)
    }

    fn finish_index(&self, mut index: Index, entries: Vec<Descriptor>) -> Result<bytes::Bytes, Failure> {
        index.manifests = entries;
        index.media_type = Some(media_type::OCI_INDEX.to_owned());
        self.annotate(&mut index.annotations);
        index.to_bytes().or_fail(ExitCode::Other, || "cannot write the index".to_owned())
    }

    async fn pack_manifest(
        &mut self,
        mut manifest: Manifest,
        wanted: &BTreeSet<usize>,
    ) -> Result<bytes::Bytes, Failure> {
        let (source, destination) = (self.plan.source, self.plan.destination);
        destination
            .copy_blob(source, &manifest.config)
            .await
            .map_err(|error| store_failure("cannot copy the image's config", &error))?;
        if manifest.config.media_type == "application/vnd.docker.container.image.v1+json" {
            media_type::OCI_CONFIG.clone_into(&mut manifest.config.media_type);
        }
        self.carry_layers(&mut manifest.layers, wanted).await?;
        manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
        self.annotate(&mut manifest.annotations);
        refuse_plain(&manifest, wanted)?;
        manifest.to_bytes().or_fail(ExitCode::Other, || "cannot write the manifest".to_owned())
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
        let copied = self.plan.destination.copy_blob(self.plan.source, &layer).await;
        copied.map_err(|error| store_failure(format!("cannot copy the layer {}", layer.digest), &error))?;
        self.progress.add(layer.size);
        Ok(None)
    }

    async fn seal_layer(&self, plain: &Descriptor, position: usize, alone: bool) -> Result<Descriptor, Failure> {
        let media_type = ocicrypt::media_type::encrypted(&plain.media_type)
            .or_fail(ExitCode::BadInput, || format!("layer {position} ({}) cannot be encrypted", plain.digest))?;
        let sealed = layer::seal(self.plan.source, self.plan.destination, plain, alone, &self.progress).await?;
        let annotations = ocicrypt::layer::LayerAnnotations::new(sealed.public, &sealed.private)
            .with_kek(&self.kid, &self.kek)
            .and_then(|annotations| annotations.with_recipients(&self.plan.recipients))
            .and_then(ocicrypt::layer::LayerAnnotations::build)
            .or_fail(ExitCode::Other, || format!("cannot wrap the key of layer {position}"))?;
        let mut descriptor = Descriptor::new(media_type, sealed.digest, sealed.size);
        descriptor.annotations = plain.annotations.clone();
        descriptor.annotations.extend(annotations);
        Ok(descriptor)
    }

    fn annotate(&self, annotations: &mut BTreeMap<String, String>) {
        annotations.insert(PRODUCT_ANNOTATION.to_owned(), self.plan.product.to_string());
        if let Some(version) = &self.plan.version {
            annotations.insert(VERSION_ANNOTATION.to_owned(), version.clone());
        }
    }
}

/// The largest image config that is read, in bytes.
pub(crate) const CONFIG_MAX: usize = 4 * 1024 * 1024;

/// Reads a manifest or index.
pub(crate) fn parse(raw: &RawManifest) -> Result<Document, Failure> {
    raw.parse().or_fail(ExitCode::BadInput, || format!("the manifest {} cannot be used", raw.digest))
}

/// How many layers are carried at a time: one a core, and a few where a network is waited for. Each takes about 2 MiB.
fn layers_at_once() -> usize {
    std::thread::available_parallelism().map_or(LAYERS_LEAST, |cores| cores.get().clamp(LAYERS_LEAST, LAYERS_MOST))
}

const LAYERS_LEAST: usize = 4;
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
