//! An image that another tool sealed: which of our keys its layers name, and for which manifests. Nothing is written here.

use std::collections::BTreeMap;

use attestation_service::api::SealedManifest;
use command_line::{Failure, store_failure};
use image_store::{Descriptor, Digest, Document, Manifest, Store};
use ocicrypt::layer::SealedLayer;
use ocicrypt::packet::Kid;
use release_protocol::{ProductName, ResourcePath};

use super::survey::platform_of;
use super::{LayerSelection, parse, platform_name};

/// A sealed image, read and found complete.
pub(crate) struct SealedImage {
    /// Of the manifest or index that the reference names.
    pub(crate) digest: Digest,
    pub(crate) manifests: Vec<SealedManifest>,
    /// Id of a key → the manifests whose layers it opens.
    pub(crate) keys: BTreeMap<String, Vec<SealedManifest>>,
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
    ) -> Result<Self, Failure> {
        let raw = store
            .resolve()
            .await
            .map_err(|error| store_failure(format!("cannot read `{}`", store.reference()), &error))?;
        let mut image = Self { digest: raw.digest, manifests: Vec::new(), keys: BTreeMap::new() };
        let is_ours = |kid: &Kid| {
            let [of, kind, _] = kid.parts();
            kid.authority() == authority && of == product.as_str() && kind == ResourcePath::IMAGE_KEY
        };
        match parse(&raw)? {
            Document::Manifest(manifest) => {
                let platform = platform_of(store, &manifest).await?;
                image.add(raw.digest, platform, &manifest, layers, is_ours)?;
            }
            Document::Index(index) => {
                for entry in &index.manifests {
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
                    image.add(raw.digest, platform, &manifest, layers, is_ours)?;
                }
            }
        }
        if image.manifests.is_empty() {
            return Err(Failure::bad_input(format!("`{}` has an image for no platform", store.reference())));
        }
        Ok(image)
    }

    /// All that is to be signed.
    pub(crate) fn digests(&self) -> Vec<String> {
        let mut digests: Vec<String> = self.manifests.iter().map(|manifest| manifest.digest.clone()).collect();
        if !digests.contains(&self.digest.to_string()) {
            digests.push(self.digest.to_string());
        }
        digests
    }

    fn add(
        &mut self,
        digest: Digest,
        platform: String,
        manifest: &Manifest,
        layers: &LayerSelection,
        is_ours: impl Fn(&Kid) -> bool,
    ) -> Result<(), Failure> {
        let wanted = layers.resolve(manifest.layers.len())?;
        let sealed = SealedManifest { digest: digest.to_string(), platform };
        let mut found = false;
        for (position, layer) in manifest.layers.iter().enumerate() {
            let kids: Vec<Kid> = kids(layer)?.into_iter().filter(&is_ours).collect();
            if kids.is_empty() && wanted.contains(&position) {
                return Err(unsealed(position, layer, &sealed));
            }
            for kid in kids {
                let [_, _, key] = kid.parts();
                let manifests = self.keys.entry(key.to_owned()).or_default();
                if !manifests.contains(&sealed) {
                    manifests.push(sealed.clone());
                }
                found = true;
            }
        }
        if !found {
            return Err(Failure::bad_input(format!("no layer of {digest} is sealed to a key of this product")));
        }
        self.manifests.push(sealed);
        Ok(())
    }
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

fn unsealed(position: usize, layer: &Descriptor, manifest: &SealedManifest) -> Failure {
    let what = if ocicrypt::media_type::is_encrypted(&layer.media_type) {
        "sealed to no key of this product"
    } else {
        "plain"
    };
    Failure::bad_input(format!("layer {position} ({}) for {} is {what}", layer.digest, manifest.platform))
        .hint("encrypt all layers with the key provider, or name those that must be sealed by `--layers`")
}
