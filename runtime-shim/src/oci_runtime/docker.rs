//! Docker's own records (`DATA/containers`, `DATA/image/DRIVER/layerdb`), of which containerd, that runs its containers, knows
//! nothing. Read only, as the files stand. Where Docker keeps its images in containerd, they name the snapshot there.

use std::io::{ErrorKind, Read as _};
use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};
use serde::Deserialize;

use super::containerd::{self, Snapshot};
use crate::agent::protocol::ContainerImage;

/// The longest file that is read, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// The most layers that are followed down.
const LAYERS_MAX: usize = 1024;

/// `config.v2.json`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    /// The graph driver, or containerd's snapshotter.
    driver: String,
    /// The digest of the image's config, or of what its name stood for in containerd.
    #[serde(default)]
    image: String,
    /// The platform's manifest, where images are in containerd.
    #[serde(default)]
    image_manifest: Option<Descriptor>,
    #[serde(default)]
    config: Config,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
}

/// The image of the container with this id and root file system; `None` where it is not Docker's.
pub(super) async fn image_of(bundle: &Path, id: &str, root: &Path) -> Result<Option<ContainerImage>, Failure> {
    // DATA/DRIVER/NAME/merged, DATA/vfs/dir/NAME, DATA/btrfs/subvolumes/NAME, DATA/zfs/graph/NAME,
    // DATA/rootfs/SNAPSHOTTER/ID: it is always three below.
    let data = root.ancestors().nth(3);
    let record = data.map(|data| data.join("containers").join(id).join("config.v2.json"));
    let Some((data, record)) = data.zip(record).filter(|(_, record)| record.exists()) else {
        return if containerd::is_dockers(bundle) { Err(unknown(id)) } else { Ok(None) };
    };
    let cannot = || format!("cannot read Docker's record `{}`", record.display());
    let text = read(&record)?.unwrap_or_default();
    let container: Container = serde_json::from_str(&text).or_fail(ExitCode::Other, cannot)?;
    let layers = data.join("image").join(&container.driver).join("layerdb");
    if layers.join("mounts").join(id).is_dir() {
        return of_layers(&layers, id, container.config.image).map(Some);
    }
    let target = container.image_manifest.map_or(container.image, |manifest| manifest.digest);
    let snapshot = Snapshot { snapshotter: &container.driver, key: id, target: &target };
    let found = containerd::image_of_snapshot(bundle, &snapshot).await?;
    let found = found.ok_or_else(|| unknown(id))?;
    Ok(Some(ContainerImage { reference: container.config.image, ..found }))
}

/// By the graph driver's layers below the container: they stay when the image goes. Docker opens no sealed layers itself, and
/// keeps no manifests.
fn of_layers(layers: &Path, id: &str, reference: String) -> Result<ContainerImage, Failure> {
    let mut image = ContainerImage {
        reference,
        manifest_digest: None,
        is_sealed: false,
        diff_ids: Vec::new(),
        chain_ids: Vec::new(),
    };
    let mut next = read(&layers.join("mounts").join(id).join("parent"))?;
    while let Some(chain_id) = next {
        if image.chain_ids.len() == LAYERS_MAX {
            return Err(Failure::bad_input(format!("the container has more than {LAYERS_MAX} layers")));
        }
        let layer = layers.join(chain_id.replace(':', "/"));
        let diff = layer.join("diff");
        let missing = || Failure::other(format!("Docker's record `{}` is missing", diff.display()));
        image.diff_ids.push(read(&diff)?.ok_or_else(missing)?);
        image.chain_ids.push(chain_id);
        next = read(&layer.join("parent"))?;
    }
    image.diff_ids.reverse();
    Ok(image)
}

/// What nobody can tell of may be sealed.
fn unknown(id: &str) -> Failure {
    Failure::other(format!("Docker's records do not tell what container {id} is made of"))
        .hint("is its data directory (`docker info`) one that the runtime can read?")
}

/// A file's text; `None` where there is none.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    let mut text = String::new();
    let done = std::fs::File::open(file).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        done => done
            .map(|_| Some(text))
            .or_fail(ExitCode::Other, || format!("cannot read Docker's record `{}`", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docker's data directory with a container of two layers.
    fn data() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "containers/abc/config.v2.json",
                r#"{"Driver": "vfs", "Image": "sha256:feed", "Config": {"Image": "app"}}"#,
            ),
            ("image/vfs/layerdb/mounts/abc/parent", "sha256:0b"),
            ("image/vfs/layerdb/sha256/0b/parent", "sha256:0a"),
            ("image/vfs/layerdb/sha256/0b/diff", "sha256:02"),
            ("image/vfs/layerdb/sha256/0a/diff", "sha256:01"),
        ] {
            let file = data.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        data
    }

    #[tokio::test]
    async fn the_layers_of_a_container_are_found_wherever_its_driver_has_the_root() {
        let data = data();
        let bundle = Path::new("/bundle");
        for root in ["overlay2/0123/merged", "vfs/dir/0123", "btrfs/subvolumes/0123"] {
            let root = data.path().join(root);
            let image = image_of(bundle, "abc", &root).await.unwrap().unwrap();
            assert_eq!((image.reference.as_str(), image.manifest_digest), ("app", None));
            assert_eq!((image.diff_ids, image.chain_ids), (texts(["01", "02"]), texts(["0b", "0a"])));
            assert_eq!(image_of(bundle, "other", &root).await.unwrap(), None);
        }
        assert_eq!(image_of(bundle, "abc", Path::new("rootfs")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_container_of_dockers_that_nothing_is_told_of_is_not_taken_for_an_unsealed_one() {
        let data = data();
        let root = data.path().join("vfs/dir/0123");
        let dockers = Path::new("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/other");
        assert!(image_of(dockers, "other", &root).await.is_err());
        std::fs::remove_file(data.path().join("image/vfs/layerdb/sha256/0a/diff")).unwrap();
        assert!(image_of(Path::new("/bundle"), "abc", &root).await.is_err());
        std::fs::remove_dir_all(data.path().join("image")).unwrap();
        assert!(image_of(Path::new("/bundle"), "abc", &root).await.is_err());
    }

    fn texts(hex: [&str; 2]) -> Vec<String> {
        hex.map(|hex| format!("sha256:{hex}")).into()
    }
}
