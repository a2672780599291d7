//! What there is to pack: the wanted platforms' manifests and layers, known before anything is written anywhere.

use std::collections::{BTreeMap, BTreeSet};

use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_store::{Descriptor, Digest, Document, Index, Manifest, Platform, Store};
use jose::signing::VerifyingKey;
use serde_json::Value;

use super::{CONFIG_MAX, LayerSelection, parse, platform_name, require_signature};

/// An image as its source holds it, reduced to what is to be packed.
pub(crate) struct Survey {
    /// Of the manifest or index that the reference names.
    pub(super) digest: Digest,
    /// The index that the platforms stood in, without its entries; none for a single manifest.
    pub(crate) index: Option<Index>,
    /// The wanted platforms, in the source's order; at least one.
    pub(crate) images: Vec<SurveyedImage>,
}

/// One platform's image.
pub(crate) struct SurveyedImage {
    /// Of the manifest as the source has it.
    pub(super) digest: Digest,
    /// The platform as the index has it.
    pub(crate) entry: Option<Platform>,
    /// `os/architecture[/variant]`.
    pub(crate) platform: String,
    pub(crate) manifest: Manifest,
    /// The positions of the layers to encrypt.
    pub(super) wanted: BTreeSet<usize>,
}

impl Survey {
    /// Reads the source's manifests. An empty list of platforms means all.
    /// `appended` layers are to be added on top, which are picked like the others and sealed in any case.
    pub(crate) async fn of(
        source: &Store,
        layers: &LayerSelection,
        platforms: &[String],
        appended: usize,
    ) -> Result<Self, Failure> {
        let survey = Self::read(source, &layers.with_more(appended), platforms).await?;
        if appended > 0 && survey.images.len() > 1 {
            return Err(Failure::usage("a layer is appended to the image of one platform")
                .hint("pick that platform by `--platform`"));
        }
        if appended == 0 && survey.images.iter().all(|image| image.to_seal().next().is_none()) {
            return Err(Failure::bad_input("there is no layer to encrypt: all that were picked are sealed already")
                .hint("pack the plain image; a sealed one opens with the key that it was sealed to"));
        }
        Ok(survey)
    }

    /// Reads the manifests of a sealed image, each of which one of `keys` must have signed.
    pub(crate) async fn of_sealed(source: &Store, keys: &[VerifyingKey]) -> Result<Self, Failure> {
        let survey = Self::read(source, &LayerSelection::default(), &[]).await?;
        for digest in survey.digests() {
            require_signature(source, &digest, keys).await?;
        }
        Ok(survey)
    }

    /// Reads what partners have sealed between them; who signed it is not asked.
    pub(crate) async fn of_joint(source: &Store) -> Result<Self, Failure> {
        Self::read(source, &LayerSelection::default(), &[]).await
    }

    async fn read(source: &Store, layers: &LayerSelection, platforms: &[String]) -> Result<Self, Failure> {
        let raw = source
            .resolve()
            .await
            .map_err(|error| store_failure(format!("cannot read `{}`", source.reference()), &error))?;
        let digest = raw.digest;
        match parse(&raw)? {
            Document::Manifest(manifest) => {
                let platform = platform_of(source, &manifest).await?;
                if !is_wanted(platforms, &platform) {
                    return Err(no_such_platform(platforms, &[platform]));
                }
                let wanted = layers.resolve(manifest.layers.len())?;
                let image = SurveyedImage { digest, entry: None, platform, manifest, wanted };
                Ok(Self { digest, index: None, images: vec![image] })
            }
            Document::Index(index) => Self::of_index(source, digest, index, layers, platforms).await,
        }
    }

    async fn of_index(
        source: &Store,
        digest: Digest,
        mut index: Index,
        layers: &LayerSelection,
        platforms: &[String],
    ) -> Result<Self, Failure> {
        let mut images = Vec::new();
        let mut available = Vec::new();
        for entry in std::mem::take(&mut index.manifests) {
            let Some(platform) = entry.platform.as_ref().map(platform_name) else {
                // Attestations and other riders speak of the plain image; they do not fit the sealed one.
                tracing::warn!(digest = %entry.digest, "left out an index entry without a platform");
                continue;
            };
            available.push(platform.clone());
            if platform.starts_with("unknown/") || !is_wanted(platforms, &platform) {
                continue;
            }
            let raw = source.manifest(&entry.digest).await.map_err(|error| {
                store_failure(format!("cannot read the manifest {} for {platform}", entry.digest), &error)
            })?;
            let Document::Manifest(manifest) = parse(&raw)? else {
                return Err(Failure::bad_input(format!("{} is an index inside an index", entry.digest)));
            };
            let wanted = layers.resolve(manifest.layers.len())?;
            images.push(SurveyedImage { digest: raw.digest, entry: entry.platform, platform, manifest, wanted });
        }
        if images.is_empty() {
            return Err(no_such_platform(platforms, &available));
        }
        Ok(Self { digest, index: Some(index), images })
    }

    /// What the reference names.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// All manifests of the image, and its index where it has one.
    pub(crate) fn digests(&self) -> BTreeSet<String> {
        self.images.iter().map(|image| image.digest).chain([self.digest]).map(|digest| digest.to_string()).collect()
    }

    /// The bytes of all layers, those that platforms share counted once.
    pub(crate) fn bytes(&self) -> u64 {
        let layers = self.images.iter().flat_map(|image| &image.manifest.layers);
        let sizes: BTreeMap<String, u64> = layers.map(|layer| (layer.digest.to_string(), layer.size)).collect();
        sizes.values().fold(0, |sum, size| sum.saturating_add(*size))
    }
}

impl SurveyedImage {
    /// The layers that are to be sealed and are not yet, by their position.
    pub(super) fn to_seal(&self) -> impl Iterator<Item = (usize, &Descriptor)> {
        let layers = self.manifest.layers.iter().enumerate();
        layers.filter(|(position, layer)| {
            self.wanted.contains(position) && !ocicrypt::media_type::is_encrypted(&layer.media_type)
        })
    }
}

/// The platform that the image's config names.
pub(super) async fn platform_of(source: &Store, manifest: &Manifest) -> Result<String, Failure> {
    let config = source
        .small_blob(&manifest.config, CONFIG_MAX)
        .await
        .map_err(|error| store_failure("cannot read the image's config", &error))?;
    let config: Value =
        serde_json::from_slice(&config).or_fail(ExitCode::BadInput, || "the image's config is not JSON".to_owned())?;
    let platform: Platform = serde_json::from_value(config)
        .or_fail(ExitCode::BadInput, || "the image's config names no platform".to_owned())?;
    Ok(platform_name(&platform))
}

fn is_wanted(platforms: &[String], platform: &str) -> bool {
    platforms.is_empty() || platforms.iter().any(|wanted| wanted == platform)
}

fn no_such_platform(wanted: &[String], available: &[String]) -> Failure {
    let wanted = if wanted.is_empty() { "any platform".to_owned() } else { wanted.join(", ") };
    Failure::bad_input(format!("the image has no manifest for {wanted}"))
        .hint(format!("it has: {}", if available.is_empty() { "none".to_owned() } else { available.join(", ") }))
}
