//! containers/storage, where podman, CRI-O and buildah keep containers and images: `DRIVER-containers` and `DRIVER-images` side
//! by side in the graph root. Read only, as the files stand.

mod place;

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use command_line::{ExitCode, Failure, FailureContext as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::place::Place;
use super::container_image::{diff_ids, is_sealed};
use crate::agent::protocol::ContainerImage;

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 256 << 20;

/// `containers.json`
#[derive(Deserialize)]
struct Container {
    id: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    layer: String,
}

/// `images.json`
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    id: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    layer: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    big_data_names: Vec<String>,
}

/// The image of the container with this bundle and root file system; `None` where neither is of this storage, or the container
/// is of no image.
pub(super) fn image_of(bundle: &Path, root: &Path) -> Result<Option<ContainerImage>, Failure> {
    let Some(place) = Place::of(bundle, root) else { return Ok(None) };
    let images: Vec<Image> = list(&place.images.join("images.json"))?;
    let image = match place.container()? {
        Some(container) if container.image.is_empty() => return Ok(None),
        Some(container) => images.into_iter().find(|image| image.id == container.image),
        // Somebody has mounted the image itself.
        None => images.into_iter().find(|image| Some(&image.layer) == place.layer.as_ref()),
    };
    let image = image.ok_or_else(|| {
        Failure::other(format!("which image the container is of cannot be told from `{}`", place.images.display()))
            .hint("images of additional stores cannot be told from sealed ones: pull the image into the engine's own store")
    })?;
    let id = &image.id;
    let manifest_digest = place.sealed_manifest(&image)?;
    // An image's id is the digest of its config.
    let config = image.big_data_names.iter().find(|name| **name == format!("sha256:{id}"));
    let diff_ids = config.map(|name| diff_ids(&place.data(id, name)?)).transpose()?;
    let Some(diff_ids) = diff_ids else {
        return Err(Failure::other(format!("the image {id} of the container has no config in the storage")));
    };
    Ok(Some(ContainerImage {
        reference: image.names.into_iter().next().unwrap_or_default(),
        is_sealed: manifest_digest.is_some(),
        manifest_digest: manifest_digest.or(image.digest),
        diff_ids,
        chain_ids: Vec::new(),
    }))
}

impl Place {
    /// The container; `None` where no container has its root file system.
    fn container(&self) -> Result<Option<Container>, Failure> {
        for file in ["containers.json", "volatile-containers.json"] {
            let containers: Vec<Container> = list(&self.containers.join(file))?;
            let found = containers.into_iter().find(|container| {
                Some(&container.id) == self.container_id.as_ref() || Some(&container.layer) == self.layer.as_ref()
            });
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The digest of the image's sealed manifest. Whoever decrypts keeps it beside the plain one that it writes.
    fn sealed_manifest(&self, image: &Image) -> Result<Option<String>, Failure> {
        for name in &image.big_data_names {
            if let Some(digest) = name.strip_prefix("manifest-")
                && is_sealed(&self.data(&image.id, name)?)?
            {
                return Ok(Some(digest.to_owned()));
            }
        }
        Ok(None)
    }

    /// What the storage keeps with an image under a name.
    fn data(&self, image: &str, name: &str) -> Result<Vec<u8>, Failure> {
        let plain = name.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit() || byte.is_ascii_lowercase());
        let file = if plain { name.to_owned() } else { format!("={}", BASE64_STANDARD.encode(name)) };
        let file = self.images.join(image).join(file);
        read(&file).or_fail(ExitCode::Other, || format!("cannot read the image's `{}`", file.display()))
    }
}

/// A list in a file; empty where there is no file.
fn list<T: DeserializeOwned>(file: &Path) -> Result<Vec<T>, Failure> {
    let cannot = || format!("cannot read the storage's `{}`", file.display());
    match read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => serde_json::from_slice(&read.or_fail(ExitCode::Other, cannot)?).or_fail(ExitCode::Other, cannot),
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Storage(tempfile::TempDir);

    impl Storage {
        /// With the containers `abc` (of the image `feed`), `bare` (of none) and `brief`, which is volatile.
        fn make(media_type: &str) -> Self {
            let storage = Self(tempfile::tempdir().unwrap());
            let image = json!([{
                "id": "feed", "digest": "sha256:01", "layer": "top", "names": ["registry.example/app:v1"],
                "big-data-names": ["sha256:feed", "manifest-sha256:01", "manifest-sha256:03", "manifest"],
            }]);
            let containers = json!([{"id": "abc", "image": "feed", "layer": "upper"}, {"id": "bare"}]);
            storage.write("overlay-containers/containers.json", &containers.to_string());
            let containers = json!([{"id": "brief", "image": "feed"}, {"id": "lost", "image": "f00d"}]);
            storage.write("overlay-containers/volatile-containers.json", &containers.to_string());
            storage.write("overlay-images/images.json", &image.to_string());
            let packet = json!({"kid": "kbs://vendor.example/app/image-key/k", "wrapped_data": "AA==", "iv": "AAAAAAAAAAAAAAAA", "wrap_type": "A256GCM"});
            let public = json!({"cipher": "AES_256_CTR_HMAC_SHA256", "hmac": BASE64_STANDARD.encode([0; 32]), "cipheroptions": {}});
            let annotations = json!({
                "org.opencontainers.image.enc.keys.provider.attestation-agent": BASE64_STANDARD.encode(packet.to_string()),
                "org.opencontainers.image.enc.pubopts": BASE64_STANDARD.encode(public.to_string()),
            });
            let manifest = json!({"layers": [{"mediaType": media_type, "annotations": annotations}]});
            let data = |name: &str| format!("overlay-images/feed/={}", BASE64_STANDARD.encode(name));
            storage.write(&data("manifest-sha256:03"), &manifest.to_string());
            storage.write(&data("manifest-sha256:01"), r#"{"layers": []}"#);
            storage.write(&data("sha256:feed"), &json!({"rootfs": {"diff_ids": ["sha256:02"]}}).to_string());
            storage
        }

        fn write(&self, name: &str, text: &str) {
            let file = self.0.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn image_of(&self, container: &str) -> Result<Option<ContainerImage>, Failure> {
            let bundle = self.0.path().join("overlay-containers").join(container).join("userdata");
            image_of(&bundle, &bundle.join("rootfs"))
        }
    }

    #[test]
    fn the_image_of_a_container_is_found_with_its_layers() {
        for (media_type, is_sealed, digest) in [
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", true, "sha256:03"),
            ("application/vnd.oci.image.layer.v1.tar+gzip", false, "sha256:01"),
        ] {
            let expected = ContainerImage {
                reference: "registry.example/app:v1".to_owned(),
                manifest_digest: Some(digest.to_owned()),
                is_sealed,
                diff_ids: vec!["sha256:02".to_owned()],
                chain_ids: Vec::new(),
            };
            let storage = Storage::make(media_type);
            for container in ["abc", "brief"] {
                assert_eq!(storage.image_of(container).unwrap(), Some(expected.clone()));
            }
            // Whatever the bundle, and also when the image itself is mounted.
            for layer in ["upper", "top"] {
                let root = storage.0.path().join("overlay").join(layer).join("merged");
                assert_eq!(image_of(Path::new("/var/tmp/buildah"), &root).unwrap(), Some(expected.clone()));
            }
        }
    }

    #[test]
    fn what_is_of_no_image_or_no_storage_is_said_to_be_so_and_what_cannot_be_told_fails() {
        let storage = Storage::make("application/vnd.oci.image.layer.v1.tar");
        assert_eq!(storage.image_of("bare").unwrap(), None);
        assert_eq!(image_of(Path::new("/run/some/bundle"), Path::new("/run/some/bundle/rootfs")).unwrap(), None);
        assert!(storage.image_of("unknown").is_err(), "a container that is not there");
        assert!(storage.image_of("lost").is_err(), "an image that is not there");
        let manifest = format!("overlay-images/feed/={}", BASE64_STANDARD.encode("manifest-sha256:03"));
        fs::remove_file(storage.0.path().join(manifest)).unwrap();
        assert!(storage.image_of("abc").is_err(), "an image without one of its manifests");
    }
}
