//! Layers that an earlier image has sealed already, found by what is in them.

use std::collections::{BTreeMap, HashMap};

use command_line::Failure;
use image_store::{Descriptor, Digest, Store};
use jose::signing::VerifyingKey;
use ocicrypt::media_type::{encrypted, is_encrypted};

use super::Survey;
use super::config::diff_ids;

/// An earlier image of ours.
pub(crate) struct Earlier {
    pub(crate) store: Store,
    /// By `diff_id` and media type.
    layers: HashMap<(Digest, String), Descriptor>,
}

impl Earlier {
    /// Reads the image, each manifest of which one of `keys` must have signed: what it says of its layers is believed.
    pub(crate) async fn read(store: Store, keys: &[VerifyingKey]) -> Result<Self, Failure> {
        let survey = Survey::of_sealed(&store, keys).await?;
        let mut layers = HashMap::new();
        for image in &survey.images {
            let diff_ids = diff_ids(&store, &image.manifest).await?;
            for (layer, diff_id) in image.manifest.layers.iter().zip(diff_ids) {
                if is_encrypted(&layer.media_type) {
                    layers.insert((diff_id, layer.media_type.clone()), layer.clone());
                }
            }
        }
        Ok(Self { store, layers })
    }

    /// Which layers of `survey` it has: digest of the plain one → the sealed one.
    pub(crate) async fn matching(
        &self,
        source: &Store,
        survey: &Survey,
    ) -> Result<BTreeMap<Digest, Descriptor>, Failure> {
        let mut found = BTreeMap::new();
        for image in &survey.images {
            let diff_ids = diff_ids(source, &image.manifest).await?;
            for (position, layer) in image.to_seal() {
                let sealed = diff_ids.get(position).zip(encrypted(&layer.media_type).ok());
                let sealed = sealed.and_then(|(diff_id, media_type)| self.layers.get(&(*diff_id, media_type)));
                found.extend(sealed.map(|sealed| (layer.digest, sealed.clone())));
            }
        }
        Ok(found)
    }
}
