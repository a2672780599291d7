//! Where a container's storage is, by its bundle or by its root file system.

use std::path::{Path, PathBuf};

/// The storage of a container, and what the container is known by in it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) containers: PathBuf,
    pub(super) images: PathBuf,
    pub(super) container_id: Option<String>,
    /// The layer that the root file system is.
    pub(super) layer: Option<String>,
}

impl Place {
    /// podman's bundles are in the graph root, `GRAPHROOT/DRIVER-containers/ID/userdata`; CRI-O's are elsewhere under the same
    /// names, and buildah's anywhere: there the root file system tells, `GRAPHROOT/DRIVER/LAYER/merged`.
    pub(super) fn of(bundle: &Path, root: &Path) -> Option<Self> {
        let layer = layer_of(root);
        let container_id = container_of(bundle);
        let by_bundle = container_id.and_then(|_| {
            let containers = bundle.parent()?.parent()?;
            Some((containers.parent()?, containers.file_name()?.to_str()?.strip_suffix("-containers")?))
        });
        // Who keeps images there has a list of them.
        let mut places = layer.map(|(graph, driver, _)| (graph, driver)).into_iter().chain(by_bundle);
        let (graph, driver) = places.find(|(graph, driver)| {
            graph.join(format!("{driver}-containers")).is_dir() && graph.join(format!("{driver}-images")).is_dir()
        })?;
        Some(Self {
            containers: graph.join(format!("{driver}-containers")),
            images: graph.join(format!("{driver}-images")),
            container_id: container_id.map(ToOwned::to_owned),
            layer: layer.map(|(_, _, layer)| layer.to_owned()),
        })
    }
}

/// The id in `DRIVER-containers/ID/userdata`.
fn container_of(bundle: &Path) -> Option<&str> {
    let own = bundle.parent().filter(|_| bundle.file_name().is_some_and(|name| name == "userdata"))?;
    let containers = own.parent()?.file_name()?.to_str()?;
    containers.ends_with("-containers").then_some(own.file_name()?.to_str()?)
}

/// Graph root, driver and layer of `GRAPHROOT/DRIVER/LAYER/merged` or `GRAPHROOT/vfs/dir/LAYER`.
fn layer_of(root: &Path) -> Option<(&Path, &str, &str)> {
    let last = root.file_name()?.to_str()?;
    let parent = root.parent()?;
    let (driver, layer) = match last {
        "merged" | "diff" => (parent.parent()?, parent.file_name()?.to_str()?),
        layer if parent.file_name()? == "dir" => (parent.parent()?, layer),
        _ => return None,
    };
    Some((driver.parent()?, driver.file_name()?.to_str()?, layer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_storage_is_found_from_the_bundle_or_from_the_root_file_system() {
        let graph = tempfile::tempdir().unwrap();
        for name in ["overlay-containers", "overlay-images", "vfs-containers", "vfs-images"] {
            std::fs::create_dir(graph.path().join(name)).unwrap();
        }
        let inside = |name: &str| graph.path().join(name);
        let found = |bundle: &Path, root: &Path| {
            Place::of(bundle, root).map(|place| {
                let driver = place.images.file_name().unwrap().to_str().unwrap().to_owned();
                (driver, place.container_id.unwrap_or_default(), place.layer.unwrap_or_default())
            })
        };
        let place = |driver: &str, id: &str, layer: &str| Some((driver.to_owned(), id.to_owned(), layer.to_owned()));
        let podman = inside("overlay-containers/abc/userdata");
        let crio = PathBuf::from("/run/containers/storage/overlay-containers/abc/userdata");
        let (elsewhere, merged) = (PathBuf::from("/var/tmp/buildah"), inside("overlay/feed/merged"));
        assert_eq!(found(&podman, &merged), place("overlay-images", "abc", "feed"));
        assert_eq!(found(&podman, Path::new("/somewhere")), place("overlay-images", "abc", ""));
        assert_eq!(found(&crio, &merged), place("overlay-images", "abc", "feed"));
        assert_eq!(found(&elsewhere, &merged), place("overlay-images", "", "feed"));
        assert_eq!(found(&elsewhere, &inside("vfs/dir/feed")), place("vfs-images", "", "feed"));
        assert_eq!(found(&elsewhere, Path::new("/var/lib/docker/overlay2/x/merged")), None);
        assert_eq!(found(&elsewhere, Path::new("rootfs")), None);
    }
}
