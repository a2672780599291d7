//! The sealed image as far as it can be known before anything is released: manifest, signers, config, wrapped keys.
//! No layer is requested here.

use std::collections::{BTreeMap, BTreeSet};

use command_line::{ExitCode, Failure, FailureContext as _, store_failure};
use image_signature::{LookupError, Signatures, find_signers};
use image_store::{Descriptor, Document, Index, Manifest, Platform, RawManifest, Store};
use jose::signing::VerifyingKey;
use oci_spec::image::ImageConfiguration;
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::layer::SealedLayer;
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::Kid;
use release_protocol::{CONFINED_ANNOTATION, Confinement, ResourcePath, Workload};

/// The largest image config that is read, in bytes.
const CONFIG_MAX: usize = 4 * 1024 * 1024;

/// One layer: its blob, the digest of its plain tar, and how it is sealed, where it is.
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: String,
    pub(crate) sealed: Option<SealedLayer>,
    /// The directory that everything in it has to be in, where the manifest confines it to one.
    pub(crate) confinement: Option<Confinement>,
}

/// What was verified of a layer.
#[derive(Debug, serde::Serialize)]
pub(crate) struct VerifiedLayer {
    digest: String,
    diff_id: String,
    bytes: u64,
    plain_bytes: u64,
    sealed: bool,
    verified: &'static [&'static str],
}

impl std::fmt::Display for VerifiedLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = if self.sealed { "" } else { "  PLAIN" };
        let checks = self.verified.join(", ");
        write!(f, "layer    {}  {checks}  {} bytes, {} of tar{plain}", self.digest, self.bytes, self.plain_bytes)
    }
}

/// An image whose manifest one of the vendor's keys signed.
pub(crate) struct SignedImage {
    pub(crate) manifest_digest: String,
    /// Thumbprints of the keys that signed.
    pub(crate) signers: Vec<String>,
    pub(crate) config: ImageConfiguration,
    pub(crate) layers: Vec<Layer>,
}

impl SignedImage {
    /// Fetches manifest, signatures and config, and checks everything that needs no key.
    pub(crate) async fn open(store: &Store, keys: &[VerifyingKey], platform: Option<&str>) -> Result<Self, Failure> {
        let raw = platform_manifest(store, platform).await?;
        let Document::Manifest(manifest) = parse(&raw)? else {
            return Err(Failure::bad_input(format!("{} is an index inside an index", raw.digest)));
        };
        let manifest_digest = raw.digest.to_string();
        let signers = signers(store, &manifest_digest, keys).await?;
        let config = config(store, &manifest).await?;
        let layers = layers(&manifest, &config)?;
        Ok(Self { manifest_digest, signers, config, layers })
    }

    /// The keys that open its layers, each once, where all are of one product.
    pub(crate) fn key_paths(&self) -> Result<Vec<ResourcePath>, Failure> {
        let mut paths = BTreeMap::new();
        for layer in &self.layers {
            for kid in layer.kids()? {
                let path = key_path(kid)?;
                paths.insert(path.to_string(), path);
            }
        }
        let Some(first) = paths.values().next() else { return Err(no_sealed_layer()) };
        if paths.values().any(|path| path.product != first.product) {
            let failure = Failure::denied("one licence does not open an image that several partners have sealed");
            return Err(self.of_several(failure));
        }
        Ok(paths.into_values().collect())
    }

    /// Refuses an image whose layers are sealed to several services: one partner's lease must not start what others have a
    /// say in.
    pub(crate) fn demand_one_service(&self) -> Result<(), Failure> {
        if self.services().len() < 2 {
            return Ok(());
        }
        let message = "the agent opens images of one partner only, and several have sealed this one";
        Err(self.of_several(Failure::denied(message)))
    }

    /// The services that its layers are sealed to, `HOST[:PORT]/PRODUCT`, each once.
    fn services(&self) -> BTreeSet<String> {
        let kids = self.layers.iter().flat_map(|layer| layer.kids().unwrap_or_default());
        kids.map(|kid| format!("{}/{}", kid.authority(), kid.parts()[0])).collect()
    }

    /// A failure of opening it by one licence, with what may be behind it: that one does not suffice.
    pub(crate) fn of_several(&self, failure: Failure) -> Failure {
        let services = self.services();
        if services.len() < 2 {
            return failure;
        }
        let services: Vec<String> = services.into_iter().collect();
        failure.cause(format!("its layers are sealed to {}", services.join(", "))).hint(
            "give `sealift-shim run` or `unpack` a licence of each partner, `--license` once for each; agent and key \
             provider open images of one partner only",
        )
    }

    /// Opens the wrapped keys of all sealed layers, before any layer is requested.
    pub(crate) fn unwrap(&self, keks: &[KeyEncryptionKey]) -> Result<Vec<Option<PrivateOptions>>, Failure> {
        self.layers
            .iter()
            .map(|layer| layer.sealed.as_ref().map(|sealed| open(layer, sealed, keks)).transpose())
            .collect()
    }

    /// The same, with each layer opened by a key that it names and by no other: what says that it is sealed to one partner's
    /// key is not opened by another's.
    pub(crate) fn unwrap_by_name<'k>(
        &self,
        find: impl Fn(&Kid) -> Option<&'k KeyEncryptionKey>,
    ) -> Result<Vec<Option<PrivateOptions>>, Failure> {
        let named = |layer: &Layer, sealed: &SealedLayer| {
            let keks: Vec<_> = layer.kids()?.into_iter().filter_map(&find).collect();
            open(layer, sealed, keks)
        };
        self.layers.iter().map(|layer| layer.sealed.as_ref().map(|sealed| named(layer, sealed)).transpose()).collect()
    }

    /// What is stated of it in the evidence, with the command line that will run.
    pub(crate) fn workload(&self, command: Vec<String>) -> Workload {
        Workload { manifest_digest: self.manifest_digest.clone(), signers: self.signers.clone(), command }
    }

    /// The command line that will run: the image's own, with `args` in the place of its default arguments.
    pub(crate) fn command(&self, args: &[String]) -> Vec<String> {
        let config = self.config.config().as_ref();
        let mut command = config.and_then(|config| config.entrypoint().clone()).unwrap_or_default();
        if args.is_empty() {
            command.extend(config.and_then(|config| config.cmd().clone()).unwrap_or_default());
        } else {
            command.extend(args.iter().cloned());
        }
        command
    }
}

impl Layer {
    /// What it is once its stream has passed every check with so many bytes of plain tar.
    pub(crate) fn verified(&self, plain_bytes: u64) -> VerifiedLayer {
        let sealed = self.sealed.is_some();
        VerifiedLayer {
            digest: self.descriptor.digest.to_string(),
            diff_id: self.diff_id.clone(),
            bytes: self.descriptor.size,
            plain_bytes,
            sealed,
            verified: if sealed { &["digest", "hmac", "plain_digest", "diff_id"] } else { &["digest", "diff_id"] },
        }
    }

    /// The keys that open it; none for a plain layer.
    pub(crate) fn kids(&self) -> Result<Vec<&Kid>, Failure> {
        let Some(sealed) = &self.sealed else { return Ok(Vec::new()) };
        let kids: Vec<&Kid> = sealed.kids().collect();
        if !kids.is_empty() {
            return Ok(kids);
        }
        let failure = Failure::bad_input(format!("no service's key opens the layer {}", self.descriptor.digest))
            .hint("ask the vendor for an image that was sealed for this shim");
        let packets = sealed.unsupported().map(|packet| format!("a key packet is of an unknown kind: {packet}"));
        let others = sealed.other_wraps().map(|name| format!("its key is wrapped by `{name}`"));
        Err(packets.chain(others).fold(failure, Failure::cause))
    }
}

/// Where the key is to be asked for.
pub(crate) fn key_path(kid: &Kid) -> Result<ResourcePath, Failure> {
    let path = kid.path().parse();
    path.or_fail(ExitCode::BadInput, || format!("the layers' key `{}` is none of a service", kid.as_str()))
}

/// Why an image that nobody has sealed is not started.
pub(crate) fn no_sealed_layer() -> Failure {
    Failure::verification("the image has no layer that is sealed to a service")
        .hint("a plain or re-assembled image is not started; ask the vendor for the sealed one")
}

fn open<'k>(
    layer: &Layer,
    sealed: &SealedLayer,
    keks: impl IntoIterator<Item = &'k KeyEncryptionKey>,
) -> Result<PrivateOptions, Failure> {
    let mut last = None;
    for kek in keks {
        match sealed.open_with_kek(kek) {
            Ok(options) => return Ok(options),
            Err(error) => last = Some(error),
        }
    }
    let failure =
        Failure::verification(format!("the released key does not open the layer {}", layer.descriptor.digest));
    Err(match last {
        Some(error) => failure.caused_by(&error),
        None => failure,
    })
}

async fn platform_manifest(store: &Store, platform: Option<&str>) -> Result<RawManifest, Failure> {
    let raw =
        store.resolve().await.map_err(|error| store_failure(format!("cannot read `{}`", store.reference()), &error))?;
    let Document::Index(index) = parse(&raw)? else { return Ok(raw) };
    let wanted = platform.map_or_else(this_platform, ToOwned::to_owned);
    let entry = pick(&index, &wanted).ok_or_else(|| {
        let available: Vec<String> =
            index.manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(name).collect();
        Failure::bad_input(format!("`{}` has no image for {wanted}", store.reference()))
            .hint(format!("name another by `--platform`; there are: {}", available.join(", ")))
    })?;
    store
        .manifest(&entry.digest)
        .await
        .map_err(|error| store_failure(format!("cannot read the manifest {}", entry.digest), &error))
}

fn pick<'a>(index: &'a Index, wanted: &str) -> Option<&'a Descriptor> {
    let of = |entry: &&Descriptor, exact: bool| {
        entry.platform.as_ref().is_some_and(|platform| {
            let name = name(platform);
            name == wanted || (!exact && name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/')))
        })
    };
    index
        .manifests
        .iter()
        .find(|entry| of(entry, true))
        .or_else(|| index.manifests.iter().find(|entry| of(entry, false)))
}

fn name(platform: &Platform) -> String {
    match platform.variant.as_deref() {
        Some(variant) if !variant.is_empty() => format!("{}/{}/{variant}", platform.os, platform.architecture),
        _ => format!("{}/{}", platform.os, platform.architecture),
    }
}

/// This machine's platform in Go's names.
pub(crate) fn this_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

fn parse(raw: &RawManifest) -> Result<Document, Failure> {
    raw.parse().or_fail(ExitCode::BadInput, || format!("the manifest {} cannot be used", raw.digest))
}

async fn signers(store: &Store, digest: &str, keys: &[VerifyingKey]) -> Result<Vec<String>, Failure> {
    let signatures = find_signers(store, digest, keys).await.map_err(|error| {
        let message = format!("cannot read the signatures of {digest}");
        match &error {
            LookupError::Store(error) => store_failure(message, error),
            other => Failure::verification(message).caused_by(other),
        }
    })?;
    match signatures {
        Signatures::By(signers) => Ok(signers.into_iter().map(|signer| signer.thumbprint).collect()),
        Signatures::None => Err(Failure::verification(format!("the image {digest} is not signed"))
            .hint("copy its signature, too (tag `sha256-<digest>.sig`), or ask the vendor for the signed image")),
        Signatures::ByOthers => {
            Err(Failure::verification(format!("the image {digest} is signed by none of the keys in the licence"))
                .hint("the image and the licence must come from the same vendor"))
        }
    }
}

async fn config(store: &Store, manifest: &Manifest) -> Result<ImageConfiguration, Failure> {
    let bytes = store
        .small_blob(&manifest.config, CONFIG_MAX)
        .await
        .map_err(|error| store_failure("cannot read the image's config", &error))?;
    serde_json::from_slice(&bytes).or_fail(ExitCode::BadInput, || "the image's config is malformed".to_owned())
}

fn layers(manifest: &Manifest, config: &ImageConfiguration) -> Result<Vec<Layer>, Failure> {
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != manifest.layers.len() {
        return Err(Failure::verification(format!(
            "the image has {} layers but its config names {}",
            manifest.layers.len(),
            diff_ids.len()
        )));
    }
    manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| {
            let sealed = ocicrypt::media_type::is_encrypted(&descriptor.media_type)
                .then(|| SealedLayer::parse(&descriptor.annotations))
                .transpose()
                .or_fail(ExitCode::BadInput, || {
                    format!("the layer {} cannot be opened by anyone", descriptor.digest)
                })?;
            let confinement = descriptor.annotations.get(CONFINED_ANNOTATION).map(|text| text.parse()).transpose();
            let confinement = confinement.or_fail(ExitCode::BadInput, || {
                format!("the layer {} is confined to no directory", descriptor.digest)
            })?;
            Ok(Layer { descriptor: descriptor.clone(), diff_id: diff_id.clone(), sealed, confinement })
        })
        .collect()
}
