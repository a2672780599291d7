//! An image that several partners have sealed, as one of them sees it before it signs: which layers are its own, what the
//! others' may do, and whether all that it handed on is still there. Nothing is read or written of layers.

use std::collections::{BTreeMap, BTreeSet};

use attestation_service::api::SealedManifest;
use command_line::{ExitCode, Failure, FailureContext as _};
use image_store::{Descriptor, Digest, Manifest, Store};
use ocicrypt::layer::SealedLayer;
use ocicrypt::media_type::is_encrypted;
use ocicrypt::packet::Kid;
use release_protocol::{CONFINED_ANNOTATION, Confinement, ProductName};

use super::rewrap::is_key_of;
use super::survey::SurveyedImage;
use super::{LayerSelection, Survey, config};

/// See the module's text.
pub(crate) struct JointImage {
    pub(crate) digest: Digest,
    pub(crate) manifests: Vec<SealedManifest>,
    /// Id of an own key → the manifests whose layers it opens.
    pub(crate) keys: BTreeMap<String, Vec<SealedManifest>>,
    /// The others' services, `HOST[:PORT]/PRODUCT`.
    pub(crate) others: BTreeSet<String>,
    /// Positions of layers that nobody has sealed: everybody can read them, and has to before signing.
    pub(crate) plain: BTreeSet<usize>,
}

/// Directories that layers are confined to, and whose layers.
type Confined = Vec<(BTreeSet<String>, Confinement)>;

/// Who is looking.
pub(crate) struct Looking<'a> {
    pub(crate) product: &'a ProductName,
    /// `HOST[:PORT]` of its service.
    pub(crate) authority: &'a str,
    /// Its own layers, where it names them.
    pub(crate) layers: &'a LayerSelection,
    /// The image as it was handed on.
    pub(crate) extends: Option<&'a Store>,
}

impl JointImage {
    /// Reads the image's manifests.
    ///
    /// # Errors
    /// Where the partner's own layers are not exactly those that are sealed to its keys, where others' layers could change
    /// what is not theirs, or where something that the partner handed on is gone or changed.
    pub(crate) async fn read(store: &Store, looking: &Looking<'_>) -> Result<Self, Failure> {
        let survey = Survey::of_joint(store).await?;
        let before = match looking.extends {
            Some(before) => Some((before, Survey::of_joint(before).await?)),
            None => None,
        };
        let mut image = Self {
            digest: survey.digest,
            manifests: Vec::new(),
            keys: BTreeMap::new(),
            others: BTreeSet::new(),
            plain: BTreeSet::new(),
        };
        for surveyed in &survey.images {
            if let Some((handed_on, before)) = &before {
                check_extends(handed_on, before, store, surveyed).await?;
            }
            image.add(surveyed, looking)?;
        }
        Ok(image)
    }

    /// All that is to be signed.
    pub(crate) fn digests(&self) -> BTreeSet<String> {
        self.manifests.iter().map(|manifest| manifest.digest.clone()).chain([self.digest.to_string()]).collect()
    }

    fn add(&mut self, image: &SurveyedImage, looking: &Looking<'_>) -> Result<(), Failure> {
        let SurveyedImage { digest, platform, manifest, .. } = image;
        let sealed = SealedManifest { digest: digest.to_string(), platform: platform.clone(), sbom: None };
        let named = looking.layers.resolve(manifest.layers.len())?;
        let (mut has_own, mut confined) = (false, Confined::new());
        for (position, layer) in manifest.layers.iter().enumerate() {
            let what = format!("layer {position} ({}) for {platform}", layer.digest);
            let is_named = !looking.layers.is_all() && named.contains(&position);
            if !is_encrypted(&layer.media_type) {
                if is_named {
                    return Err(Failure::bad_input(format!("{what} is plain")));
                }
                self.plain.insert(position);
                continue;
            }
            let kids = kids(layer)?;
            let owners: BTreeSet<String> = kids.iter().map(owner).collect();
            let is_own = |kid: &Kid| is_key_of(kid, looking.product, looking.authority);
            let is_mine = kids.iter().any(is_own);
            check_confinement(layer, &what, &owners, is_mine, &mut confined)?;
            if !is_mine && is_named {
                return Err(Failure::verification(format!("{what} is sealed to no key of {}", looking.product)));
            }
            if !is_mine {
                self.others.extend(owners);
                continue;
            }
            if !kids.iter().all(is_own) {
                return Err(Failure::verification(format!("{what} is one's own and sealed to keys of others as well")));
            }
            if !named.contains(&position) {
                return Err(Failure::verification(format!(
                    "{what} is sealed to a key of one's own, and was not named"
                ))
                .hint("name all of one's own layers by `--layers`, or none"));
            }
            has_own = true;
            self.open_by(&kids, &sealed);
        }
        if !has_own {
            let (product, authority) = (looking.product, looking.authority);
            return Err(Failure::verification(format!(
                "no layer of {digest} is sealed to a key of {product} at {authority}"
            ))
            .hint("`sealift inspect` shows what it is sealed to"));
        }
        self.manifests.push(sealed);
        Ok(())
    }

    /// Notes that these keys open the manifest.
    fn open_by(&mut self, kids: &[Kid], sealed: &SealedManifest) {
        for kid in kids {
            let [_, _, key] = kid.parts();
            let manifests = self.keys.entry(key.to_owned()).or_default();
            if !manifests.contains(sealed) {
                manifests.push(sealed.clone());
            }
        }
    }
}

/// Whether a sealed layer cannot reach what is others': those who sign cannot read it.
fn check_confinement(
    layer: &Descriptor,
    what: &str,
    owners: &BTreeSet<String>,
    is_mine: bool,
    confined: &mut Confined,
) -> Result<(), Failure> {
    match confinement(layer, what)? {
        Some(directory) => {
            if confined.iter().any(|(of, other)| of != owners && directory.overlaps(other)) {
                return Err(Failure::verification(format!(
                    "{what} is confined to {directory}, where another partner puts its files"
                )));
            }
            confined.push((owners.clone(), directory));
            Ok(())
        }
        None if is_mine => Ok(()),
        None => Err(Failure::verification(format!("{what} is sealed by somebody else and confined to no directory"))
            .cause("what is in it cannot be read, and could change the code and the files of everybody")
            .hint("have its partner append it with `--confine DIR`")),
    }
}

/// Whose key it is: the service and the product.
fn owner(kid: &Kid) -> String {
    let [product, ..] = kid.parts();
    format!("{}/{product}", kid.authority())
}

/// Whether the image is what was handed on, with nothing but layers on top of it.
async fn check_extends(
    handed_on: &Store,
    before: &Survey,
    store: &Store,
    image: &SurveyedImage,
) -> Result<(), Failure> {
    let changed = |what: &str| {
        Failure::verification(format!("{} is not `{}` with layers on top: {what}", image.digest, handed_on.reference()))
            .hint("have the others say what they changed, and hand the image on again")
    };
    let earlier = before.images.iter().find(|earlier| earlier.platform == image.platform);
    let earlier = earlier.ok_or_else(|| changed(&format!("it has no image for {}", image.platform)))?;
    if let Some(position) = first_difference(&earlier.manifest, &image.manifest) {
        return Err(changed(&format!("layer {position} is another one")));
    }
    if !config::is_continued((handed_on, &earlier.manifest), (store, &image.manifest)).await? {
        return Err(changed("its config says something else (command, environment, history)"));
    }
    Ok(())
}

/// The first layer of the earlier image that the later one does not have in its place.
fn first_difference(earlier: &Manifest, later: &Manifest) -> Option<usize> {
    let is_same = |(position, layer): (usize, &Descriptor)| {
        later.layers.get(position).is_some_and(|found| {
            (&found.digest, found.size, &found.media_type, &found.annotations)
                == (&layer.digest, layer.size, &layer.media_type, &layer.annotations)
        })
    };
    earlier.layers.iter().enumerate().position(|entry| !is_same(entry))
}

fn confinement(layer: &Descriptor, what: &str) -> Result<Option<Confinement>, Failure> {
    let Some(text) = layer.annotations.get(CONFINED_ANNOTATION) else { return Ok(None) };
    text.parse().map(Some).or_fail(ExitCode::BadInput, || format!("{what} is confined to `{text}`"))
}

fn kids(layer: &Descriptor) -> Result<Vec<Kid>, Failure> {
    let unusable = || format!("the layer {} cannot be opened by anyone", layer.digest);
    let sealed = SealedLayer::parse(&layer.annotations).or_fail(ExitCode::BadInput, unusable)?;
    let kids: Vec<Kid> = sealed.kids().cloned().collect();
    if kids.is_empty() {
        return Err(Failure::bad_input(format!("no service's key opens the layer {}", layer.digest))
            .hint("each partner seals its layers by `sealift pack --joint`"));
    }
    Ok(kids)
}
