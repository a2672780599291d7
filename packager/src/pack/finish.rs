//! An image that another tool sealed: which of our keys its layers name, for which manifests, and how those manifests must
//! read so that every guest finds the keys. Nothing is read or written of layers.

use std::collections::BTreeMap;

use attestation_service::api::SealedManifest;
use bytes::Bytes;
use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{Descriptor, Digest, Document, Index, Manifest, Place, RawManifest, Store};
use ocicrypt::layer::{SealedLayer, move_packets_for_guests};
use ocicrypt::packet::Kid;
use release_protocol::ProductName;

use super::rewrap::is_key_of;
use super::survey::platform_of;
use super::{LayerSelection, SbomDocument, parse, platform_name};

/// A sealed image, read and found complete.
pub(crate) struct SealedImage {
    /// Of the manifest or index that the reference names.
    read: Digest,
    /// Of what takes its place; the same where nothing was to be rewritten.
    pub(crate) digest: Digest,
    pub(crate) manifests: Vec<SealedManifest>,
    /// Id of a key → the manifests whose layers it opens.
    pub(crate) keys: BTreeMap<String, Vec<SealedManifest>>,
    /// Manifests that attach the bill of materials.
    attachments: Vec<Manifest>,
    /// Manifests whose key packets stood where only we look for them, rewritten; the image's own is the last.
    rewritten: Vec<RawManifest>,
}

/// What is looked for in each manifest, and attached to it.
struct Wanted<'a> {
    layers: &'a LayerSelection,
    is_ours: &'a dyn Fn(&Kid) -> bool,
    sbom: Option<&'a SbomDocument>,
}

impl SealedImage {
    /// Reads the image's manifests.
    ///
    /// # Errors
    /// Where a layer of `layers` is plain, or sealed to no key of `product` at the service `authority`: that image would
    /// be given away, or start nowhere.
    pub(crate) async fn read(
        store: &Store,
        product: &ProductName,
        authority: &str,
        layers: &LayerSelection,
        sbom: Option<&SbomDocument>,
    ) -> Result<Self, Failure> {
        let raw = store
            .resolve()
            .await
            .map_err(|error| store_failure(format!("cannot read `{}`", store.reference()), &error))?;
        let (manifests, rewritten, attachments) = (Vec::new(), Vec::new(), Vec::new());
        let keys = BTreeMap::new();
        let mut image = Self { read: raw.digest, digest: raw.digest, manifests, keys, attachments, rewritten };
        let is_ours = |kid: &Kid| is_key_of(kid, product, authority);
        let wanted = Wanted { layers, is_ours: &is_ours, sbom };
        match parse(&raw)? {
            Document::Manifest(manifest) => {
                let platform = platform_of(store, &manifest).await?;
                image.digest = image.add(&raw, platform, manifest, &wanted)?.digest;
            }
            Document::Index(index) => image.add_all(store, &raw, index, &wanted).await?,
        }
        if image.manifests.is_empty() {
            return Err(Failure::bad_input(format!("`{}` has an image for no platform", store.reference())));
        }
        Ok(image)
    }

    async fn add_all(
        &mut self,
        store: &Store,
        raw: &RawManifest,
        mut index: Index,
        wanted: &Wanted<'_>,
    ) -> Result<(), Failure> {
        for entry in &mut index.manifests {
            let platform = entry.platform.as_ref().map(platform_name);
            let Some(platform) = platform.filter(|platform| !platform.starts_with("unknown/")) else {
                tracing::warn!(digest = %entry.digest, "did not sign an index entry without a platform");
                continue;
            };
            let raw = store.manifest(&entry.digest).await.map_err(|error| {
                store_failure(format!("cannot read the manifest {} for {platform}", entry.digest), &error)
            })?;
            let Document::Manifest(manifest) = parse(&raw)? else {
                return Err(Failure::bad_input(format!("{} is an index inside an index", entry.digest)));
            };
            let finished = self.add(&raw, platform, manifest, wanted)?;
            (entry.digest, entry.size) = (finished.digest, finished.size);
        }
        if !self.rewritten.is_empty() {
            let bytes = index.to_bytes().or_fail(ExitCode::Other, || "cannot write the index".to_owned())?;
            self.digest = self.rewrite(bytes, &raw.media_type)?.digest;
        }
        Ok(())
    }

    /// Whether manifests have to be written for the image to be finished.
    pub(crate) fn is_rewritten(&self) -> bool {
        !self.rewritten.is_empty()
    }

    /// Writes the manifests that an index names, before it is.
    pub(crate) async fn write_nested(&self, store: &Store) -> Result<(), Failure> {
        let Some((_, nested)) = self.rewritten.split_last() else { return Ok(()) };
        for raw in nested {
            write(store, raw, Place::Nested).await?;
        }
        Ok(())
    }

    /// Writes the image's own manifest, and moves its tag there if it is still where the image was read.
    pub(crate) async fn write_named(&self, store: &Store) -> Result<(), Failure> {
        let Some(raw) = self.rewritten.last() else { return Ok(()) };
        let place = match store.reference().tag() {
            Some(tag) if self.is_at(store, tag).await? => Place::Tag(tag.to_owned()),
            _ => Place::Digest,
        };
        write(store, raw, place).await
    }

    async fn is_at(&self, store: &Store, tag: &str) -> Result<bool, Failure> {
        match store.manifest_by_tag(tag).await {
            Ok(raw) => Ok(raw.digest == self.read),
            Err(image_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(store_failure(format!("cannot read what `{tag}` names"), &error)),
        }
    }

    /// The manifests that attach the bill of materials.
    pub(crate) fn attachments(&self) -> &[Manifest] {
        &self.attachments
    }

    /// All that is to be signed.
    pub(crate) fn digests(&self) -> Vec<String> {
        let mut digests: Vec<String> = self.manifests.iter().map(|manifest| manifest.digest.clone()).collect();
        if !digests.contains(&self.digest.to_string()) {
            digests.push(self.digest.to_string());
        }
        digests
    }

    /// Takes in one platform's manifest; gives what to sign in its place.
    fn add(
        &mut self,
        raw: &RawManifest,
        platform: String,
        mut manifest: Manifest,
        Wanted { layers, is_ours, sbom }: &Wanted<'_>,
    ) -> Result<Descriptor, Failure> {
        let wanted = layers.resolve(manifest.layers.len())?;
        let mut keys = Vec::new();
        let mut moved = false;
        for (position, layer) in manifest.layers.iter_mut().enumerate() {
            let kids: Vec<Kid> = kids(layer)?.into_iter().filter(is_ours).collect();
            if kids.is_empty() && wanted.contains(&position) {
                return Err(unsealed(position, layer, &platform));
            }
            moved |= !kids.is_empty() && move_packets_for_guests(&mut layer.annotations);
            keys.extend(kids);
        }
        if keys.is_empty() {
            return Err(Failure::bad_input(format!("no layer of {} is sealed to a key of this product", raw.digest)));
        }
        let finished = if moved {
            let bytes = manifest.to_bytes().or_fail(ExitCode::Other, || "cannot write the manifest".to_owned())?;
            self.rewrite(bytes, &raw.media_type)?
        } else {
            raw.descriptor()
        };
        let mut sealed = SealedManifest { digest: finished.digest.to_string(), platform, sbom: None };
        if let Some(sbom) = sbom {
            let attachment = sbom.attached_to(finished.clone());
            sealed.sbom = Some(sbom.registration(&attachment)?);
            self.attachments.push(attachment);
        }
        for kid in keys {
            let [_, _, key] = kid.parts();
            let manifests = self.keys.entry(key.to_owned()).or_default();
            if !manifests.contains(&sealed) {
                manifests.push(sealed.clone());
            }
        }
        self.manifests.push(sealed);
        Ok(finished)
    }

    fn rewrite(&mut self, bytes: Bytes, media_type: &str) -> Result<Descriptor, Failure> {
        let raw = RawManifest::new(bytes, Some(media_type))
            .or_fail(ExitCode::Other, || "cannot write the manifest".to_owned())?;
        let descriptor = raw.descriptor();
        self.rewritten.push(raw);
        Ok(descriptor)
    }
}

async fn write(store: &Store, raw: &RawManifest, place: Place) -> Result<(), Failure> {
    let written = store.put_manifest(raw.bytes.clone(), &raw.media_type, place).await;
    written.map(drop).map_err(|error| store_failure(format!("cannot write the manifest {}", raw.digest), &error))
}

/// The keys that a layer names; none for a plain one.
fn kids(layer: &Descriptor) -> Result<Vec<Kid>, Failure> {
    if !ocicrypt::media_type::is_encrypted(&layer.media_type) {
        return Ok(Vec::new());
    }
    let sealed = SealedLayer::parse(&layer.annotations).map_err(|error| {
        Failure::bad_input(format!("the layer {} cannot be opened by anyone", layer.digest)).caused_by(&error)
    })?;
    Ok(sealed.kids().cloned().collect())
}

fn unsealed(position: usize, layer: &Descriptor, platform: &str) -> Failure {
    let what = if ocicrypt::media_type::is_encrypted(&layer.media_type) {
        "sealed to no key of this product"
    } else {
        "plain"
    };
    Failure::bad_input(format!("layer {position} ({}) for {platform} is {what}", layer.digest))
        .hint("encrypt all layers with the key provider, or name those that must be sealed by `--layers`")
}
